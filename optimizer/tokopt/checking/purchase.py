"""Rules on what a fleet item buys: whole units, an offer that exists, and its power."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tokopt.checking.case import TOLERANCE, Case, number, same, within
from tokopt.checking.parts import pools_fit
from tokopt.checking.rates import constants_of
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Offer
from tokopt.domain.plans import FleetItem, ItemPart, PowerBasis, PowerMode, PowerSettings
from tokopt.domain.power_settings import SEPARATOR
from tokopt.units import KW


def counts_possible(case: Case) -> list[str]:
    """Check that replicas, units and accelerators are at least one, and traffic is not negative."""
    item = case.item
    counts = ("replicas", "units", "gpus", "gpus_per_unit", "gpus_per_replica", "nodes", "concurrency_per_replica")
    faults = [f"{name} is {getattr(item, name):,}" for name in counts if getattr(item, name) < 1]
    for part in item.parts:
        own = [name for name in ("units", "gpus", "gpus_per_unit", "nodes") if getattr(part, name) < 1]
        faults += [f"{name} of {part.accelerator} is {getattr(part, name):,}" for name in own]
    if not (math.isfinite(item.requests_per_s) and item.requests_per_s >= 0.0):
        faults.append(f"requests_per_s is {number(item.requests_per_s)}")
    if not (math.isfinite(item.capacity_requests_per_s) and item.capacity_requests_per_s > 0.0):
        faults.append(f"capacity_requests_per_s is {number(item.capacity_requests_per_s)}")
    return [case.fault(f"{text}, which cannot be") for text in faults]


def whole_units(case: Case) -> list[str]:
    """Check that units · gpus_per_unit = gpus of every offer: what is bought is bought whole."""
    faults = []
    for part in case.item.bought:
        held = part.units * part.gpus_per_unit
        if held != part.gpus:
            bought = f"{part.units:,} units of {part.gpus_per_unit:,} hold {held:,} accelerators"
            faults.append(case.fault(f"{bought}, not {part.gpus:,} (units, gpus_per_unit, gpus)"))
    return faults


def replicas_fit(case: Case) -> list[str]:
    """Check that replicas share units whole, or span whole units where those are at least whole nodes."""
    item, accelerator = case.item, case.accelerator
    if item.deployment.mixed or item.parts:
        return pools_fit(case)
    size, unit = item.gpus_per_replica, item.gpus_per_unit
    faults = []
    if size <= unit:
        most = item.units * (unit // size)
        if item.replicas > most:
            held = f"{item.units:,} units of {unit:,} hold {most:,} replicas of {size:,}"
            faults.append(f"{held}, not {item.replicas:,} (replicas, units)")
    else:
        least = item.replicas * -(-size // unit)
        if item.units < least:
            faults.append(
                f"{item.replicas:,} replicas of {size:,} need {least:,} units of {unit:,}, not {item.units:,}"
            )
        if accelerator is not None and unit < accelerator.accelerators_per_node:
            node = f"a node has {accelerator.accelerators_per_node}"
            faults.append(f"gpus_per_replica is {size:,}, but instances of {unit:,} cannot be joined ({node})")
    return [case.fault(text) for text in faults]


def nodes_counted(case: Case) -> list[str]:
    """Check that nodes = accelerators / accelerators a node, rounded up."""
    faults = []
    for part in case.item.bought:
        accelerator = case.inputs.accelerators.get(part.accelerator)
        if accelerator is not None:
            each = accelerator.accelerators_per_node
            faults += case.differs("nodes", part.nodes, -(-part.gpus // each), f"{part.gpus:,} of {each} a node")
    return faults


def hardware_of(name: str) -> str:
    """Return what is bought under the name of an accelerator, whatever power setting the name ends with."""
    return name.split(SEPARATOR)[0]


def matching(item: FleetItem, part: ItemPart, offers: Iterable[Offer]) -> list[Offer]:
    """Return the offers of an item's place and market and a part's instance type and accelerator, at any price."""
    wanted = (item.provider, item.region, item.market, part.instance_type, hardware_of(part.accelerator))
    return [
        offer
        for offer in offers
        if (offer.provider, offer.region, offer.market.value, offer.instance_type, offer.accelerator) == wanted
    ]


def offer_exists(case: Case) -> list[str]:
    """Check that offers in the price lists have the item's place and market, and each part's type, size and price."""
    return [fault for part in case.item.bought for fault in _offer_of(case, part)]


def _offer_of(case: Case, part: ItemPart) -> list[str]:
    item = case.item
    offers = matching(item, part, case.inputs.offers)
    if not offers:
        what = f"provider {item.provider}, region {item.region}, market {item.market}, instance {part.instance_type}"
        return [case.fault(f"no offer of {what} in the price lists")]
    sizes = sorted({offer.accelerator_count for offer in offers})
    if part.gpus_per_unit not in sizes:
        held = " or ".join(f"{size:,}" for size in sizes)
        return [case.fault(f"gpus_per_unit is {part.gpus_per_unit:,}, but the offer's unit holds {held}")]
    prices = sorted(offer.usd_per_hour for offer in offers if offer.accelerator_count == part.gpus_per_unit)
    if not any(same(part.usd_per_unit_hour, price) for price in prices):
        return case.differs("usd_per_unit_hour", part.usd_per_unit_hour, prices[0], "price of the offer")
    return []


def offer_allowed(case: Case) -> list[str]:
    """Check that the request allows the item's region, market and accelerator."""
    item, request = case.item, case.request
    faults = [
        f"{what} {name} is not among those that the request allows: {', '.join(allowed)}"
        for what, name, allowed in (
            ("region", item.region, request.regions),
            ("market", item.market, request.markets),
        )
        if allowed and name not in allowed
    ]
    for part in item.bought:
        faults += _accelerator_refused(part.accelerator, case)
    return [case.fault(text) for text in faults]


