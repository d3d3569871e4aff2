"""Which watts of a fleet count against a power limit: provisioned, rated, or drawn but for a chance of more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.calibration import Calibration
from tokopt.domain.plans import FleetItem, Objective, PlanRequest, PowerBasis, PowerMode
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.fleet import Column
from tokopt.perf.caching import served
from tokopt.perf.fluctuation import Draw, best_theta, bound_w, idle_w, replica_draw, reserve_w
from tokopt.perf.power import board_watts
from tokopt.search import Candidate
from tokopt.units import KW

from .columns import PricedCandidate, provisioned_w

REFERENCE_CHANCE = 0.01  # θ is chosen for it whatever the chance: a fleet then never shrinks as the chance grows
RESERVES = (*np.geomspace(1e-4, 0.5, 40).tolist(), 0.0)  # shares of a limit that are tried as what is kept back once


def rated_w(accelerator: Accelerator, request: PlanRequest) -> float:
    """Return rated power of one accelerator on a request's basis, not a number where it is not known. [W]

        utility: min(server · PUE, all-in),   it: server

    The planning figure is for everything; where it is lower than the nameplate with the site's losses, it counts.
    """
    if accelerator.server_w is None:
        return math.nan
    if request.power_basis is PowerBasis.IT:
        return accelerator.server_w
    at_utility = accelerator.server_w * request.pue
    return at_utility if accelerator.all_in_w is None else min(at_utility, accelerator.all_in_w)


def counted_w(accelerator: Accelerator, request: PlanRequest) -> float:
    """Return what one accelerator counts in a request's mode: in drawn mode the most that it may count. [W]"""
    if request.power_mode is PowerMode.PROVISIONED:
        return provisioned_w(accelerator, request.power_basis)
    return rated_w(accelerator, request)


def missing_power(accelerator: Accelerator, request: PlanRequest) -> str:
    """Return what the catalog lacks to count an accelerator's power in a request's mode, or nothing."""
    lacks = ""
    if request.power_mode is PowerMode.PROVISIONED and request.power_basis is PowerBasis.UTILITY:
        lacks = "all-in power" if accelerator.all_in_w is None else ""
    elif accelerator.server_w is None:
        lacks = "server power"
    elif request.power_mode is PowerMode.DRAWN:
        lacks = "idle power" if accelerator.idle_w is None else "board power" if accelerator.board_w is None else ""
    if not lacks:
        return ""
    needs = "a power limit" if request.power_mode is PowerMode.PROVISIONED else f"{request.power_mode.value} power"
    return f"the catalog has no {lacks} for it, which {needs} needs"


def model_error(calibration: Calibration) -> float:
    """Return the standard deviation of what the model says of drawn power, over it: the same for a whole fleet.

    From the mean error on held-out rows with power: a normal variable's is √(2/π) of its standard deviation. Where a
    calibration of one's own says nothing of it, the embedded one's.
    """
    errors = _held_out(calibration) or _held_out(load_catalog().calibration)
    if not errors:
        raise InputError("--power-mode drawn: no calibration says how far off drawn power is (power_kw_mape)")
    return max(errors) * math.sqrt(math.pi / 2.0)


def _held_out(calibration: Calibration) -> list[float]:
    """Return the mean errors of drawn power on held-out rows, over what was measured."""
    return [
        float(row["power_kw_mape"]) / 100.0
        for row in calibration.errors
        if "power_kw_mape" in row and row.get("split") != "in-sample"
    ]


def raised_by(chance: float, calibration: Calibration) -> float:
    """Return the factor on drawn power that the model's error exceeds with half of a chance."""
    return 1.0 + NormalDist().inv_cdf(1.0 - 0.5 * chance) * model_error(calibration)


def candidate_draw(candidate: Candidate, workload: Workload, rate: float) -> Draw | None:
    """Return what a replica draws that takes `rate` requests a second; None where the catalog lacks what it needs."""
    family, deployment, prompts = candidate.family, candidate.deployment, candidate.sending
    return replica_draw(
        family.model,
        family.machine,
        deployment,
        served(workload, deployment.caching),
        board_watts(family.accelerator),
        candidate.profile,
        accepted=float(family.accepted[deployment.speculation_depth]),
        rate=rate,
        sending=None if prompts is None else (prompts.machine, board_watts(prompts.accelerator)),
    )


def fleet_draw(row: PricedCandidate, workload: Workload, *, blocks: int, rate: float) -> Draw | None:
    """Return what `blocks` of a column draw that take `rate` requests a second, spare accelerators included."""
    held = [blocks * part.accelerators for part in row.parts]
    return replicas_draw(row.candidate, workload, blocks * row.column.replicas_per_block, rate, held)


