"""What holds a plan back, and what one more unit of it is worth."""

from __future__ import annotations

from dataclasses import replace

from tokopt.domain.plans import Binding, FleetItem, Marginal
from tokopt.fleet import FleetProblem, FleetSolution, Goal
from tokopt.perf.queueing import LOAD_LIMIT, Limits, capacity
from tokopt.search.candidates import best_cap
from tokopt.units import KW, MS, format_si

from .columns import PricedCandidate
from .found import Found

CLOSE = 0.01  # a limit that less than this share is left of counts as binding


def binding_constraints(
    found: Found, problem: FleetProblem, solution: FleetSolution, items: tuple[FleetItem, ...]
) -> tuple[Binding, ...]:
    """Return the constraints that bind: sizes of the fleet first, then the main item's own limits."""
    return (*_sizes(found, problem, solution), *_latencies(found, items[0]))


def _sizes(found: Found, problem: FleetProblem, solution: FleetSolution) -> list[Binding]:
    request = found.request
    bought = list(zip(problem.columns, solution.blocks, strict=True))
    rows = []
    if problem.power_w is not None:
        used = sum(c.power_w * n for c, n in bought if n)
        left = problem.power_w - used
        aside = found.counting.reserve_w  # of drawn power, kept back once for the chance of more
        block = min(c.power_w for c, n in bought if n)
        if left < block or left < CLOSE * problem.power_w:
            rows.append(
                Binding(
                    constraint="power",
                    detail=f"{format_si(used + aside, 'W', 4)} of {format_si(problem.power_w + aside, 'W', 4)} used; "
                    f"what is left holds no further unit of {format_si(block, 'W', 4)}",
                    slack=left / KW,
                )
            )
    if problem.goal is Goal.COST:
        assert request.demand_requests_per_s is not None
        able = sum(c.requests_per_s[0] * n for c, n in bought)
        rows.append(
            Binding(
                constraint="demand",
                detail=f"{request.demand_requests_per_s:,.4g} req/s asked; the fleet can serve {able:,.4g} req/s",
                slack=able - request.demand_requests_per_s,
            )
        )
    if problem.budget_usd_per_hour is not None:
        left = problem.budget_usd_per_hour - sum(c.usd_per_hour * n for c, n in bought)
        if left < min(c.usd_per_hour for c, n in bought if n):
            rows.append(Binding(constraint="budget", detail=f"${left:,.2f}/h is left", slack=left))
    for offer, units in problem.offer_units.items():
        used_units = sum(c.units_per_block * n for c, n in bought if c.offer == offer)
        if used_units >= units:
            rows.append(Binding(constraint="stock", detail=f"all {units} units of {offer} are used", slack=0.0))
    for accelerator, stock in problem.accelerator_stock.items():
        used_here = sum(c.accelerators_per_block * n for c, n in bought if c.accelerator == accelerator)
        smallest = min((c.accelerators_per_block for c in problem.columns if c.accelerator == accelerator), default=1)
        if stock - used_here < smallest:
            rows.append(Binding(constraint="inventory", detail=f"{used_here} of {stock} {accelerator} used", slack=0.0))
    return rows


def _latencies(found: Found, item: FleetItem) -> list[Binding]:
    """Return the main item's own limits: latency, load and memory."""
    sla, row = found.request.sla, _row_of(found, item)
    name = sla.statistic.value
    rows = []
    for what, limit, latency in (
        ("tpot", sla.tpot_ms, item.tpot_ms),
        ("ttft", sla.ttft_ms, item.ttft_ms),
        ("e2e", sla.e2e_ms, item.e2e_ms),
    ):
        value = getattr(latency, name, None)
        if limit is not None and value is not None and value >= limit * 0.97:
            detail = f"{name} {what.upper()} of {item.accelerator} is {value:,.1f} of {limit:,.1f} ms"
            rows.append(Binding(constraint=f"sla {what}", detail=detail, slack=limit - value))
    gain = _gain_of_a_millisecond(found, row)
    if sla.tpot_ms is not None and gain > 1e-4 and not any(r.constraint == "sla tpot" for r in rows):
        full = float(row.candidate.profile.tpot_s[-1]) / MS
        detail = (
            f"the running cap of {item.concurrency_per_replica} keeps a full replica of {item.accelerator} within "
            f"{sla.tpot_ms:g} ms (mean {full:.1f} ms when full, and the spread of prefills)"
        )
        rows.append(Binding(constraint="sla tpot", detail=detail, slack=sla.tpot_ms - full))
    if item.load >= LOAD_LIMIT * 0.999:
        detail = (
            f"the {_slower_pool(row)} of {item.accelerator} runs at {item.load:.0%} of saturation, the most allowed"
        )
        rows.append(Binding(constraint="load", detail=detail, slack=0.0))
    if item.memory_gib.free < 0.02 * (item.memory_gib.weights + item.memory_gib.kv):
        detail = f"{item.memory_gib.free:.1f} GiB a device are free on {item.accelerator} at the running cap"
        rows.append(Binding(constraint="memory", detail=detail, slack=item.memory_gib.free))
    return rows


