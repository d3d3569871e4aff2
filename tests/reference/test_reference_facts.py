"""Published facts and the design's own numbers, from catalog data and from whole plans."""

from __future__ import annotations

import json
import math
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.cost import pflops_per_usd, tokens_per_s_per_mw, usd_per_million_tokens
from tokopt.domain.accelerators import NumberFormat
from tokopt.domain.comparisons import Basis, Economics
from tokopt.domain.plans import Plan, Status

TEN_MW = 10e6


def agrees(computed: float, published: str) -> bool:
    """Whether a computed figure rounds, or cuts, to the digits of a published one (`54K` has two, `4.20` three)."""
    exponents = {"K": 3, "M": 6}
    stated = Decimal(published.rstrip("KM").replace(",", "")).scaleb(exponents.get(published[-1], 0))
    step = Decimal(1).scaleb(int(Decimal(published.rstrip("KM").replace(",", "")).as_tuple().exponent))
    step = step.scaleb(exponents.get(published[-1], 0))
    if "." not in published and published[-1].isdigit():  # trailing zeros of a whole number are not digits
        while stated % (step * 10) == 0:
            step *= 10
    return any((Decimal(computed) / step).quantize(Decimal(1), mode) * step == stated for mode in MODES)


MODES = (ROUND_HALF_UP, ROUND_DOWN)


def agrees_as_ratio(computed: float, published: int) -> bool:
    """Whether a ratio rounds, or cuts, to a published one: ratios above ten are given to the nearest five."""
    step = 5 if published > 10 else 1
    return any((Decimal(computed) / step).quantize(Decimal(1), mode) * step == published for mode in MODES)


@pytest.mark.parametrize(
    ("computed", "published", "same"),
    [
        (53930.6, "54K", True),
        (4.198, "4.20", True),
        (4.18, "4.20", False),
        (2.807, "2.8", True),
        (93.3, "90", True),
        (101.0, "90", False),
        (5.656, "5.6", True),
        (5.72, "5.6", False),
        (2857143.0, "2.8M", True),
        (0.1228, "0.12", True),
    ],
)
def test_how_figures_are_compared(computed: float, published: str, same: bool) -> None:
    assert agrees(computed, published) is same


# Ten megawatts --------------------------------------------------------------------------------------------------------


def test_ten_megawatts_hold_this_many_by_arithmetic(catalog: Catalog) -> None:
    h200, rack = catalog.accelerator("h200_sxm"), catalog.accelerator("gb200_nvl72")
    assert h200.all_in_w is not None and rack.all_in_w is not None
    assert math.floor(TEN_MW / h200.all_in_w) == 5780
    assert math.floor(TEN_MW / (h200.all_in_w * h200.accelerators_per_node)) * h200.accelerators_per_node == 5776
    assert rack.scale_up_size == 72
    assert math.floor(TEN_MW / (rack.all_in_w * 72)) == 66


@pytest.mark.parametrize(
    ("gpu", "accelerators", "units"), [("h200_sxm", 5776, 722), ("gb200_nvl72", 66 * 72, 66)], ids=lambda v: str(v)
)
def test_a_plan_for_ten_megawatts_holds_as_many(catalog: Catalog, gpu: str, accelerators: int, units: int) -> None:
    plan = tokopt.plan(catalog=catalog, power="10MW", gpus=gpu)
    each_w = catalog.accelerator(gpu).all_in_w
    assert each_w is not None
    assert plan.status is Status.OPTIMAL and plan.gap == 0.0
    bought = sum(item.gpus for item in plan.fleet)
    replica = max(item.gpus_per_replica for item in plan.fleet)
    unit = accelerators // units
    # The best replica may span several nodes: then up to one replica less one node stays empty.
    assert accelerators - max(replica - unit, 0) <= bought <= accelerators
    assert bought % unit == 0
    assert plan.power_kw == pytest.approx(bought * each_w / 1e3)
    most = tokopt.plan(catalog=catalog, power="10MW", gpus=gpu, objective="throughput")
    assert bought <= sum(item.gpus for item in most.fleet) <= accelerators


@pytest.mark.parametrize(("gpu", "accelerators"), [("h200_sxm", 5776), ("gb200_nvl72", 66 * 72)])
def test_a_small_model_fills_every_node_of_ten_megawatts(catalog: Catalog, gpu: str, accelerators: int) -> None:
    """Replicas within one node or rack leave none empty."""
    plan = tokopt.plan(catalog=catalog, power="10MW", gpus=gpu, model="qwen3-8b", workload="chat", modes="agg")
    assert sum(item.gpus for item in plan.fleet) == accelerators