def _accelerator_refused(name: str, case: Case) -> list[str]:
    """Return why the request does not allow an accelerator, or the power setting that it is in."""
    request, hardware = case.request, hardware_of(name)
    for excluded in (name, hardware):
        if excluded in request.excluded_accelerators:
            return [f"accelerator {excluded} is excluded by the request"]
    if name in request.accelerators:
        return []
    listed = case.inputs.accelerators.get(hardware)
    settings = {f"{hardware}{SEPARATOR}{s.name}" for s in listed.power_settings} if listed is not None else set()
    if name in settings and request.power_settings is PowerSettings.ALL:
        name = hardware
    elif name != hardware:
        return [f"accelerator {name} is a power setting that the request does not allow"]
    if request.accelerators and name not in request.accelerators:
        return [f"accelerator {name} is not among those that the request allows: {', '.join(request.accelerators)}"]
    return []


def units_paid(case: Case) -> list[str]:
    """Check that usd_per_hour = units · usd_per_unit_hour; with periods, that it is the mean of theirs."""
    item, periods = case.item, case.request.periods
    if not periods:
        paid = sum(part.units * (part.usd_per_unit_hour + part.carbon_usd_per_unit_hour) for part in item.bought)
        each = (
            f"{p.units:,} units at ${number(p.usd_per_unit_hour + p.carbon_usd_per_unit_hour)}/h" for p in item.bought
        )
        return case.differs("usd_per_hour", item.usd_per_hour, paid, " and ".join(each))
    hours = sum(period.hours for period in periods)
    mean = sum(p.hours * i.usd_per_hour for p, i in zip(periods, item.by_period, strict=False)) / hours
    return case.differs("usd_per_hour", item.usd_per_hour, mean, "mean over the periods")


def _kw(watts: float | None, accelerators: int) -> float | None:
    return None if watts is None else watts * accelerators / KW


