"""A small program that bounds a large one: columns that cost the same, rolled into one.

Columns of one offer with blocks of the same size differ only in what they serve. If blocks of such a group could run
every set-up at once, each class would use the group's best one:

    r_gk = max over j in g of r_jk,    n_g = Σ over j in g of n_j

Every fleet of the full program is a fleet of this one at the same cost and power, so its optimum bounds the full
program's. With twelve accelerators it has twelve integers instead of hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tokopt.fleet.problem import Column, FleetProblem

WORTH_GROUPING = 500  # rate variables; below that the full program is solved at once
BEST_OF_A_CLASS = 2  # columns of a group that are kept for each class that the group serves


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of columns, and the program over groups."""

    members: tuple[tuple[int, ...], ...]
    problem: FleetProblem


def grouped(problem: FleetProblem) -> Groups | None:
    """Return the program over groups, or None where it would be no smaller or is not needed."""
    columns = problem.columns
    if len(columns) * len(problem.demand) < WORTH_GROUPING:
        return None
    by_terms: dict[tuple[object, ...], list[int]] = {}
    for j, c in enumerate(columns):
        terms = (c.accelerator, c.offer, c.usd_per_hour, repr(c.power_w), c.units_per_block, c.accelerators_per_block)
        by_terms.setdefault(terms, []).append(j)
    members = tuple(tuple(group) for group in by_terms.values())
    if len(members) == len(columns):
        return None
    rates = np.array([c.requests_per_s for c in columns])
    rolled = tuple(
        replace(columns[group[0]], name=f"group {g}", requests_per_s=tuple(rates[list(group)].max(axis=0).tolist()))
        for g, group in enumerate(members)
    )
    # The bound has to be sharper than the gap that is asked for.
    finer = replace(problem, columns=rolled, gap_target=problem.gap_target / 10.0)
    return Groups(members, finer)


def promising(problem: FleetProblem, groups: Groups, rates: tuple[tuple[float, ...], ...]) -> list[int]:
    """Return the columns worth trying first: of each group in use, the best few for each class that it serves."""
    columns: list[Column] = list(problem.columns)
    kept: set[int] = set()
    for group, served in zip(groups.members, rates, strict=True):
        classes = [k for k, rate in enumerate(served) if rate > 1e-9]
        if not classes:
            continue
        table = np.array([columns[j].requests_per_s for j in group])[:, classes]
        best = np.argsort(-table, axis=0, kind="stable")[:BEST_OF_A_CLASS]
        kept.update(group[i] for i in np.unique(best))
    return sorted(kept)