# The economics table --------------------------------------------------------------------------------------------------

TABLE = {
    "h200_sxm": ("1.41", "2.8", "90", "54K", "4.20"),
    "gb300_nvl72": ("2.65", "5.6", "6,000", "2.8M", "0.12"),
}
RATIOS = (2, 2, 65, 50, 35)
FIGURES = (
    "usd_per_gpu_hour",
    "pflops_per_usd",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_mw",
    "usd_per_million_tokens",
)
PEAK = {"h200_sxm": ("sparse_flop_per_s", NumberFormat.FP8), "gb300_nvl72": ("dense_flop_per_s", NumberFormat.FP4)}
THROUGHPUT = {"h200_sxm": 93.3, "gb300_nvl72": 6000.0}  # tokens/s of one; 93.3 unrounded (design §6)


def computed(catalog: Catalog, name: str) -> tuple[float, ...]:
    """Return the five figures from catalog data and nothing else."""
    accelerator = catalog.accelerator(name)
    price = catalog.ownership_profile("hyperscaler").usd_per_accelerator_hour[name]
    table, number = PEAK[name]
    assert accelerator.all_in_w is not None
    rate = THROUGHPUT[name]
    return (
        price,
        float(pflops_per_usd(getattr(accelerator, table)[number], price)),
        rate,
        float(tokens_per_s_per_mw(rate, accelerator.all_in_w)),
        float(usd_per_million_tokens(price, rate)),
    )


@pytest.fixture(scope="module")
def economics(catalog: Catalog) -> Economics:
    return tokopt.economics(catalog=catalog)


@pytest.mark.parametrize("name", list(TABLE))
def test_the_published_table_follows_from_the_catalog(catalog: Catalog, name: str) -> None:
    for figure, ours, published in zip(FIGURES, computed(catalog, name), TABLE[name], strict=True):
        assert agrees(ours, published), (figure, ours, published)


def test_the_published_ratios_follow_from_the_catalog(catalog: Catalog) -> None:
    old, new = (computed(catalog, name) for name in TABLE)
    ratios = [n / o for o, n in zip(old, new, strict=True)]
    ratios[-1] = 1.0 / ratios[-1]
    for figure, ours, published in zip(FIGURES, ratios, RATIOS, strict=True):
        assert agrees_as_ratio(ours, published), (figure, ours, published)


def test_economics_prints_the_published_table(catalog: Catalog, economics: Economics) -> None:
    rows = {row.accelerator: row for row in economics.rows if row.basis is Basis.PUBLISHED}
    assert list(rows) == list(TABLE)
    for name, row in rows.items():
        assert [getattr(row, f) for f in FIGURES] == pytest.approx(computed(catalog, name))
        for figure, published in zip(FIGURES, TABLE[name], strict=True):
            assert agrees(getattr(row, figure), published)
            assert agrees(row.published[figure], published)
    published = economics.ratios["published"]
    for figure, ratio in zip(FIGURES, RATIOS, strict=True):
        assert economics.published_ratios[figure] == ratio
        assert agrees_as_ratio(published[figure], ratio)


def test_economics_shows_how_far_the_model_is_from_the_published_point(economics: Economics) -> None:
    published = {row.accelerator: row for row in economics.rows if row.basis is Basis.PUBLISHED}
    modelled = [row for row in economics.rows if row.basis is Basis.MODEL]
    assert [row.accelerator for row in modelled] == list(TABLE)
    for row in modelled:
        assert row.deployment is not None and row.deployment.accelerator == row.accelerator
        assert set(row.difference) == {"tokens_per_s_per_gpu", "tokens_per_s_per_mw", "usd_per_million_tokens"}
        for figure, difference in row.difference.items():
            other = getattr(published[row.accelerator], figure)
            assert difference == pytest.approx(getattr(row, figure) / other - 1.0)
        assert row.usd_per_gpu_hour == published[row.accelerator].usd_per_gpu_hour
        again = usd_per_million_tokens(row.usd_per_gpu_hour, row.tokens_per_s_per_gpu)
        assert row.usd_per_million_tokens == pytest.approx(again)


# The default plan -----------------------------------------------------------------------------------------------------

