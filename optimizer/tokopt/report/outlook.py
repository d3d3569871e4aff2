"""What a plan says beyond its fleet: classes of requests, the schedule, changes from today, break-even prices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from tokopt.domain.plans import ClassPlan, ItemPeriod, PeriodPlan, Plan
from tokopt.report.blocks import columns, pairs, section
from tokopt.report.figures import UNKNOWN, milliseconds, number, plural, power, rate, usd

BAR = 20  # characters of the longest bar
MANY = 8  # accelerators whose break-even prices are shown
EIGHTHS = " ▏▎▍▌▋▊▉█"


def outlook_sections(plan: Plan) -> Iterator[RenderableType]:
    """Yield what there is to say of several classes, periods, changes and prices."""
    if plan.classes:
        yield section("What each class gets", _classes(plan.classes))
    if plan.schedule:
        yield section("Over time", _schedule(plan.schedule), *_on_and_off(plan))
    if plan.request.current:
        yield section("Changes from today's fleet", _changes(plan))
    yield from _break_even(plan)


def _classes(classes: Sequence[ClassPlan]) -> RenderableType:
    earning = any(c.earns_usd_per_hour is not None for c in classes)
    rows = []
    for c in classes:
        earned = UNKNOWN if c.earns_usd_per_hour is None else usd(c.earns_usd_per_hour)
        rows.append(
            (
                c.name,
                _served(c),
                rate(c.output_tokens_per_s, "tok/s"),
                f"{c.gpus:,}",
                usd(c.usd_per_hour),
                usd(c.usd_per_million_output_tokens),
                *([earned] if earning else []),
                _against(c.tpot_ms, c.tpot_limit_ms),
                _against(c.ttft_ms, c.ttft_limit_ms),
            )
        )
    statistics = "/".join(dict.fromkeys(c.statistic for c in classes))
    heads = ("class", "req/s", "output", "GPUs", "$/h", "$/M out", *(["earns/h"] if earning else []))
    return columns((*heads, f"TPOT {statistics}", "TTFT, ms"), rows)


def _served(c: ClassPlan) -> str:
    """Return what is served, and of what where that is not all."""
    served, asked = c.served_requests_per_s, c.demand_requests_per_s
    if asked is None or served >= asked * (1.0 - 1e-6):
        return number(served, 4)
    return f"{number(served, 4)} of {number(asked, 4)}"


def _against(value_ms: float, limit_ms: float | None) -> str:
    return milliseconds(value_ms) if limit_ms is None else f"{milliseconds(value_ms)} of {milliseconds(limit_ms)}"


def _schedule(periods: Sequence[PeriodPlan]) -> RenderableType:
    most = max(p.gpus for p in periods) or 1
    rows = [
        (
            p.name,
            f"{number(p.hours, 4)} h",
            number(p.requests_per_s, 4),
            f"{p.gpus:,}",
            usd(p.usd_per_hour),
            UNKNOWN if p.power_kw is None else power(p.power_kw, 3),
            UNKNOWN if p.carbon_kg_per_hour is None else f"{number(p.carbon_kg_per_hour, 3)} kg/h",
            bar(p.gpus / most),
        )
        for p in periods
    ]
    return columns(
        ("period", "length", "req/s", "GPUs", "$/h", "power", "carbon", "GPUs"), rows, left=(0, 7), whole=(7,)
    )


def bar(share: float) -> str:
    """Return a bar of text for a share from 0 to 1, to an eighth of a character."""
    eighths = round(share * BAR * 8)
    return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _on_and_off(plan: Plan) -> Iterator[RenderableType]:
    """Yield what of the fleet changes from period to period."""
    rows = []
    for position, item in enumerate(plan.fleet, start=1):
        counts = [p.units for p in item.by_period]
        if len(set(counts)) > 1:
            units = ", ".join(f"{p.units:,} from {p.period}" for p in _runs(item.by_period))
            rows.append((f"{position}. {item.accelerator}", f"{item.provider} {item.market}: {units}"))
    if rows:
        yield Text("\nUnits that come and go")
        yield pairs(rows)


def _runs(periods: Sequence[ItemPeriod]) -> list[ItemPeriod]:
    """Return the periods at which the number of units is another than before."""
    kept: list[ItemPeriod] = []
    for period in periods:
        if not kept or period.units != kept[-1].units:
            kept.append(period)
    return kept


def _changes(plan: Plan) -> RenderableType:
    if not plan.changes:
        return Text("none: the fleet stays as it is")
    rows = []
    for change in plan.changes:
        step = change.after - change.before
        what = f"{'+' if step > 0 else '-'}{plural(abs(step), 'unit')}"
        where = " ".join(part for part in (change.provider, change.region, change.market) if part)
        rows.append((change.accelerator, where, change.instance_type, f"{change.before:,} → {change.after:,}", what))
    return columns(("accelerator", "offer", "unit", "units", "change"), rows, left=(0, 1, 2))


def _break_even(plan: Plan) -> Iterator[RenderableType]:
    if not plan.break_even:
        return
    known = [b for b in plan.break_even if b.usd_per_gpu_hour is not None]
    close = sorted(known, key=lambda b: b.cheapest_usd_per_gpu_hour / (b.usd_per_gpu_hour or 1.0))[:MANY]
    rows = []
    for b in close:
        price = b.usd_per_gpu_hour or 0.0
        cut = 1.0 - price / b.cheapest_usd_per_gpu_hour
        said = f"{cut:.0%} below {usd(b.cheapest_usd_per_gpu_hour)}" if cut > 0.0 else "at today's price, in parts"
        rows.append((b.accelerator, f"${price:,.3f}", said, "" if b.exact else "whole units left aside"))
    if rows:
        yield section(
            "Price at which others would enter the plan",
            columns(("accelerator", "$/GPU-hour", "that is", ""), rows, left=(0, 2, 3)),
        )
