"""One deployment under a load: does it fit, how fast, how much, what limits it, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.estimates import Estimate, LatencyMs, MemoryGib, OperatorDatabase, PowerKw
from tokopt.report.blocks import QUIET, bullets, columns, pairs, section
from tokopt.report.deployments import letters_used, machines_text, shape_text
from tokopt.report.figures import UNKNOWN, number, plural, power, rate, share, spread
from tokopt.report.fleet import STATISTICS, latency_cells

BAR_WIDTH = 44
MARKS = ("█", "▓", "▒", "░")


def estimate_report(estimate: Estimate) -> RenderableType:
    """Return the report of an estimate."""
    parts: list[RenderableType] = [_verdict(estimate), *_throughput(estimate)]
    if estimate.second_opinion is not None:
        parts.append(section("Second opinion: step times measured kernel by kernel", _opinion(estimate)))
    if estimate.pools:
        parts.append(section("Each pool on its own accelerators", _pools(estimate)))
    elif estimate.memory_gib is not None:
        parts.append(section("Memory of the fullest GPU", _memory(estimate.memory_gib)))
    if estimate.bottleneck_shares:
        parts.append(section("Where the time of a step goes", _shares(estimate.bottleneck_shares)))
    if estimate.power_kw is not None:
        parts.append(section("Power of the whole replica", _power(estimate.power_kw)))
    parts.append(section("Assumptions", bullets(_assumptions(estimate))))
    parts.append(section("Where the numbers come from", _provenance(estimate)))
    return Group(*parts)


def _verdict(estimate: Estimate) -> RenderableType:
    deployment = estimate.deployment
    what = f"{deployment.llm} on {machines_text(deployment, estimate.accelerators)}"
    verdict, style = ("fits", "bold green")
    if not estimate.fits:
        verdict, style = ("does not fit", "bold red")
    elif estimate.overloaded:
        verdict, style = ("overloaded", "bold red")
    lines = [Text.assemble((f"{what}: {verdict}", style), f" at {estimate.load}")]
    if estimate.reason:
        lines.append(Text(estimate.reason.removeprefix(f"{verdict}: ")))
    setup = [
        ("layout", shape_text(deployment)),
        ("software", f"{deployment.framework}, weights {deployment.precision}, KV cache {deployment.kv_precision}"),
        (
            "workload",
            f"{estimate.workload}: {estimate.input_tokens:,.0f} tokens in, {estimate.output_tokens:,.0f} out "
            "on average",
        ),
    ]
    return Group(*lines, Text(""), pairs(setup))


def _throughput(estimate: Estimate) -> Iterator[RenderableType]:
    ranges = estimate.interval
    latencies = (("TTFT, ms", estimate.ttft_ms), ("TPOT, ms", estimate.tpot_ms), ("E2E, ms", estimate.e2e_ms))
    if any(latency is not None for _, latency in latencies):
        rows: list[tuple[RenderableType, ...]] = []
        for name, latency in latencies:
            known = ranges.get(name.split(",")[0].lower() + "_ms")
            rows.append((name, *latency_cells(latency), spread(known) if known else ""))
        yield section("Latency", columns(("", *STATISTICS, "80 % range of the mean"), rows))
    figures: list[tuple[str, str, str]] = []
    for label, field, unit in (
        ("each user", "tokens_per_s_per_user", "tok/s"),
        ("output per GPU", "output_tokens_per_s_per_gpu", "tok/s"),
        ("input and output per GPU", "total_tokens_per_s_per_gpu", "tok/s"),
        ("whole replica", "requests_per_s", "req/s"),
        ("saturates at", "saturation_requests_per_s", "req/s"),
    ):
        value = getattr(estimate, field)
        if value is not None:
            known = ranges.get(field)
            figures.append((label, rate(value, unit), spread(known, unit) if known else ""))
    if estimate.running_batch is not None:
        cap = "" if estimate.running_cap is None else f" of at most {estimate.running_cap:,}"
        figures.append(("running requests", f"{number(estimate.running_batch)}{cap}", ""))
    if figures:
        yield section("Throughput", columns(("", "", "80 % range"), figures, left=(0, 2)))


def _opinion(estimate: Estimate) -> RenderableType:
    """Return the figures of both sources of step times side by side, or why the second has none."""
    other = estimate.second_opinion
    assert other is not None
    lines = [Text(other.reason)] if other.reason else []
    rows = []
    for label, field in (
        ("TTFT, mean, ms", "ttft_ms"),
        ("TPOT, mean, ms", "tpot_ms"),
        ("E2E, mean, ms", "e2e_ms"),
        ("output per GPU, tok/s", "output_tokens_per_s_per_gpu"),
        ("saturates at, req/s", "saturation_requests_per_s"),
    ):
        values = [getattr(answer, field) for answer in (estimate, other)]
        means = [value.mean if isinstance(value, LatencyMs) else value for value in values]
        if means[1] is not None:
            off = other.difference_percent.get(field)
            said = UNKNOWN if off is None else f"{off:+.0f} %"
            rows.append((label, *(UNKNOWN if mean is None else number(mean) for mean in means), said))
    table = [columns(("", "model", other.source, "difference"), rows)] if rows else []
    used = [] if other.operator_database is None else [Text(_database(other.operator_database), style=QUIET)]
    return Group(*lines, *table, *used)


def _database(used: OperatorDatabase) -> str:
    return f"{used.package}: {used.system}, {used.backend} {used.version}, mode {used.mode}, model {used.checkpoint}"


def _memory(memory: MemoryGib) -> RenderableType:
    parts = {"weights": memory.weights, "KV cache": memory.kv, "other": memory.other, "free": max(memory.free, 0.0)}
    total = sum(parts.values())
    filled = _widths(list(parts.values()))
    bar = "".join(mark * width for mark, width in zip(MARKS, filled, strict=True))
    legend = "   ".join(f"{mark} {name} {gib:,.1f}" for mark, (name, gib) in zip(MARKS, parts.items(), strict=True))
    lines = [Text(f"{bar}  {total:,.1f} GiB"), Text(legend)]
    if memory.free < 0:
        lines.append(Text(f"{-memory.free:,.1f} GiB more than there is", style="bold red"))
    return Group(*lines)


def _pools(estimate: Estimate) -> RenderableType:
    rows = []
    for pool in estimate.pools:
        fit = pool.memory_gib
        drawn = UNKNOWN if pool.power_kw.drawn is None else power(pool.power_kw.drawn, 4)
        memory = f"weights {fit.weights:,.1f}, KV cache {fit.kv:,.1f}, other {fit.other:,.1f}, free {fit.free:,.1f}"
        load = UNKNOWN if pool.load is None else share(pool.load)
        most = UNKNOWN if pool.saturation_requests_per_s is None else rate(pool.saturation_requests_per_s, "req/s")
        rows.append((f"{pool.pool}: {pool.accelerators} × {pool.accelerator}", load, most, drawn, memory))
    return columns(("pool", "load", "saturates at", "drawn", "fullest GPU, GiB"), rows, left=(0, 4))


def _widths(values: list[float]) -> list[int]:
    """Return whole widths of a bar's parts that add up to its width: largest remainders get what is left."""
    total = sum(values) or 1.0
    exact = [value / total * BAR_WIDTH for value in values]
    widths = [int(width) for width in exact]
    by_remainder = sorted(range(len(values)), key=lambda n: widths[n] - exact[n])
    for n in by_remainder[: BAR_WIDTH - sum(widths)]:
        widths[n] += 1
    return widths


