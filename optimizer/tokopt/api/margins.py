"""What holds a plan back, and what one more unit of it is worth."""

from __future__ import annotations

from dataclasses import replace

from tokopt.domain.plans import Binding, FleetItem, Marginal
from tokopt.fleet import Binding as FleetBinding
from tokopt.fleet import FleetProblem, FleetSolution, Goal, ShadowPrices
from tokopt.perf.queueing import LOAD_LIMIT, Limits, capacity
from tokopt.search.candidates import best_cap
from tokopt.units import KW, MS, format_si

from .bought import MEETING_DEMAND
from .columns import PricedCandidate
from .found import Found

CLOSE = 0.01  # a limit that less than this share is left of counts as binding
LEAST_GAIN = 1e-9  # relative; less is rounding
SAID_APART = ("power", "demand", "budget", "stock", "inventory")  # by `_sizes_now`, in more words


def binding_constraints(
    found: Found, problem: FleetProblem, solution: FleetSolution, items: tuple[FleetItem, ...], gain: float
) -> tuple[Binding, ...]:
    """Return the constraints that bind: sizes of the fleet first, then the main item's own limits.

    `gain` is the main item's `gain_of_a_millisecond`.
    """
    return (*_sizes(found, problem, solution), *_latencies(found, items[0], gain))


def _sizes(found: Found, problem: FleetProblem, solution: FleetSolution) -> list[Binding]:
    """Return the limits on sizes that leave no room for one more unit, in words."""
    if not found.request.periods:
        return [
            *_sizes_now(found, problem, solution),
            *(_in_words(found, b) for b in solution.binding if _plain(b.name) not in SAID_APART),
        ]
    return [_in_words(found, b) for b in solution.binding]


def _in_words(found: Found, binding: FleetBinding) -> Binding:
    kind = _plain(binding.name)
    which = binding.name.partition("[")[2].removesuffix("]")
    said = f" of {which}" if which else ""
    if kind in ("demand", "spot"):  # of a class, which the fleet program knows by its number
        said = f" req/s of {found.classes[int(which)].name}"
    when = f" in {binding.period}" if binding.period else ""
    if kind == "power":
        used, limit = format_si(binding.used, "W", 4), format_si(binding.limit, "W", 4)
    else:
        used, limit = f"{binding.used:,.6g}", f"{binding.limit:,.6g}"
    detail = f"{used} of {limit}{said}{when}"
    return Binding(constraint=kind, detail=detail, slack=binding.slack / KW if kind == "power" else binding.slack)


def _plain(name: str) -> str:
    """Return a constraint's kind: `offer[...]` is stock, `stock[...]` an inventory."""
    kind = name.partition("[")[0]
    return {"offer": "stock", "stock": "inventory"}.get(kind, kind)


def _sizes_now(found: Found, problem: FleetProblem, solution: FleetSolution) -> list[Binding]:
    bought = list(zip(problem.columns, solution.blocks, strict=True))
    names = [asked.name for asked in found.classes]
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
    for k, wanted in enumerate(problem.demand if problem.goal in MEETING_DEMAND else ()):
        able = sum(c.requests_per_s[k] * n for c, n in bought)
        which = f" of {names[k]}" if len(names) > 1 else ""
        rows.append(
            Binding(
                constraint="demand",
                detail=f"{wanted:,.4g} req/s{which} asked; the fleet can serve {able:,.4g} req/s",
                slack=able - wanted,
            )
        )
    if problem.budget_usd_per_hour is not None:
        left = problem.budget_usd_per_hour - sum(c.usd_per_hour * n for c, n in bought)
        if left < min(c.usd_per_hour for c, n in bought if n):
            rows.append(Binding(constraint="budget", detail=f"${left:,.2f}/h is left", slack=left))
    for offer, units in problem.offer_units.items():
        used_units = sum(c.units_of(offer) * n for c, n in bought if n)
        if used_units >= units:
            rows.append(Binding(constraint="stock", detail=f"all {units} units of {offer} are used", slack=0.0))
    for accelerator, stock in problem.accelerator_stock.items():
        used_here = sum(c.accelerators_of(accelerator) * n for c, n in bought if n)
        smallest = min((each for c in problem.columns if (each := c.accelerators_of(accelerator))), default=1)
        if stock - used_here < smallest:
            rows.append(Binding(constraint="inventory", detail=f"{used_here} of {stock} {accelerator} used", slack=0.0))
    return rows


