"""The plain set-up that a plan is compared with, and the worlds between it and the plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tokopt.domain.accelerators import Accelerator, NumberFormat
from tokopt.domain.plans import Plan
from tokopt.errors import InputError
from tokopt.search import SharedSearch

from .columns import allowed_offers, hardware_of
from .explaining_factors import FactorRow, Setting, chosen_factors
from .explaining_features import hardware_in
from .explaining_worlds import Ground, Outcome, World, outcome_of, solved


def coalition_world(setting: Setting, rows: Sequence[FactorRow], coalition: int) -> World:
    """Return the world in which the factors whose bits are set are as in the plan, and the others as in the baseline.

    Accelerators are the plan's, so that what another factor is worth is not mixed with a change of accelerator.
    """
    request, hardware = setting.plan.request, setting.hardware
    named = tuple(name for name in request.accelerators if hardware_of(name) in hardware)
    update = {"accelerators": named or hardware, "current": (), "change_usd_per_gpu": 0.0}
    world = World(request=request.model_copy(update=update))
    for place, row in enumerate(rows):
        if not coalition >> place & 1:
            world = row.revert(world, setting)
    return world


def choose_baseline(
    plan: Plan, ground: Ground, wanted: str | None, factors: Sequence[str], search: SharedSearch
) -> tuple[Setting, tuple[FactorRow, ...], str]:
    """Return the baseline, the factors between it and the plan, and how it was chosen.

    Raises:
        InputError: No plain set-up meets the request; what would is said.
    """
    known = [accelerator.name for accelerator in candidates(plan, ground)]
    if wanted is not None:
        try:
            name = hardware_of(ground.catalog.accelerator(wanted).name)
        except InputError as error:
            raise InputError(f"--baseline: {error}") from None
        if name not in known:
            raise InputError(
                f"--baseline: {name} has no price that the request may use; these have: {', '.join(known)}"
            )
        setting, rows, outcome = _tried(plan, ground, name, factors, search)
        if outcome.usd is not None:
            return setting, rows, "asked for"
        others = [n for n, (*_, found) in _each(plan, ground, known, factors, search) if found.usd is not None]
        works = f"this works: {', '.join(others)}" if others else _narrower(plan, ground, [name], factors, search)
        raise InputError(f"--baseline: nothing plain on {name} meets the request ({outcome.infeasible}); {works}")
    if factors and not {"accelerator", "interconnect"} & set(factors):
        known = list(dict.fromkeys((hardware_in(plan)[0], *known)))  # the plan's own first
    for _, (setting, rows, outcome) in _each(plan, ground, known, factors, search):
        if outcome.usd is not None:
            return setting, rows, "the slowest accelerator of the price list that meets the request without the factors"
    works = _narrower(plan, ground, [*hardware_in(plan), *known], factors, search)
    raise InputError(f"nothing plain meets the request on any accelerator of the price list; {works}")


def candidates(plan: Plan, ground: Ground) -> list[Accelerator]:
    """Return the accelerators that the price list has, whatever the request selects: the slowest in 16 bits first."""
    free = plan.request.model_copy(update={"accelerators": (), "excluded_accelerators": ()})
    table = ground.catalog.accelerators
    found = {offer.accelerator: table[offer.accelerator] for offer in allowed_offers(ground.prices.offers, free)}
    return sorted(
        found.values(), key=lambda a: (a.dense_flop_per_s.get(NumberFormat.BF16, 0.0), a.memory_bytes_per_s, a.name)
    )


Tried = tuple[Setting, tuple[FactorRow, ...], Outcome]


def _each(
    plan: Plan, ground: Ground, known: Sequence[str], factors: Sequence[str], search: SharedSearch
) -> Iterator[tuple[str, Tried]]:
    for name in known:
        try:
            yield name, _tried(plan, ground, name, factors, search)
        except InputError:  # a wanted factor that is none against this baseline
            if name == known[-1]:
                raise


def _tried(plan: Plan, ground: Ground, name: str, factors: Sequence[str], search: SharedSearch) -> Tried:
    """Return what comes of an accelerator as the baseline."""
    setting = Setting(plan=plan, ground=ground, baseline=name)
    rows = chosen_factors(setting, factors)
    setting = replace(setting, factors=frozenset(part for row in rows for part in (row.parts or (row.name,))))
    if not rows:  # the plan is as plain as it gets
        return setting, rows, outcome_of(plan)
    return setting, rows, solved(coalition_world(setting, rows, 0), ground, search)


def _narrower(plan: Plan, ground: Ground, known: Sequence[str], factors: Sequence[str], search: SharedSearch) -> str:
    """Return the options that would work: one factor fewer, which the baseline then has like the plan."""
    for name in dict.fromkeys(known):
        rows = chosen_factors(Setting(plan=plan, ground=ground, baseline=name), factors)
        for left_out in rows:
            kept = [part for row in rows if row is not left_out for part in (row.parts or (row.name,))]
            if kept and _tried(plan, ground, name, kept, search)[2].usd is not None:
                return f"this works: --baseline {name} --factors {','.join(kept)}"
    return "explain fewer factors with --factors"