def _shares(shares: Mapping[str, float]) -> RenderableType:
    rows = [
        (name, "█" * max(round(part * BAR_WIDTH), 1), share(part))
        for name, part in sorted(shares.items(), key=lambda pair: -pair[1])
        if part >= 5e-4
    ]
    return columns(("", "", ""), rows, left=(0, 1))


def _power(kw: PowerKw) -> RenderableType:
    figures = (
        ("drawn", kw.drawn, "from the wall at this load"),
        ("rated", kw.rated, "nameplate of the servers"),
        ("provisioned", kw.provisioned, "utility power, all in"),
    )
    rows = [(name, UNKNOWN if value is None else power(value, 4), meaning) for name, value, meaning in figures]
    return columns(("", "", ""), rows, left=(0, 2))


def _assumptions(estimate: Estimate) -> list[str]:
    lines = list(estimate.assumptions)
    if estimate.extrapolated:
        lines.append("predictions rest on constants that were not fitted to measurements of this set-up")
    lines.append(f"in layouts: {letters_used([estimate.deployment])}")
    lines.append(
        "TTFT = time to first token, TPOT = time per output token after it, E2E = the whole request; "
        "p99 = 99 % of requests do better"
    )
    return lines


def _provenance(estimate: Estimate) -> RenderableType:
    made = estimate.provenance
    rows = [
        ("tokopt", f"{made.tokopt_version}, catalog {made.catalog_version}"),
        ("calibration", f"{made.calibration} (weakest constant: {made.constants_origin})"),
        *(
            (plural(len(names), "constant"), f"{origin}: {', '.join(names)}")
            for origin, names in _grouped(made.constants)
        ),
        *(
            (plural(len(names), "fact"), f"{source}: {', '.join(names)}")
            for source, names in _grouped(made.accelerator_sources)
        ),
        ("model", made.llm_source),
        *([] if made.operator_database is None else [("step times", _database(made.operator_database))]),
    ]
    return pairs(rows)


def _grouped(values: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return names by what they share, the largest group first."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value.removesuffix(": "), []).append(name.replace("_", " "))
    return sorted(groups.items(), key=lambda pair: -len(pair[1]))
