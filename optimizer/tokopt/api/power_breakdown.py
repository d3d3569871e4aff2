"""A fleet's power taken apart: boards, the rest of servers, other machines, cooling, and what a limit leaves."""

from __future__ import annotations

import math

from tokopt.catalog import Catalog
from tokopt.cost import critical_w
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import OwnershipProfile
from tokopt.domain.plans import FleetItem, Plan, PowerBasis, PowerMode
from tokopt.domain.reporting import PowerBreakdown, PowerPart, PowerPerAccelerator
from tokopt.units import KW

BOARDS = "boards"
SERVERS = "rest of the servers"
WHOLE_SERVERS = "servers"
OTHER_IT = "network, storage and other IT"
SERVERS_AND_IT = "rest of the servers, network and storage"
COOLING = "cooling and distribution"
DRAWN = "drawn by the servers on average"
SWINGS = "kept for what is drawn beyond the average"
UNDIVIDED = "not known by part"
ORDER = (BOARDS, WHOLE_SERVERS, SERVERS, SERVERS_AND_IT, OTHER_IT, DRAWN, SWINGS, UNDIVIDED, COOLING)
# The PUE that all-in power contains where a profile says nothing else.
ALL_IN_PUE = OwnershipProfile(name="", title="", source="", observed_on="").all_in_pue
SAME = 1e-6


def power_breakdown(plan: Plan, catalog: Catalog) -> PowerBreakdown | None:
    """Return the parts of the power that a plan counts; None where that is not known."""
    if plan.power_kw is None or not plan.fleet:
        return None
    sums: dict[str, float] = {}
    for item in plan.fleet:
        for name, kw in _item(item, plan, catalog).items():
            sums[name] = sums.get(name, 0.0) + kw
    total = math.fsum(sums.values())
    notes = _notes(plan, sums)
    if total > 0.0 and abs(total / plan.power_kw - 1.0) > SAME:
        notes.append(
            "items are shown in their fullest periods, which do not coincide: parts are scaled to what the whole fleet "
            "counts at most"
        )
    scale = plan.power_kw / total if total > 0.0 else 1.0
    return PowerBreakdown(
        parts=tuple(PowerPart(name=name, kw=sums[name] * scale) for name in ORDER if sums.get(name, 0.0) > 0.0),
        counted_kw=plan.power_kw,
        limit_kw=plan.power_limit_kw,
        accelerators=_accelerators(plan, catalog),
        notes=tuple(notes),
    )


def _item(item: FleetItem, plan: Plan, catalog: Catalog) -> dict[str, float]:
    """Return what an item counts, by part. [kW]"""
    if item.power_kw is None:
        return {}
    if plan.power_mode is PowerMode.DRAWN:
        return _drawn(item, item.power_kw)
    sums: dict[str, float] = {}
    for part in item.bought:
        accelerator = catalog.accelerator(part.accelerator)
        for name, watts in _per_accelerator(accelerator, plan).items():
            sums[name] = sums.get(name, 0.0) + watts * part.gpus / KW
    return sums


def _drawn(item: FleetItem, counted_kw: float) -> dict[str, float]:
    """Return the parts of drawn power: the mean, what it may go above it, and losses of the site."""
    if item.drawn_kw is None or item.peak_drawn_kw is None:
        return {UNDIVIDED: counted_kw}
    at_servers = min(item.peak_drawn_kw, counted_kw)
    mean = min(item.drawn_kw, at_servers)
    return {DRAWN: mean, SWINGS: at_servers - mean, COOLING: counted_kw - at_servers}


def _per_accelerator(accelerator: Accelerator, plan: Plan) -> dict[str, float]:
    """Return the parts of what one accelerator counts, provisioned or rated; what is not known apart is one. [W]

    boards + rest of the server = nameplate;   critical = max(all-in / PUE, nameplate);   all-in = utility
    """
    board, server, all_in = accelerator.board_w, accelerator.server_w, accelerator.all_in_w
    utility = plan.power_basis is PowerBasis.UTILITY
    if plan.power_mode is PowerMode.RATED and utility:
        at_utility = (server or 0.0) * plan.request.pue
        all_in = at_utility if all_in is None else min(at_utility, all_in)
        parts = _servers(board, server)
        return parts | {COOLING: max(all_in - math.fsum(parts.values()), 0.0)}
    if not utility:
        return _servers(board, server)
    if all_in is None:
        return {}
    critical = min(critical_w(accelerator, ALL_IN_PUE), all_in)
    if server is not None:
        parts = _servers(board, server) | {OTHER_IT: max(critical - server, 0.0)}
    elif board is not None and board <= critical:
        parts = {BOARDS: board, SERVERS_AND_IT: critical - board}
    else:
        parts = {UNDIVIDED: critical}
    return parts | {COOLING: all_in - math.fsum(parts.values())}


def _servers(board: float | None, server: float | None) -> dict[str, float]:
    if server is None:
        return {}
    if board is None or board > server:
        return {WHOLE_SERVERS: server}
    return {BOARDS: board, SERVERS: server - board}


def _accelerators(plan: Plan, catalog: Catalog) -> tuple[PowerPerAccelerator, ...]:
    counts: dict[str, int] = {}
    for item in plan.fleet:
        for part in item.bought:
            counts[part.accelerator] = counts.get(part.accelerator, 0) + part.gpus
    return tuple(
        PowerPerAccelerator(
            accelerator=name, gpus=gpus, board_w=found.board_w, server_w=found.server_w, all_in_w=found.all_in_w
        )
        for name, gpus in counts.items()
        for found in (catalog.accelerator(name),)
    )


def _notes(plan: Plan, sums: dict[str, float]) -> list[str]:
    notes = []
    if plan.power_mode is PowerMode.PROVISIONED and plan.power_basis is PowerBasis.UTILITY:
        notes.append(
            f"all-in planning figures divided: cooling and distribution as at the PUE of {ALL_IN_PUE:g} in them"
        )
    if sums.get(SERVERS_AND_IT) or sums.get(UNDIVIDED):
        notes.append("the nameplate of some servers is not known: what stands behind their boards is one part")
    return notes
