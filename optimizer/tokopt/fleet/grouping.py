"""A small program that bounds a large one: columns that count alike, rolled into one.

Columns of one offer with blocks of the same size differ only in what they serve. If blocks of such a group could run
every set-up at once, each class would use the group's best one:

    r_gk = max over j in g of r_jk,    n_gt = Σ over j in g of n_jt

Every fleet of the full program is a fleet of this one at the same cost, power and carbon, so its optimum bounds the
full program's. With twelve accelerators it has twelve integers a period instead of hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tokopt.fleet.reductions import terms_of
from tokopt.fleet.table import Bools, Floats, Ints, Table, distinct_rows

WORTH_GROUPING = 500  # rate variables; below that the full program is solved at once
BEST_OF_A_CLASS = 2  # columns of a group that are kept for each class that the group serves


@dataclass(frozen=True, slots=True)
class Groups:
    """The table of groups, and the group of each column."""

    table: Table
    of: Ints  # J


def grouped(table: Table) -> Groups | None:
    """Return the program over groups, or None where it would be no smaller or is not needed."""
    if table.count * table.rates.shape[1] * len(table.hours) < WORTH_GROUPING:
        return None
    alone = np.isfinite(table.most) | (table.least > 0)
    if table.problem.change_usd_per_accelerator_hour:
        alone |= table.current > 0
    # A column with limits or a penalty of its own is a group of its own.
    of = distinct_rows(terms_of(table, offers=True), table.cost, np.where(alone, np.arange(table.count), -1))
    _, first = np.unique(of, return_index=True)
    if len(first) == table.count:
        return None
    rates = np.zeros((len(first), table.rates.shape[1]))
    np.maximum.at(rates, of, table.rates)
    return Groups(replace(table.take(first), rates=rates), of)


def promising(table: Table, groups: Groups, served: Floats) -> Bools:
    """Return the columns worth trying first: of each group in use, the best few for each class that it serves.

    Args:
        table: All columns.
        groups: Its groups.
        served: Groups x classes: requests/s, the most of any period.
    """
    kept = np.zeros(table.count, dtype=np.bool_)
    for group in np.flatnonzero((served > 1e-9).any(axis=1)).tolist():
        members = np.flatnonzero(groups.of == group)
        rates = table.rates[members][:, served[group] > 1e-9]
        best = np.argsort(-rates, axis=0, kind="stable")[:BEST_OF_A_CLASS]
        kept[members[np.unique(best)]] = True
    return kept