def replicas_draw(
    candidate: Candidate, workload: Workload, replicas: int, rate: float, held: Sequence[int]
) -> Draw | None:
    """Return what replicas draw that take `rate` requests a second together, with spare accelerators beside them.

    `held` are the accelerators bought of each kind, of what decodes first; None where the catalog lacks what it needs.
    """
    one = candidate_draw(candidate, workload, rate / replicas)
    if one is None:
        return None
    families, sizes = [candidate.family], [candidate.accelerators]
    prompts, decode = candidate.sending, candidate.deployment.decode
    if prompts is not None and decode is not None:
        families = [candidate.family, prompts]
        sizes = [decode.accelerators, candidate.accelerators - decode.accelerators]
    idling = limit = 0.0
    for family, size, there in zip(families, sizes, held, strict=True):
        spare = there - replicas * size
        idling += spare * idle_w(family.machine, board_watts(family.accelerator))
        limit += spare * (family.accelerator.server_w or 0.0)
    return one.times(replicas, spare_w=idling, spare_limit_w=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How a fleet program counts drawn power: each block by its effective power, and a reserve once."""

    theta: float = math.inf
    reserve_w: float = 0.0  # of the limit, on the request's basis


def count_drawn(
    rows: Sequence[PricedCandidate], request: PlanRequest, catalog: Catalog, workloads: Sequence[Workload]
) -> tuple[list[PricedCandidate], Counting]:
    """Return columns whose watts are a safe linear form of a chance constraint, and the reserve that goes with it.

    With ε the chance and S what all replicas draw together at their capacity, P(S > limit) ≤ ε holds for every fleet
    that keeps Σ n·w ≤ limit - r. Half of ε is for the error of the model, which is common to all replicas: all draws
    are raised by its quantile. The other half is for replicas, which fluctuate independently:

        w = ln E[e^(θX)] / θ  of a block,   r = ln(2/ε) / θ

    by Chernoff's bound (`perf.fluctuation`), whatever the numbers of replicas; and with fewer blocks running, or less
    on them, less is drawn. A block counts at most what it is rated, which it never exceeds. θ is the one that wastes
    least if the cheapest column (or the one that serves most a watt, where throughput is the objective) alone filled
    the limit, chosen at a chance of 1 % whatever ε is: w and r then only fall as ε grows, so that what was feasible
    stays feasible. `workloads` are those of the classes of requests that columns serve, in their order.
    """
    draws: dict[tuple[int, int, int], Draw | None] = {}
    blocks: list[Draw | None] = []
    factor = raised_by(request.exceed, catalog.calibration)
    for row in rows:
        key = id(row.candidate), row.column.replicas_per_block, row.column.accelerators_per_block
        if key not in draws:
            rate = row.column.replicas_per_block * row.candidate.capacity_requests_per_s
            draws[key] = fleet_draw(row, workloads[row.service], blocks=1, rate=rate)
        blocks.append(draws[key])
    scale = request.pue if request.power_basis is PowerBasis.UTILITY else 1.0
    limit_w = math.inf if request.power_kw is None else request.power_kw * KW / scale
    likely = _likely(rows, blocks, request)
    theta = math.inf
    if likely is not None and not math.isinf(limit_w):
        theta = choose_theta(likely.raised(raised_by(REFERENCE_CHANCE, catalog.calibration)), limit_w)
    counted = []
    for row, draw in zip(rows, blocks, strict=True):
        watts = math.nan
        if draw is not None:
            raised = draw.raised(factor)
            drawn_w = raised.mean_w if math.isinf(limit_w) else raised.effective_w(theta)
            watts = min(drawn_w * scale, sum(rated_w(p.accelerator, request) * p.accelerators for p in row.parts))
        counted.append(replace(row, column=_counting(row, watts)))
    return counted, Counting(theta=theta, reserve_w=reserve_w(theta, 0.5 * request.exceed) * scale)


def _counting(row: PricedCandidate, watts: float) -> Column:
    """Return a row's column counting so many watts; parts share them by what they are rated."""
    rated = [part.accelerators * (part.accelerator.server_w or 0.0) for part in row.parts]
    parts = [
        replace(part, power_w=watts * own / (sum(rated) or 1.0))
        for part, own in zip(row.column.parts, rated, strict=False)
    ]
    return replace(row.column, power_w=watts, parts=tuple(parts))


def _likely(rows: Sequence[PricedCandidate], blocks: Sequence[Draw | None], request: PlanRequest) -> Draw | None:
    """Return the draw of the column that a fleet most likely consists of; None if no draw is known."""
    known = [(row.column, draw) for row, draw in zip(rows, blocks, strict=True) if draw is not None]
    if not known:
        return None
    if request.objective is Objective.THROUGHPUT:
        return max(known, key=lambda pair: sum(pair[0].requests_per_s) / pair[1].mean_w)[1]
    return min(known, key=lambda pair: pair[0].usd_per_hour / sum(pair[0].requests_per_s))[1]


def choose_theta(block: Draw, limit_w: float) -> float:
    """Return the θ at which most blocks fit in a limit: infinite, nothing kept back, where few do. [1/W]"""
    best, most = math.inf, 0.0
    for share in RESERVES:
        theta = math.inf if share == 0.0 else -math.log(0.5 * REFERENCE_CHANCE) / (share * limit_w)
        held = (1.0 - share) * limit_w / block.effective_w(theta)
        if held > most:
            best, most = theta, held
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What a fleet draws at most but for a chance, and each item's part of it. [W], at the servers"""

    total_w: float
    parts_w: tuple[float, ...]


def fleet_peak(draws: Sequence[Draw], chance: float, calibration: Calibration, theta: float) -> Peak:
    """Return what items together exceed with at most a chance: Chernoff's bound at the best θ that is found.

    For a fleet that is known every θ is a bound, so the least of them is. The reserve is shared out by how much items
    fluctuate. Nothing exceeds its nameplate.
    """
    raised = [draw.raised(raised_by(chance, calibration)) for draw in draws]
    counted = [(1, draw) for draw in raised]
    half = 0.5 * chance
    best = min((best_theta(counted, half), theta), key=lambda t: bound_w(counted, t, half))
    aside = reserve_w(best, half)
    effective = [draw.effective_w(best) for draw in raised]
    swings = [max(e - draw.mean_w, 0.0) for e, draw in zip(effective, raised, strict=True)]
    by, total = (swings, sum(swings)) if sum(swings) > 0.0 else (effective, sum(effective))
    parts = [e + aside * part / total for e, part in zip(effective, by, strict=True)]
    limits = [draw.limit_w for draw in raised]
    scale = min(1.0, sum(limits) / sum(parts))
    return Peak(total_w=sum(parts) * scale, parts_w=_within([part * scale for part in parts], limits))


def _within(parts: Sequence[float], limits: Sequence[float]) -> tuple[float, ...]:
    """Return parts with the same sum of which none is above its limit: the others take what is, by their room."""
    above = sum(max(part - limit, 0.0) for part, limit in zip(parts, limits, strict=True))
    rooms = [max(limit - part, 0.0) for part, limit in zip(parts, limits, strict=True)]
    if above <= 0.0 or sum(rooms) <= 0.0:
        return tuple(parts)
    filled = min(above / sum(rooms), 1.0)
    return tuple(min(part, limit) + filled * room for part, limit, room in zip(parts, limits, rooms, strict=True))


def with_peaks(
    items: Sequence[FleetItem],
    draws: Sequence[Draw | None],
    request: PlanRequest,
    catalog: Catalog,
    counting: Counting,
) -> tuple[FleetItem, ...]:
    """Return items with their parts of what the fleet draws at most, which also is what counts in drawn mode.

    Of items whose draw is not known nothing is stated, and the others' parts are of what they draw together.
    """
    known = [draw for draw in draws if draw is not None]
    parts = iter(fleet_peak(known, request.exceed, catalog.calibration, counting.theta).parts_w if known else ())
    stated = []
    for item, draw in zip(items, draws, strict=True):
        part_w = None if draw is None else next(parts)
        update: dict[str, float | None] = {"peak_drawn_kw": None if part_w is None else part_w / KW}
        if request.power_mode is PowerMode.DRAWN:
            update["power_kw"] = None if part_w is None else drawn_power_kw(item, part_w, request)
        stated.append(item.model_copy(update=update))
    return tuple(stated)


def drawn_power_kw(item: FleetItem, part_w: float, request: PlanRequest) -> float:
    """Return what an item's part of the drawn power counts on the request's basis. [kW]"""
    if request.power_basis is PowerBasis.IT:
        return part_w / KW
    at_utility = part_w * request.pue / KW
    return at_utility if item.provisioned_kw is None else min(at_utility, item.provisioned_kw)


def said_of_power(request: PlanRequest) -> str:
    """Return which power a limit counts, in words."""
    utility = request.power_basis is PowerBasis.UTILITY
    losses = f" x PUE {request.pue:g}" if utility else ""
    names: Mapping[PowerMode, str] = {
        PowerMode.PROVISIONED: "all-in utility power, provisioned" if utility else "server nameplate",
        PowerMode.RATED: f"server nameplate{losses}, at most the provisioned figure",
        PowerMode.DRAWN: f"power drawn by the servers{losses}, exceeded with a chance of {request.exceed:.3g} at most",
    }
    return names[request.power_mode]
