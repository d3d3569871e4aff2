"""A simulation as a report: whether limits hold, what requests meet, what is short, what went on over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.simulations import Arrivals, SimulatedClass, SimulatedItem, SimulatedMs, Simulation, Verdict
from tokopt.report.blocks import bullets, columns, pairs, section
from tokopt.report.figures import UNKNOWN, milliseconds, number, plural, power, rate, share, usd
from tokopt.report.simulation_timeline import timeline

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
METRICS = {
    "ttft": ("TTFT", "time to first token"),
    "tpot": ("TPOT", "time per output token after the first"),
    "itl": ("ITL", "time between two outputs of a request"),
    "e2e": ("E2E", "the whole request"),
}
WORDS = {  # the worst first
    Verdict.MISSED: ("Misses", "bold red"),
    Verdict.UNSURE: ("Cannot tell whether it holds", "bold yellow"),
    Verdict.KEPT: ("Holds", "bold green"),
}
NAMED = 3  # limits in the sentence on top
MANY_CLASSES = 6  # beyond, the table of classes stands for all
LEAST_WAIT = 0.001  # of the whole time of a request: a wait that is named
SLIGHT = 0.005  # relative differences and requests below it are none


def simulation_report(found: Simulation, *, columns_wide: int) -> RenderableType:
    """Return the whole report."""
    parts: list[RenderableType] = [_answer(found)]
    if found.warnings:
        parts.append(section("To be known", bullets(found.warnings)))
    parts += [Text(""), pairs(_headline(found))]
    parts += _latencies(found)
    if len(found.classes) > 1:
        parts.append(section("What each class meets", _classes(found)))
    parts.append(section("What would be short first", *_shortage(found)))
    if len(found.items) > 1:
        parts.append(section("What each item does", _items(found.items)))
    parts += timeline(found, columns_wide=columns_wide)
    parts += [section("Assumptions", bullets(_assumed(found))), _provenance(found)]
    return Group(*parts)


# --- the answer in a sentence ---


def _answer(found: Simulation) -> RenderableType:
    if found.overloaded:
        opening = f"Overloaded{_at_load(found)}"
        return Text.assemble((opening, "bold red"), f": {found.reason}; {_keeping_up(found)}{_overloaded(found)}")
    judged = [(each, name, verdict) for each in found.classes for name, verdict in each.verdicts.items()]
    if not judged:
        return Text.assemble(("No limits", "bold"), f": {number(found.requests_per_s)} req/s answered")
    worst = next(verdict for verdict in WORDS if any(said is verdict for *_, said in judged))
    opening, style = WORDS[worst]
    those = sorted(((each, name) for each, name, said in judged if said is worst), key=lambda pair: -_used(*pair))
    text = Text.assemble((f"{opening} {'its limit' if len(those) == 1 else 'its limits'}{_at_load(found)}", style))
    said = "; ".join(_against(found, *pair) for pair in those[:NAMED])
    text.append(f": {said}{f'; and {len(those) - NAMED} more' if len(those) > NAMED else ''}")
    if worst is Verdict.UNSURE:
        text.append("; more --replications or --requests narrow the intervals")
    return text


def _at_load(found: Simulation) -> str:
    settings = found.settings
    if settings.arrivals is Arrivals.CLOSED_LOOP:
        return f" with {plural(settings.concurrency or 0, 'request')} in flight"
    if settings.arrivals is Arrivals.TRACE:
        return " under the trace" if settings.load == 1.0 else f" at {share(settings.load)} of the trace"
    return "" if settings.load == 1.0 else f" at {share(settings.load)} of the planned load"


def _keeping_up(found: Simulation) -> str:
    came = found.series.arrivals_per_s
    coming = sum(came) / max(len(came), 1)
    return f"{number(coming)} req/s come and {number(found.requests_per_s)} are answered"


def _overloaded(found: Simulation) -> str:
    """Return which items are overloaded, where others are not."""
    numbered = enumerate(found.items, start=1)
    those = [f"{n} ({item.accelerator}, {', '.join(item.classes)})" for n, item in numbered if item.overloaded]
    if len(those) == len(found.items):
        return ""
    if len(those) > NAMED:
        return f"; {len(those):,} of {len(found.items):,} items are overloaded"
    return f"; overloaded: item {', '.join(those)}"


def _used(of: SimulatedClass, name: str) -> float:
    value = _figure(of, name)
    return 0.0 if value is None else value / of.limits_ms[name]


def _figure(of: SimulatedClass, name: str) -> float | None:
    latency: SimulatedMs | None = getattr(of, f"{name}_ms")
    return None if latency is None else getattr(latency, of.statistic, None)


def _against(found: Simulation, of: SimulatedClass, name: str) -> str:
    """Return a latency against its limit: `chat p99 TPOT 41.2 ± 0.3 ms of 50`."""
    whose = f"{of.name} " if len(found.classes) > 1 else ""
    return f"{whose}{of.statistic} {METRICS[name][0]} {_sure(of, name)} of {of.limits_ms[name]:,.5g}"


def _sure(of: SimulatedClass, name: str) -> str:
    value = _figure(of, name)
    if value is None:
        within = of.within.get(name)
        return UNKNOWN if within is None else f"kept by {share(within)} of requests,"
    latency: SimulatedMs = getattr(of, f"{name}_ms")
    half = latency.plus_minus.get(of.statistic)
    return f"{milliseconds(value)}{'' if half is None else f' ± {_half(value, half)}'} ms"


def _half(value: float, half: float) -> str:
    """Return half of an interval with the decimals of its figure, and one more where it would be none."""
    decimals = 1 if abs(value) < 100 else 0
    said = f"{half:,.{decimals}f}"
    return said if half == 0.0 or float(said.replace(",", "")) else f"{half:,.{decimals + 1}f}"


# --- figures of the whole fleet ---


def _headline(found: Simulation) -> Iterator[tuple[str, RenderableType]]:
    yield "requests", Text(_requests(found))
    if found.goodput is not None:
        yield "goodput", Text(f"{_goodput(found.goodput)} of requests within their limits{_by_limit(found)}")
    yield "output", Text(rate(found.output_tokens_per_s, "tok/s"))
    yield "cost", Text(_cost(found))
    yield "power", Text(_power(found))
    waiting = f"{number(found.mean_queued)} of them waiting" if found.mean_queued >= SLIGHT else "hardly any waiting"
    yield "in the system", Text(f"{number(found.mean_in_system)} requests on average, {waiting}")
    yield "KV cache", Text(_cache(found))
    if len(found.items) == 1:
        yield "replicas", Text(_replicas(found.items[0]))
    if found.retried:
        yield "failures", Text(f"{plural(found.retried, 'request')} started anew on another replica")


def _requests(found: Simulation) -> str:
    planned, load = f"{number(found.planned_requests_per_s, 4)} planned", found.settings.load
    if load != 1.0 and found.settings.arrivals is not Arrivals.TRACE:
        planned = f"{share(load)} of {planned}"
    rejected = f"; {plural(found.rejected, 'request')} rejected" if found.rejected else ""
    return f"{number(found.requests_per_s, 4)} req/s answered, {planned}{rejected}"


def _goodput(value: float) -> str:
    """Return a share that is not said to be all where it is not: 99.97 %."""
    if value == 1.0:
        return "100 %"
    return f"{min(value * 100.0, 99.99):.2f} %"


def _by_limit(found: Simulation) -> str:
    if len(found.classes) > 1 or found.goodput == 1.0 or len(found.classes[0].within) < 2:
        return ""
    parts = [f"{METRICS[name][0]} {_goodput(value)}" for name, value in found.classes[0].within.items()]
    return f" ({', '.join(parts)})"


def _cost(found: Simulation) -> str:
    said = f"{usd(found.usd_per_hour)}/h"
    per, within = found.usd_per_million_output_tokens, found.usd_per_million_output_tokens_within_sla
    if per is not None:
        said += f", {usd(per)} per M output tokens"
        said += f", {usd(within)} within the limits" if within is not None else ", none of them within the limits"
    return said


def _power(found: Simulation) -> str:
    if found.drawn_power_kw is None:
        return UNKNOWN
    planned = found.planned_drawn_power_kw
    return f"{power(found.drawn_power_kw)} drawn by the servers" + (
        "" if planned is None else f", {power(planned)} planned"
    )


def _cache(found: Simulation) -> str:
    said = f"{share(found.cache_used)} held by requests"
    if found.preemptions:
        said += f", {plural(found.preemptions, 'request')} sent back for lack of room"
    if found.prefix_hit_share or found.planned_prefix_hit_share:
        said += f"; {found.prefix_hit_share:.1%} of prompt tokens found"
        if found.planned_prefix_hit_share is not None:
            said += f", {found.planned_prefix_hit_share:.1%} planned"
    return said


def _replicas(item: SimulatedItem) -> str:
    said = f"{_of_them(item)}; {share(item.utilisation)} of the time steps run, "
    said += f"{number(item.running)} of {item.slots:,} slots taken"
    if item.prefill_utilisation is not None:
        said += f", prefill pool busy {share(item.prefill_utilisation)} of the time"
    return said


def _of_them(item: SimulatedItem) -> str:
    """Return how many replicas there are, run, and are simulated."""
    said = f"{item.replicas:,}"
    if abs(item.running_replicas - item.replicas) > SLIGHT * item.replicas:
        said += f", {number(item.running_replicas)} of them running on average"
    return said if item.simulated_replicas == item.replicas else f"{said} ({item.simulated_replicas:,} simulated)"


# --- latencies ---


def _latencies(found: Simulation) -> Iterator[RenderableType]:
    several = len(found.classes) > 1
    if found.overloaded:
        full = [each.name for each in found.classes if each.e2e_ms is None]
        whose = f" of {', '.join(full)}" if several and len(full) < len(found.classes) else ""
        grow = "not stated: under a lasting overload they have no bounds, and depend on how long it lasts"
        yield section(f"Latencies{whose}", Text(grow))
    for each in found.classes[:MANY_CLASSES]:
        if any(getattr(each, f"{name}_ms") is not None for name in METRICS):
            whose = f" of {each.name}" if several else ""
            yield section(f"Latencies{whose}, ms", _latency_table(each))
    left = len(found.classes) - MANY_CLASSES
    if left > 0:
        yield section("Latencies of others", Text(f"of {plural(left, 'more class')} are in the JSON"))


def _latency_table(of: SimulatedClass) -> RenderableType:
    rows: list[tuple[RenderableType, ...]] = []
    for name, (letters, _) in METRICS.items():
        latency: SimulatedMs | None = getattr(of, f"{name}_ms")
        if latency is None:
            continue
        limit = of.limits_ms.get(name)
        said = "" if limit is None else f"{milliseconds(limit)} at {of.statistic}"
        rows.append((letters, *(_cell(latency, of, name, each) for each in STATISTICS), said))
        if latency.plus_minus:
            halves = [(getattr(latency, each), latency.plus_minus.get(each)) for each in STATISTICS]
            rows.append(("  ±", *("-" if half is None else _half(value, half) for value, half in halves), ""))
        planned = of.planned.get(name)
        if planned is not None:
            figures = [getattr(planned, each, None) for each in STATISTICS]
            rows.append(("  planned", *("-" if each is None else milliseconds(each) for each in figures), ""))
    return columns(("", *STATISTICS, "limit"), rows)


def _cell(latency: SimulatedMs, of: SimulatedClass, name: str, statistic: str) -> Text:
    style = ""
    if statistic == of.statistic and of.verdicts.get(name) is Verdict.MISSED:
        style = "bold red"
    return Text(milliseconds(getattr(latency, statistic)), style=style)


def _classes(found: Simulation) -> RenderableType:
    rows: list[tuple[RenderableType, ...]] = []
    for each in found.classes:
        goodput = UNKNOWN if each.goodput is None else _goodput(each.goodput)
        limits = [_short_against(each, name) for name in ("tpot", "ttft", "e2e")]
        rejected = f" + {each.rejected:,} rejected" if each.rejected else ""
        rows.append((each.name, number(each.requests_per_s, 4), f"{each.completed:,}{rejected}", goodput, *limits))
    heads = ["class", "req/s", "measured", "goodput", "TPOT, ms", "TTFT, ms", "E2E, ms"]
    used = [n for n in range(len(heads)) if n < 4 or any(row[n] for row in rows)]
    return columns([heads[n] for n in used], [[row[n] for n in used] for row in rows])


def _short_against(of: SimulatedClass, name: str) -> Text:
    if name not in of.limits_ms:
        return Text("")
    value, verdict = _figure(of, name), of.verdicts.get(name)
    style = {Verdict.MISSED: "bold red", Verdict.UNSURE: "yellow"}.get(verdict or Verdict.KEPT, "")
    said = "-" if value is None else milliseconds(value)
    return Text(f"{said} of {milliseconds(of.limits_ms[name])} {of.statistic}", style=style)


# --- what holds it back ---


def _shortage(found: Simulation) -> Iterator[RenderableType]:
    yield Text(found.bottleneck_detail)
    lines = []
    for each in found.classes:
        whole = None if each.e2e_ms is None else each.e2e_ms.mean
        whose = f"{each.name}: " if len(found.classes) > 1 else ""
        lines += [
            f"{whose}{what} {number(ms)} ms ({share(ms / whole)} of the whole request)"
            for what, ms in each.waits_ms.items()
            if whole and ms / whole >= LEAST_WAIT
        ]
    if lines:
        yield Text("requests wait, on average:")
        yield bullets(lines)


def _items(items: Sequence[SimulatedItem]) -> RenderableType:
    pools = any(item.prefill_utilisation is not None for item in items)
    rows: list[tuple[RenderableType, ...]] = []
    for place, item in enumerate(items, start=1):
        pool = "" if item.prefill_utilisation is None else share(item.prefill_utilisation)
        rows.append(
            (
                f"{place}. {item.accelerator}",
                ", ".join(item.classes),
                item.provider,
                _of_them(item),
                number(item.requests_per_s),
                Text(share(item.utilisation), style="bold red" if item.overloaded else ""),
                *([pool] if pools else []),
                f"{number(item.running)} of {item.slots:,}",
                UNKNOWN if item.drawn_kw is None else power(item.drawn_kw, 3),
            )
        )
    heads = ("", "serves", "offer", "replicas", "req/s", "busy", *(["prefill"] if pools else []), "slots", "power")
    return columns(heads, rows, left=(0, 1, 2))


# --- the small print ---


def _assumed(found: Simulation) -> list[str]:
    letters = ", ".join(f"{letters} = {words}" for letters, words in METRICS.values())
    return [
        *found.assumptions,
        f"{letters}; p99 = 99 % of requests do better; ± = half of the 95 % confidence interval from replications",
    ]


def _provenance(found: Simulation) -> RenderableType:
    made, settings = found.provenance, found.settings
    what = f"{plural(found.replications, 'replication')} of {found.measured_s:,.0f} s after {found.warm_up_s:,.0f} s "
    rows = [
        ("simulated", f"{what}of warm-up; {found.completed:,} requests measured; seed {settings.seed}"),
        ("plan", f"{found.plan}, made with tokopt {made.plan_version}"),
        ("tokopt", f"{made.tokopt_version}, catalog {made.catalog_version}, calibration {made.calibration}"),
    ]
    if settings.trace is not None:
        rows.append(("trace", f"{settings.trace} ({made.trace_format})"))
    return section("Where the numbers come from", pairs((name, Text(said)) for name, said in rows))
