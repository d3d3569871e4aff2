"""Least cost per token, a ratio, by Dinkelbach's method.

min cost(n)/tokens(x) over fleets that fill the limits. For a guess q, F(q) = min cost - q·tokens; F(q) = 0 exactly at
the optimum, and the minimiser's own ratio is the next guess (Dinkelbach, Management Science 13(7), 1967). With a proven
bound b ≤ F(q) every fleet's ratio is at least q + b/(most tokens), which is the bound reported.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tokopt.fleet.engine import minimise
from tokopt.fleet.formulation import MILLION_TOKENS_PER_HOUR, Formulation, formulate
from tokopt.fleet.outcome import SAME, Outcome, nothing, read
from tokopt.fleet.problem import Stop
from tokopt.fleet.program import Floats
from tokopt.fleet.search import Search, start_of
from tokopt.fleet.table import Table

ROUNDS = 30  # gains digits superlinearly; 3 is the usual number
ROUNDING = 1e-6  # of the largest block, by which the limits may be less than full: solvers' tolerance


def cheapest_tokens(table: Table, search: Search) -> tuple[Outcome, Formulation, float]:
    """Return the fleet with the least cost per token, the program with the rows of its being full, and the ratio."""
    form = formulate(table, search.failures)
    full = fill(form, search)
    if full is None:
        return nothing(table, "HiGHS", "nothing can be served"), form, math.inf
    most_tokens, start = full
    cost, tokens = form.cost() + form.change(), form.tokens()
    # From a fleet that serves something on, every guess is reached or beaten: none that serves nothing can win.
    answer = minimise(form.program, -tokens, search.effort(), start_of(form, start))
    if not answer.found or float(tokens @ answer.values) <= 0.0:
        return nothing(table, answer.solver, answer.detail), form, math.inf
    ratio = float(cost @ answer.values) / float(tokens @ answer.values)
    for _ in range(ROUNDS):
        before = start_of(form, read(form, answer))
        answer = minimise(form.program, cost - ratio * tokens, search.effort(), before)
        if not answer.found:
            return nothing(table, answer.solver, answer.detail), form, math.inf
        made = float(tokens @ answer.values)
        found = float(cost @ answer.values) / made if made > 0.0 else ratio
        if abs(found - ratio) <= SAME * ratio:
            ratio = min(ratio, found)
            break
        ratio = min(found, ratio) if answer.stop is Stop.TIME_LIMIT else found
        if answer.stop is Stop.TIME_LIMIT:
            break
    slack = max(0.0, -(answer.bound - min(answer.objective, 0.0)))
    bound = ratio - slack / most_tokens
    # Dinkelbach's last objective is zero up to rounding: a bound as close as rounding allows is exact.
    bound = ratio if ratio - bound <= SAME * ratio else bound
    return replace(read(form, answer), objective=ratio, bound=bound), form, ratio


def fill(form: Formulation, search: Search) -> tuple[float, Outcome] | None:
    """Require that the fleet fills its limits; return the most million tokens an hour they allow, and that fleet.

    Without this the cheapest token might come from one lone machine. A fleet is full when the power that is left could
    not take one more of the largest block:  Σ w_j n_j ≥ (most power that can be used) - max_j w_j. Where there is no
    power limit, or there are several periods, tokens take the place of power.
    """
    table, tokens = form.table, form.tokens()
    most = minimise(form.program, -tokens, search.effort(share=0.5))
    if not most.found or float(tokens @ most.values) <= 0.0:
        return None
    start = read(form, most)
    if table.problem.power_w is None or not (table.power > 0).any() or len(table.hours) > 1:
        biggest = float(biggest_tokens(table).max())
        form.program.at_most(-tokens, -max(float(tokens @ most.values) - biggest * (1.0 + ROUNDING), 0.0))
        return -most.bound, start
    power = form.energy()
    biggest = float(table.power.max()) * 1e-3
    if _only_power_limits(table):
        counts = np.floor(table.problem.power_w / np.where(table.power > 0, table.power, np.inf) * (1 + 1e-12))
        usable = float((counts * table.power).max()) * 1e-3
    else:
        used = minimise(form.program, -power, search.effort(share=0.5), start_of(form, start))
        usable = float(power @ used.values)
    form.program.at_most(-power, -max(usable - biggest * (1.0 + ROUNDING), 0.0))
    return -most.bound, start


def _only_power_limits(table: Table) -> bool:
    problem = table.problem
    several = (problem.budget_usd_per_hour, problem.most_accelerator_types, problem.carbon_g_per_hour)
    mappings = (problem.offer_units, problem.accelerator_stock, problem.site_power_w, problem.caps)
    own = bool(np.isfinite(table.most).any())
    return all(limit is None for limit in several) and not any(mappings) and not own


def biggest_tokens(table: Table) -> Floats:
    """Return J: the most million tokens/h that a block of each column makes."""
    return np.asarray((table.rates * table.tokens).max(axis=1, initial=0.0) * MILLION_TOKENS_PER_HOUR)