PLAN_FIELDS = (
    "status",
    "gap",
    "usd_per_million_output_tokens",
    "usd_per_million_total_tokens",
    "usd_per_hour",
    "output_tokens_per_s",
    "total_tokens_per_s",
    "power_kw",
    "power_limit_kw",
    "tokens_per_s_per_mw",
    "fleet",
    "binding",
    "marginal",
    "runner_up",
    "interval",
    "assumptions",
    "provenance",
)
ITEM_FIELDS = (
    "accelerator",
    "provider",
    "region",
    "market",
    "instance_type",
    "model",
    "precision",
    "framework",
    "mode",
    "tp",
    "pp",
    "ep",
    "dp",
    "prefill",
    "decode",
    "features",
    "concurrency_per_replica",
    "replicas",
    "gpus",
    "nodes",
    "usd_per_hour",
    "power_kw",
    "output_tokens_per_s",
    "share_of_traffic",
    "ttft_ms",
    "tpot_ms",
)


@pytest.fixture(scope="module")
def default(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, power="10MW", sla="50ms")


def test_the_default_plan_has_the_fields_that_other_tools_rely_on(default: Plan) -> None:
    document = json.loads(default.model_dump_json())
    assert [name for name in PLAN_FIELDS if name not in document] == []
    assert document["fleet"]
    for item in document["fleet"]:
        assert [name for name in ITEM_FIELDS if name not in item] == []
        for latency in ("ttft_ms", "tpot_ms"):
            assert set(item[latency]) >= {"mean", "p50", "p90", "p99"}


def test_the_default_plan_is_proven_over_a_million_deployments(default: Plan, catalog: Catalog) -> None:
    assert default.status is Status.OPTIMAL
    assert default.gap == 0.0
    assert default.search.deployments_considered >= 1_000_000
    assert tokopt.check(default, catalog=catalog) == []


def test_the_default_plan_fills_ten_megawatts(default: Plan, catalog: Catalog) -> None:
    assert default.power_limit_kw == 10_000.0
    assert default.power_kw is not None and default.power_kw <= 10_000.0
    largest = max(
        (catalog.accelerators[i.accelerator].all_in_w or 0.0) * max(i.gpus_per_unit, i.gpus_per_replica)
        for i in default.fleet
    )
    assert default.power_kw > 10_000.0 - largest / 1e3


def test_the_default_plan_says_what_to_buy_and_how_to_set_it_up(default: Plan, catalog: Catalog) -> None:
    for item in default.fleet:
        assert item.accelerator in catalog.accelerators
        assert item.replicas > 0 and item.nodes > 0 and item.gpus > 0
        assert (item.prefill and item.decode) if item.mode.value == "disagg" else (item.tp and item.pp)
        assert {"continuous_batching", "chunk_tokens", "kv_precision"} <= set(item.features)
        assert item.tpot_ms.p99 <= 50.0
    assert default.binding
    assert {row.of for row in default.marginal} >= {"power", "sla tpot"}
    assert default.runner_up is not None
    assert default.runner_up.without in {item.accelerator for item in default.fleet}
    assert default.runner_up.accelerators and default.runner_up.worse_by >= 0.0


def test_every_default_is_printed(default: Plan) -> None:
    """Design §1: each default in the report."""
    printed = "\n".join(default.assumptions).lower()
    for default_ in ("deepseek-r1", "agentic", "8,192", "1,024", "ownership-hyperscaler", "all-in", "provisioned"):
        assert default_ in printed
    for default_ in ("p99", "ttft limit", "no demand given", "lowest cost per token"):
        assert default_ in printed
    assert default.request.ttft_by_default


def test_ranges_hold_the_headline_figures(default: Plan) -> None:
    assert {"usd_per_million_output_tokens", "output_tokens_per_s", "tokens_per_s_per_mw"} <= set(default.interval)
    for name, ends in default.interval.items():
        assert ends.low <= getattr(default, name) <= ends.high


def test_provenance_is_complete(default: Plan, catalog: Catalog) -> None:
    origin = default.provenance
    assert origin.catalog_version == catalog.version and origin.calibration == catalog.calibration.version
    assert origin.price_lists == ("ownership-hyperscaler",) and origin.prices_as_of
    assert origin.tokopt_version and origin.solver
    for item in default.fleet:
        assert any(key.startswith(f"{item.accelerator}.") for key in origin.sources)