def power_counted(case: Case) -> list[str]:
    """Check that provisioned and rated power are those of all accelerators bought, and `power_kw` what counts. [kW]"""
    item, request = case.item, case.request
    counts = _accelerators_bought(case)
    if counts is None:
        return []
    provisioned = _sum_kw([_kw(accelerator.all_in_w, gpus) for accelerator, gpus in counts])
    rated = _sum_kw([_kw(accelerator.server_w, gpus) for accelerator, gpus in counts])
    at_meter = _sum_kw([_at_meter(case, _kw(a.server_w, gpus), _kw(a.all_in_w, gpus)) for a, gpus in counts])
    why = f"of {item.gpus:,} accelerators"
    counted = {
        PowerMode.PROVISIONED: provisioned if request.power_basis is PowerBasis.UTILITY else rated,
        PowerMode.RATED: at_meter,
        PowerMode.DRAWN: _at_meter(case, item.peak_drawn_kw, provisioned),
    }[request.power_mode]
    faults = [
        *case.differs("provisioned_kw", item.provisioned_kw, provisioned, f"utility power {why}"),
        *case.differs("rated_kw", item.rated_kw, rated, f"server nameplate {why}"),
        *case.differs(
            "power_kw", item.power_kw, counted, f"{request.power_mode.value} {request.power_basis.value} power {why}"
        ),
    ]
    if request.power_kw is not None and item.power_kw is None:
        faults.append(case.fault("power_kw is not known, which a power limit needs"))
    return faults


def _sum_kw(values: Sequence[float | None]) -> float | None:
    """Return a sum, not known as soon as one part is not. [kW]"""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _accelerators_bought(case: Case) -> list[tuple[Accelerator, int]] | None:
    """Return the accelerators of all parts and how many there are; None where the catalog lacks one."""
    found = [(case.inputs.accelerators.get(part.accelerator), part.gpus) for part in case.item.bought]
    known = [(accelerator, gpus) for accelerator, gpus in found if accelerator is not None]
    return known if len(known) == len(found) else None


def _at_meter(case: Case, servers_kw: float | None, provisioned_kw: float | None) -> float | None:
    """Return power of servers on the request's basis: times PUE at the utility, at most the planning figure."""
    if servers_kw is None or case.request.power_basis is PowerBasis.IT:
        return servers_kw
    at_utility = servers_kw * case.request.pue
    return at_utility if provisioned_kw is None else min(at_utility, provisioned_kw)


def power_drawn(case: Case) -> list[str]:
    """Check that drawn power is known where idle, board and server power are, and lies between both ends. [kW]

    The ends are idle boards and boards at their limit, with the calibrated share of what a server has beyond them.
    """
    item, counts = case.item, _accelerators_bought(case)
    if counts is None:
        return []
    least = most = nameplate = 0.0
    for accelerator, gpus in counts:
        idle, board, server = accelerator.idle_w, accelerator.board_w, accelerator.server_w
        if idle is None or board is None or server is None:
            needs = "the catalog lacks idle, board or server power"
            return [] if item.drawn_kw is None else [case.fault(f"drawn_kw is {number(item.drawn_kw)}, but {needs}")]
        host = _host_share(case, accelerator) * (server - board)
        least += (idle + host) * gpus / KW
        most += (board + host) * gpus / KW
        nameplate += server * gpus / KW
    drawn = item.drawn_kw
    if drawn is None or not (within(least, drawn, TOLERANCE) and within(drawn, most, TOLERANCE)):
        ends = f"between idle boards and boards at their limit: {number(least)} to {number(most)}"
        return [case.fault(f"drawn_kw is {number(drawn)}, but must be {ends}")]
    return _peak_drawn(case, drawn, nameplate)


def _peak_drawn(case: Case, mean_kw: float, rated_kw: float) -> list[str]:
    """Check that what is drawn but for a chance is no less than the mean and no more than the nameplate. [kW]"""
    peak = case.item.peak_drawn_kw
    if peak is None:
        needed = case.request.power_mode is PowerMode.DRAWN
        return [case.fault("peak_drawn_kw is not known, which drawn power needs")] if needed else []
    if within(mean_kw, peak, TOLERANCE) and within(peak, rated_kw, TOLERANCE):
        return []
    ends = f"between the mean and the nameplate: {number(mean_kw)} to {number(rated_kw)}"
    return [case.fault(f"peak_drawn_kw is {number(peak)}, but must be {ends}")]


def _host_share(case: Case, accelerator: Accelerator) -> float:
    """Return the share of its nameplate beyond boards that a server draws: the base value where names are unknown."""
    item, inputs = case.item, case.inputs
    framework, precision = inputs.frameworks.get(item.framework), inputs.precisions.get(item.precision)
    if framework is None or precision is None:
        return inputs.calibration.entries["host_power_share"].value
    return constants_of(inputs.calibration, accelerator, framework, precision, case.llm.name).host_power_share
