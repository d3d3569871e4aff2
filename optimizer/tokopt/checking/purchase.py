"""Rules on what a fleet item buys: whole units, an offer that exists, and its power."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tokopt.checking.case import TOLERANCE, Case, number, same, within
from tokopt.checking.rates import constants_of
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Offer
from tokopt.domain.plans import FleetItem, PowerBasis, PowerMode, PowerSettings
from tokopt.domain.power_settings import SEPARATOR
from tokopt.units import KW


def counts_possible(case: Case) -> list[str]:
    """Check that replicas, units and accelerators are at least one, and traffic is not negative."""
    item = case.item
    counts = ("replicas", "units", "gpus", "gpus_per_unit", "gpus_per_replica", "nodes", "concurrency_per_replica")
    faults = [f"{name} is {getattr(item, name):,}" for name in counts if getattr(item, name) < 1]
    if not (math.isfinite(item.requests_per_s) and item.requests_per_s >= 0.0):
        faults.append(f"requests_per_s is {number(item.requests_per_s)}")
    if not (math.isfinite(item.capacity_requests_per_s) and item.capacity_requests_per_s > 0.0):
        faults.append(f"capacity_requests_per_s is {number(item.capacity_requests_per_s)}")
    return [case.fault(f"{text}, which cannot be") for text in faults]


def whole_units(case: Case) -> list[str]:
    """Check that units · gpus_per_unit = gpus: what is bought is bought whole."""
    item = case.item
    held = item.units * item.gpus_per_unit
    if held == item.gpus:
        return []
    bought = f"{item.units:,} units of {item.gpus_per_unit:,} hold {held:,} accelerators"
    return [case.fault(f"{bought}, not {item.gpus:,} (units, gpus_per_unit, gpus)")]


def replicas_fit(case: Case) -> list[str]:
    """Check that replicas share units whole, or span whole units where those are at least whole nodes."""
    item, accelerator = case.item, case.accelerator
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
    if case.accelerator is None:
        return []
    each = case.accelerator.accelerators_per_node
    return case.differs("nodes", case.item.nodes, -(-case.item.gpus // each), f"{case.item.gpus:,} of {each} a node")


def hardware_of(name: str) -> str:
    """Return what is bought under the name of an accelerator, whatever power setting the name ends with."""
    return name.split(SEPARATOR)[0]


def matching(item: FleetItem, offers: Iterable[Offer]) -> list[Offer]:
    """Return the offers of the item's provider, region, market, instance type and accelerator, whatever their price."""
    return [
        offer
        for offer in offers
        if (offer.provider, offer.region, offer.market.value, offer.instance_type, offer.accelerator)
        == (item.provider, item.region, item.market, item.instance_type, hardware_of(item.accelerator))
    ]


def offer_exists(case: Case) -> list[str]:
    """Check that an offer in the price lists has the item's place, market, instance type, size and price."""
    item = case.item
    offers = matching(item, case.inputs.offers)
    if not offers:
        what = f"provider {item.provider}, region {item.region}, market {item.market}, instance {item.instance_type}"
        return [case.fault(f"no offer of {what} in the price lists")]
    sizes = sorted({offer.accelerator_count for offer in offers})
    if item.gpus_per_unit not in sizes:
        held = " or ".join(f"{size:,}" for size in sizes)
        return [case.fault(f"gpus_per_unit is {item.gpus_per_unit:,}, but the offer's unit holds {held}")]
    prices = sorted(offer.usd_per_hour for offer in offers if offer.accelerator_count == item.gpus_per_unit)
    if not any(same(item.usd_per_unit_hour, price) for price in prices):
        return case.differs("usd_per_unit_hour", item.usd_per_unit_hour, prices[0], "price of the offer")
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
    faults += _accelerator_refused(item.accelerator, case)
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
        each = item.usd_per_unit_hour + item.carbon_usd_per_unit_hour
        why = f"{item.units:,} units at ${number(each)}/h"
        return case.differs("usd_per_hour", item.usd_per_hour, item.units * each, why)
    hours = sum(period.hours for period in periods)
    mean = sum(p.hours * i.usd_per_hour for p, i in zip(periods, item.by_period, strict=False)) / hours
    return case.differs("usd_per_hour", item.usd_per_hour, mean, "mean over the periods")


def _kw(watts: float | None, accelerators: int) -> float | None:
    return None if watts is None else watts * accelerators / KW


def power_counted(case: Case) -> list[str]:
    """Check that provisioned and rated power are those of all accelerators bought, and `power_kw` what counts. [kW]"""
    item, accelerator, request = case.item, case.accelerator, case.request
    if accelerator is None:
        return []
    provisioned, rated = _kw(accelerator.all_in_w, item.gpus), _kw(accelerator.server_w, item.gpus)
    why = f"of {item.gpus:,} accelerators"
    counted = {
        PowerMode.PROVISIONED: provisioned if request.power_basis is PowerBasis.UTILITY else rated,
        PowerMode.RATED: _at_meter(case, rated, provisioned),
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
    item, accelerator = case.item, case.accelerator
    if accelerator is None:
        return []
    idle, board, server = accelerator.idle_w, accelerator.board_w, accelerator.server_w
    if idle is None or board is None or server is None:
        needs = "the catalog lacks idle, board or server power"
        return [] if item.drawn_kw is None else [case.fault(f"drawn_kw is {number(item.drawn_kw)}, but {needs}")]
    host = _host_share(case, accelerator) * (server - board)
    least, most = (idle + host) * item.gpus / KW, (board + host) * item.gpus / KW
    drawn = item.drawn_kw
    if drawn is None or not (within(least, drawn, TOLERANCE) and within(drawn, most, TOLERANCE)):
        ends = f"between idle boards and boards at their limit: {number(least)} to {number(most)}"
        return [case.fault(f"drawn_kw is {number(drawn)}, but must be {ends}")]
    return _peak_drawn(case, drawn, server * item.gpus / KW)


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