def _row_of(found: Found, item: FleetItem) -> PricedCandidate:
    return next(
        row
        for row in found.columns
        if row.candidate.deployment == item.deployment and row.offer.instance_type == item.instance_type
    )


def marginal_values(
    found: Found, problem: FleetProblem, solution: FleetSolution, items: tuple[FleetItem, ...]
) -> tuple[Marginal, ...]:
    """Return what one more MW, ms and unit of each scarce offer is worth, from the linear relaxation's duals."""
    prices = solution.shadow_prices
    rows = []
    filling = problem.goal in (Goal.COST_PER_TOKEN, Goal.THROUGHPUT)
    if problem.goal is Goal.COST_PER_TOKEN and problem.power_w is not None:
        watts = sum(c.power_w * n for c, n in zip(problem.columns, solution.blocks, strict=True) if n)
        rows.append(
            Marginal(
                of="power",
                unit="MW",
                output_tokens_per_s=sum(i.output_tokens_per_s for i in items) / (watts / 1e6),
                usd_per_hour=sum(i.usd_per_hour for i in items) / (watts / 1e6),
                usd_per_million_output_tokens=None,
                note="one more MW filled the same way: output that it adds and what it costs",
            )
        )
    elif prices is not None and problem.power_w is not None and abs(prices.power_per_w) > 0:
        worth = prices.power_per_w * 1e6
        rows.append(
            Marginal(
                of="power",
                unit="MW",
                output_tokens_per_s=worth * 1e6 / 3600.0 if filling else None,
                usd_per_hour=None if filling else worth,
                usd_per_million_output_tokens=None,
                note="output that one more MW adds" if filling else "change of the cost by one more MW",
            )
        )
    if prices is not None and problem.goal is Goal.COST:
        rows.append(
            Marginal(
                of="demand",
                unit="req/s",
                output_tokens_per_s=found.workload.output_tokens,
                usd_per_hour=prices.demand[0],
                usd_per_million_output_tokens=prices.demand[0] / (found.workload.output_tokens * 3600.0 / 1e6),
                note="cost of one more request a second, whole units left aside",
            )
        )
    if prices is not None:
        for offer, worth in prices.offers.items():
            if abs(worth) > 1e-12:
                rows.append(
                    Marginal(
                        of=offer,
                        unit="unit",
                        output_tokens_per_s=worth * 1e6 / 3600.0 if filling else None,
                        usd_per_hour=None if filling else worth,
                        usd_per_million_output_tokens=None,
                        note="one more unit in stock",
                    )
                )
    rows.extend(_latency_worth(found, items[0]))
    return tuple(rows)


def _slower_pool(row: PricedCandidate) -> str:
    profile = row.candidate.profile
    if profile.prefill is None:
        return "replica"
    prompts = profile.prefill.servers * profile.prefill.prompts_per_s
    return "prefill pool" if prompts <= profile.workers * float(profile.requests_per_s[-1]) else "decode pool"


def _gain_of_a_millisecond(found: Found, row: PricedCandidate) -> float:
    """Return the relative gain in capacity from one more millisecond of TPOT, the set-up unchanged but for its cap."""
    sla = found.request.sla
    if sla.tpot_ms is None:
        return 0.0
    limits: Limits = replace(found.space.limits, tpot_s=(sla.tpot_ms + 1.0) * MS)
    looser = best_cap(row.candidate, found.workload, limits)
    if looser is None:
        return 0.0
    return max(capacity(looser, limits) / row.candidate.capacity_requests_per_s - 1.0, 0.0)


def _latency_worth(found: Found, item: FleetItem) -> list[Marginal]:
    """Return what one more millisecond of TPOT is worth on the main item."""
    if found.request.sla.tpot_ms is None:
        return []
    worth = _gain_of_a_millisecond(found, _row_of(found, item))
    price = item.usd_per_hour / (item.output_tokens_per_s * 3600.0 / 1e6)
    return [
        Marginal(
            of="sla tpot",
            unit="ms",
            output_tokens_per_s=worth * item.output_tokens_per_s,
            usd_per_hour=None,
            usd_per_million_output_tokens=-worth / (1.0 + worth) * price,
            note=f"one more ms of TPOT on {item.accelerator}, same layout, higher running cap",
        )
    ]
