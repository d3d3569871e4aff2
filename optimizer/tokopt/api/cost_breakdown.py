"""What a fleet costs, by part: capital, facility, energy and the like where it is owned, rental where it is not."""

from __future__ import annotations

import math

from tokopt.catalog import Catalog
from tokopt.catalog.ownership import is_owned_file
from tokopt.domain.offers import Market
from tokopt.domain.ownership import OwnedHour, OwnershipBreakdown
from tokopt.domain.plans import FleetItem, ItemPart, Plan
from tokopt.domain.reporting import CostBasis, CostBreakdown, CostLine
from tokopt.errors import TokoptError

from .owning import DEFAULT_PROFILE, ownership_cost

RENTAL, PUBLISHED, PREPAYMENT = "rental", "published", "prepayment"
SAME = 1e-6  # relative difference up to which two prices are the same
OWNERSHIP = "ownership-"


def cost_breakdown(plan: Plan, catalog: Catalog) -> CostBreakdown | None:
    """Return what each offer in a fleet costs by part; None where there is no fleet."""
    if not plan.fleet or plan.usd_per_hour is None:
        return None
    known = _breakdowns(plan, catalog)
    lines = tuple(
        _line(place, item, part, known) for place, item in enumerate(plan.fleet, start=1) for part in item.bought
    )
    parts: dict[str, float] = {}
    for line in lines:
        for name, usd in line.parts.items():
            parts[name] = parts.get(name, 0.0) + usd
    reference = _reference(lines, catalog)
    return CostBreakdown(
        lines=lines,
        usd_per_hour=math.fsum(line.usd_per_hour for line in lines),
        parts=parts,
        reference=reference,
        notes=tuple(_notes(plan, lines, reference)),
    )


def _breakdowns(plan: Plan, catalog: Catalog) -> list[OwnershipBreakdown]:
    """Return the hours of every ownership list and owned file that the plan could buy from."""
    found = []
    for name in plan.request.prices:
        stem, _, site = name.partition("@")
        profile = name if is_owned_file(name) else stem.removeprefix(OWNERSHIP)
        if not is_owned_file(name) and profile not in catalog.ownership:
            continue
        try:
            found.append(ownership_cost(profile, site=site or None, catalog=catalog))
        except TokoptError:  # a file that is gone: its machines are shown undivided
            continue
    return found


def _line(place: int, item: FleetItem, part: ItemPart, known: list[OwnershipBreakdown]) -> CostLine:
    each = part.usd_per_unit_hour / part.gpus_per_unit
    basis, shares = CostBasis.RENTAL, {RENTAL: 1.0}
    hour = _hour(part, each, known)
    if hour is not None:
        divided = not set(hour.parts) <= {PUBLISHED, PREPAYMENT}
        rented = hour.market != Market.OWNED.value
        basis = CostBasis.COMPONENTS if divided else CostBasis.RENTAL if rented else CostBasis.PUBLISHED
        shares = hour.parts if basis is not CostBasis.RENTAL else {RENTAL: 1.0}
    elif item.market == Market.OWNED.value:
        basis, shares = CostBasis.PUBLISHED, {PUBLISHED: 1.0}
    whole = math.fsum(shares.values())
    return CostLine(
        item=place,
        accelerator=part.accelerator,
        pool=part.pool,
        provider=item.provider,
        market=item.market,
        region=item.region,
        instance_type=part.instance_type,
        gpus=part.gpus,
        usd_per_gpu_hour=each,
        usd_per_hour=part.usd_per_hour,
        basis=basis,
        parts={name: part.usd_per_hour * usd / whole for name, usd in shares.items() if usd},
    )


def _hour(part: ItemPart, usd_per_gpu_hour: float, known: list[OwnershipBreakdown]) -> OwnedHour | None:
    """Return the hour whose price is what the plan pays."""
    name = part.accelerator.partition("@")[0]
    for breakdown in known:
        for hour in breakdown.hours:
            same = abs(hour.usd_per_accelerator_hour - usd_per_gpu_hour) <= SAME * usd_per_gpu_hour
            if hour.accelerator == name and same:
                return hour
    return None


def _reference(lines: tuple[CostLine, ...], catalog: Catalog) -> OwnershipBreakdown | None:
    """Return the parts of a component profile for accelerators whose price is one published figure."""
    undivided = sorted({line.accelerator.partition("@")[0] for line in lines if line.basis is CostBasis.PUBLISHED})
    profile = catalog.ownership.get(DEFAULT_PROFILE)
    if profile is None:
        return None
    priced = [name for name in undivided if any(lot.accelerator == name for lot in profile.lots)]
    if not priced:
        return None
    try:
        return ownership_cost(DEFAULT_PROFILE, gpus=priced, catalog=catalog)
    except TokoptError:  # a figure that its parts need is not known
        return None


def _notes(plan: Plan, lines: tuple[CostLine, ...], reference: OwnershipBreakdown | None) -> list[str]:
    notes = []
    bases = {line.basis for line in lines}
    if CostBasis.PUBLISHED in bases:
        said = "the price of owning is one published figure an accelerator-hour: what it consists of is not public"
        if reference is not None:
            said += f"; the build-up of the same accelerators is that of {reference.profile} ({reference.title})"
        notes.append(said)
    if CostBasis.RENTAL in bases:
        notes.append("rental is what the provider asks: power, hosting and its margin are in it")
    if CostBasis.COMPONENTS in bases:
        notes.append("parts are in the proportions of one accelerator-hour; unused hours are charged to used ones")
    if plan.request.periods:
        notes.append("costs are means over the horizon")
    return notes
