"""The fleet of a plan: what to buy, how each replica is set up, and what its users see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from tokopt.domain.caching import Caching, Offload
from tokopt.domain.deployments import Deployment
from tokopt.domain.estimates import LatencyMs
from tokopt.domain.plans import FleetItem, ItemPart, Plan
from tokopt.domain.workloads import Sla
from tokopt.report.blocks import columns, pairs, section
from tokopt.report.deployments import accelerators_text, shape_text
from tokopt.report.figures import UNKNOWN, milliseconds, number, plural, power, rate, share, usd

STATISTICS = ("mean", "p50", "p90", "p99")


def fleet_sections(plan: Plan) -> Iterator[RenderableType]:
    """Yield the shopping list, then one section for each way in which replicas are set up and loaded."""
    yield section("What to buy", _shopping_list(plan))
    groups: dict[tuple[Deployment, str, str], list[int]] = {}
    for position, item in enumerate(plan.fleet):
        groups.setdefault((item.deployment, share(item.load), _serves(item)), []).append(position)
    for positions in groups.values():
        items = [plan.fleet[n] for n in positions]
        which = f"{', '.join(str(n + 1) for n in positions)}. " if len(plan.fleet) > 1 else ""
        yield section(
            f"{which}{accelerators_text(items[0].deployment)}{_for_class(plan, items[0])}: how each replica is set up",
            _set_up(items),
            _latency(items[0], _sla(plan, items[0])),
        )


def _serves(item: FleetItem) -> str:
    return item.of_class


def _for_class(plan: Plan, item: FleetItem) -> str:
    return f" for {_serves(item)} ({item.model})" if plan.request.classes else ""


def _sla(plan: Plan, item: FleetItem) -> Sla:
    asked = plan.request.class_named(_serves(item))
    return plan.request.sla if asked is None else asked.sla


def _units(part: ItemPart) -> str:
    """Return what is bought whole, and the nodes in it where that is something else: `66 × 72 (1,188 nodes)`."""
    whole = f"{part.units:,} × {part.gpus_per_unit}"
    nodes = f"{part.nodes:,} {'node' if part.nodes == 1 else 'nodes'}"
    return f"{nodes} of {part.gpus_per_unit}" if part.nodes == part.units else f"{whole} ({nodes})"


def _shopping_list(plan: Plan) -> RenderableType:
    several = len(plan.fleet) > 1
    classes = bool(plan.request.classes)
    rows: list[tuple[str, ...]] = []
    for position, item in enumerate(plan.fleet, start=1):
        for place, part in enumerate(item.bought):
            pool = f" ({part.pool})" if part.pool else ""
            # What both parts do together is said once.
            whole = (
                UNKNOWN if item.power_kw is None else power(item.power_kw, 3),
                rate(item.output_tokens_per_s, "tok/s"),
            )
            rows.append(
                (
                    f"{position}. {part.accelerator}{pool}" if several else f"{part.accelerator}{pool}",
                    *([_serves(item)] if classes else []),
                    _offer(item, part),
                    f"{part.gpus:,}",
                    _units(part),
                    usd(part.usd_per_hour),
                    *(whole if place == 0 else ("", "")),
                )
            )
    heads = ("accelerator", *(["serves"] if classes else []), "offer", "GPUs", "units", "$/h", "power", "output")
    return columns(heads, rows, left=(0, 1, 2) if classes else (0, 1))


def _offer(item: FleetItem, part: ItemPart) -> str:
    words = [item.provider]
    if item.market != item.provider:
        words.append(item.market.replace("_", " "))
    if item.region:
        words.append(item.region)
    if part.instance_type:
        words.append(part.instance_type)
    words.append(_dated(part))
    return ", ".join(words)


def _dated(part: ItemPart) -> str:
    return f"as of {part.price_as_of}" if part.price_as_of else "not dated"


def _priced(item: FleetItem, part: ItemPart) -> str:
    return f"{part.gpus_per_unit:,} {part.accelerator}" if item.parts else plural(part.gpus_per_unit, "GPU")


def _set_up(items: Sequence[FleetItem]) -> RenderableType:
    item = items[0]
    replicas = sum(i.replicas for i in items)
    prices = dict.fromkeys(
        f"{usd(part.usd_per_unit_hour)}/h for {_priced(i, part)} ({part.price_source}, "
        f"{_dated(part)}){''.join(f'; doubtful: {flag}' for flag in part.price_flags)}"
        for i in items
        for part in i.bought
    )
    each = plural(item.gpus_per_replica, "GPU")
    fit = item.memory_gib
    rows = [
        ("replicas", f"{replicas:,}, {each} each: {shape_text(item.deployment)}"),
        ("software", f"{item.framework}, weights {item.precision}, KV cache {item.kv_precision}{_extras(item)}"),
        ("quality", _quality(item)),
        *([("prefix caches", _caches(item.deployment.caching))] if item.deployment.caching else []),
        (
            "load",
            f"{share(item.load)} of saturation; {number(item.mean_running_per_replica)} requests in service a replica, "
            f"at most {item.concurrency_per_replica:,} (the running cap to set)",
        ),
        (
            "memory",
            f"each GPU: weights {fit.weights:,.1f} GiB, KV cache {fit.kv:,.1f}, other {fit.other:,.1f}, "
            f"free {fit.free:,.1f}",
        ),
        ("slowest part", item.bottleneck),
        *([("all-to-alls", f"the interconnect {item.all_to_all.answer}")] if item.all_to_all else []),
        ("price" if len(prices) == 1 else "prices", "\n".join(prices)),
    ]
    return pairs(rows)


def _caches(caching: Caching) -> str:
    said = f"{caching.hit_share:.1%} of prompt tokens found, routed {caching.router.value.replace('_', ' ')}"
    if caching.offload is Offload.NONE:
        return f"{said}; all in GPU memory"
    behind = caching.hit_share - caching.device_share
    where = {Offload.HOST: "host memory", Offload.SSD: "SSD"}[caching.offload]
    return f"{said}; {behind:.1%} from {where}, fetched in {milliseconds(caching.restore_ms)} ms a request"


def _quality(item: FleetItem) -> str:
    if item.quality_loss is None:
        return "loss against the published checkpoint unknown: no scores are published"
    if item.quality_loss == 0.0:
        return "no published loss against the published checkpoint"
    return f"loses {item.quality_loss:.2%} of the published checkpoint's scores, as published"


def _extras(item: FleetItem) -> str:
    features = item.features
    said = []
    if "mtp_depth" in features:
        said.append(f"MTP {features['mtp_depth']} → {float(features['tokens_per_step']):.2f} tokens a step")
    elif "speculator" in features:
        drafted = f"{features['speculator']} {features['speculation_depth']}"
        said.append(f"{drafted} → {float(features['tokens_per_step']):.2f} tokens a step")
    said.append(f"prefill chunks of {item.deployment.chunk_tokens:,} tokens")
    return ", " + ", ".join(said)


def _latency(item: FleetItem, sla: Sla) -> RenderableType:
    limits = (
        ("TPOT, ms", item.tpot_ms, sla.tpot_ms),
        ("TTFT, ms", item.ttft_ms, sla.ttft_ms),
        ("E2E, ms", item.e2e_ms, sla.e2e_ms),
    )
    rows: list[tuple[RenderableType, ...]] = []
    for name, latency, limit in limits:
        said = "none" if limit is None else f"{milliseconds(limit)} at {sla.statistic.value}"
        rows.append((name, *latency_cells(latency), said))
    return columns(("", *STATISTICS, "limit"), rows)


def latency_cells(latency: LatencyMs | None) -> tuple[Text, ...]:
    """Return mean and percentiles as cells of a table."""
    if latency is None:
        return tuple(Text("-") for _ in STATISTICS)
    return tuple(Text(milliseconds(getattr(latency, name))) for name in STATISTICS)