def _latencies(found: Found, item: FleetItem, gain: float) -> list[Binding]:
    """Return the main item's own limits: latency, load and memory."""
    row = found.row_of(item)
    sla = found.classes[row.service].sla
    name = sla.statistic.value
    rows = []
    for what, limit, latency in (
        ("tpot", sla.tpot_ms, item.tpot_ms),
        ("ttft", sla.ttft_ms, item.ttft_ms),
        ("e2e", sla.e2e_ms, item.e2e_ms),
    ):
        value = getattr(latency, name, None)
        if limit is not None and value is not None and value >= limit * 0.97:
            detail = f"{name} {what.upper()} of {_where(item)} is {value:,.1f} of {limit:,.1f} ms"
            rows.append(Binding(constraint=f"sla {what}", detail=detail, slack=limit - value))
    if sla.tpot_ms is not None and gain > 1e-4 and not any(r.constraint == "sla tpot" for r in rows):
        full = float(row.candidate.profile.tpot_s[-1]) / MS
        detail = (
            f"the running cap of {item.concurrency_per_replica} keeps a full replica of {_where(item)} within "
            f"{sla.tpot_ms:g} ms (mean {full:.1f} ms when full, and the spread of prefills)"
        )
        rows.append(Binding(constraint="sla tpot", detail=detail, slack=sla.tpot_ms - full))
    if item.load >= LOAD_LIMIT * 0.999:
        detail = f"the {_slower_pool(row)} of {_where(item)} runs at {item.load:.0%} of saturation, the most allowed"
        rows.append(Binding(constraint="load", detail=detail, slack=0.0))
    if item.memory_gib.free < 0.02 * (item.memory_gib.weights + item.memory_gib.kv):
        detail = f"{item.memory_gib.free:.1f} GiB a device are free on {item.accelerator} at the running cap"
        rows.append(Binding(constraint="memory", detail=detail, slack=item.memory_gib.free))
    return rows


def _where(item: FleetItem) -> str:
    """Return an item's accelerators: what prefills first, where that is another one."""
    return " + ".join(dict.fromkeys((item.deployment.prefill_accelerator, item.accelerator)))


def marginal_values(
    found: Found, problem: FleetProblem, solution: FleetSolution, items: tuple[FleetItem, ...], gain: float
) -> tuple[Marginal, ...]:
    """Return what one more MW, ms and unit of each scarce offer is worth, from the linear relaxation's duals.

    `gain` is the main item's `gain_of_a_millisecond`.
    """
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
        rows += _worth_of_demand(found, problem, prices)
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
    rows.extend(_latency_worth(found, items[0], gain))
    return tuple(rows)


def _worth_of_demand(found: Found, problem: FleetProblem, prices: ShadowPrices) -> list[Marginal]:
    rows = []
    for asked, tokens, worth in zip(found.classes, problem.tokens_per_request, prices.demand, strict=True):
        rows.append(
            Marginal(
                of=f"demand of {asked.name}" if found.request.classes else "demand",
                unit="req/s",
                output_tokens_per_s=tokens,
                usd_per_hour=worth,
                usd_per_million_output_tokens=worth / (tokens * 3600.0 / 1e6),
                note="cost of one more request a second, whole units left aside",
            )
        )
    return rows


def _slower_pool(row: PricedCandidate) -> str:
    profile = row.candidate.profile
    if profile.prefill is None:
        return "replica"
    prompts = profile.prefill.servers * profile.prefill.prompts_per_s
    return "prefill pool" if prompts <= profile.workers * float(profile.requests_per_s[-1]) else "decode pool"


def gain_of_a_millisecond(found: Found, item: FleetItem) -> float:
    """Return the relative gain in capacity from one more millisecond of TPOT, the set-up unchanged but for its cap."""
    row = found.row_of(item)
    sla, service = found.classes[row.service].sla, found.services[row.service]
    if sla.tpot_ms is None:
        return 0.0
    limits: Limits = replace(service.space.limits, tpot_s=(sla.tpot_ms + 1.0) * MS)
    looser = best_cap(row.candidate, service.workload, limits)
    if looser is None:
        return 0.0
    gain = capacity(looser, limits) / row.candidate.capacity_requests_per_s - 1.0
    return gain if gain > LEAST_GAIN else 0.0


def _latency_worth(found: Found, item: FleetItem, worth: float) -> list[Marginal]:
    """Return what one more millisecond of TPOT is worth on the main item."""
    row = found.row_of(item)
    if found.classes[row.service].sla.tpot_ms is None:
        return []
    price = item.usd_per_hour / (item.output_tokens_per_s * 3600.0 / 1e6)
    return [
        Marginal(
            of="sla tpot",
            unit="ms",
            output_tokens_per_s=worth * item.output_tokens_per_s,
            usd_per_hour=None,
            usd_per_million_output_tokens=-worth / (1.0 + worth) * price,
            note=f"one more ms of TPOT on {_where(item)}, same layout, higher running cap",
        )
    ]
