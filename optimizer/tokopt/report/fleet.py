"""The fleet of a plan: what to buy, how each replica is set up, and what its users see."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from tokopt.domain.estimates import LatencyMs
from tokopt.domain.plans import FleetItem, Plan
from tokopt.domain.workloads import Sla
from tokopt.report.blocks import columns, pairs, section
from tokopt.report.deployments import shape_text
from tokopt.report.figures import UNKNOWN, milliseconds, number, plural, power, rate, share, usd

STATISTICS = ("mean", "p50", "p90", "p99")


def fleet_sections(plan: Plan) -> Iterator[RenderableType]:
    """Yield the shopping list, then one section a fleet item."""
    yield section("What to buy", _shopping_list(plan))
    for number_, item in enumerate(plan.fleet, start=1):
        which = f"{number_}. " if len(plan.fleet) > 1 else ""
        yield section(f"{which}{item.accelerator}: how each replica is set up", _set_up(item), _latency(item, plan.request.sla))


def _shopping_list(plan: Plan) -> RenderableType:
    rows = []
    for item in plan.fleet:
        rows.append(
            (
                item.accelerator,
                _offer(item),
                f"{item.gpus:,}",
                f"{item.units:,} × {item.gpus_per_unit}",
                usd(item.usd_per_hour),
                UNKNOWN if item.power_kw is None else power(item.power_kw, 3),
                rate(item.output_tokens_per_s, "tok/s"),
            )
        )
    return columns(("accelerator", "offer", "GPUs", "units", "$/h", "power", "output"), rows, left=(0, 1))


def _offer(item: FleetItem) -> str:
    words = [item.provider]
    if item.market != item.provider:
        words.append(item.market.replace("_", " "))
    if item.region:
        words.append(item.region)
    if item.instance_type:
        words.append(item.instance_type)
    return ", ".join(words)


def _set_up(item: FleetItem) -> RenderableType:
    each = plural(item.gpus_per_replica, "GPU")
    fit = item.memory_gib
    rows = [
        ("replicas", f"{item.replicas:,}, {each} each: {item.mode.value} {shape_text(item.deployment)}"),
        ("software", f"{item.framework}, weights {item.precision}, KV cache {item.kv_precision}{_extras(item)}"),
        (
            "load",
            f"{share(item.load)} of saturation; {number(item.mean_running_per_replica)} requests in service a replica, "
            f"at most {item.concurrency_per_replica:,} (the running cap to set)",
        ),
        (
            "memory",
            f"each GPU: weights {fit.weights:,.1f} GiB, KV cache {fit.kv:,.1f}, other {fit.other:,.1f}, free {fit.free:,.1f}",
        ),
        ("slowest part", item.bottleneck),
        ("price", f"{usd(item.usd_per_unit_hour)}/h a unit of {item.gpus_per_unit}, {item.price_source} as of {item.price_as_of}"),
    ]
    return pairs(rows)


def _extras(item: FleetItem) -> str:
    features = item.features
    said = []
    if "mtp_depth" in features:
        said.append(f"MTP {features['mtp_depth']} → {float(features['tokens_per_step']):.2f} tokens a step")
    said.append(f"prefill chunks of {item.deployment.chunk_tokens:,} tokens")
    return ", " + ", ".join(said)


def _latency(item: FleetItem, sla: Sla) -> RenderableType:
    limits = (("TPOT ms", item.tpot_ms, sla.tpot_ms), ("TTFT ms", item.ttft_ms, sla.ttft_ms), ("whole ms", item.e2e_ms, sla.e2e_ms))
    rows = []
    for name, latency, limit in limits:
        said = "none" if limit is None else f"{milliseconds(limit)} at {sla.statistic.value}"
        rows.append((name, *latency_cells(latency), said))
    return columns(("", *STATISTICS, "limit"), rows)


def latency_cells(latency: LatencyMs | None) -> tuple[Text, ...]:
    """Return mean and percentiles as cells of a table."""
    if latency is None:
        return tuple(Text("-") for _ in STATISTICS)
    return tuple(Text(milliseconds(getattr(latency, name))) for name in STATISTICS)
