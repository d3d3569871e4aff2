"""The embedded hardware side: facts against their sources, units, invariants."""

from __future__ import annotations

import math

import pytest

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.accelerators import NumberFormat, PurchaseUnit

MW = 1e6


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def whole_units(catalog: Catalog, name: str, limit_w: float) -> int:
    accelerator = catalog.accelerator(name)
    assert accelerator.all_in_w is not None
    return math.floor(limit_w / (accelerator.all_in_w * accelerator.purchase_unit_size))


def test_embedded_catalog_has_no_problems(catalog):
    assert catalog.check() == []


@pytest.mark.parametrize(
    ("name", "kw"),
    [
        ("h100", 1.73),
        ("h200", 1.73),
        ("b200", 2.17),
        ("b300", 2.17),
        ("gb200", 2.10),
        ("gb300", 2.10),
        ("mi300x", 1.79),
        ("mi325x", 2.18),
        ("mi355x", 2.65),
    ],
)
def test_all_in_power_is_as_published(catalog, name, kw):
    assert catalog.accelerator(name).all_in_w == pytest.approx(kw * 1e3)


@pytest.mark.parametrize("name", ["a100-80gb", "l4", "a10g", "l40s", "rtx_pro_6000", "h100-pcie", "gaudi3", "tpu-v5e"])
def test_all_in_power_that_nobody_published_is_absent(catalog, name):
    assert catalog.accelerator(name).all_in_w is None


def test_ten_megawatts_hold_5776_h200_in_whole_nodes(catalog):
    assert catalog.accelerator("h200").purchase_unit is PurchaseUnit.NODE
    assert whole_units(catalog, "h200", 10 * MW) * 8 == 5776


@pytest.mark.parametrize("name", ["gb200", "gb300"])
def test_ten_megawatts_hold_66_whole_racks(catalog, name):
    accelerator = catalog.accelerator(name)
    assert accelerator.purchase_unit is PurchaseUnit.RACK
    assert accelerator.purchase_unit_size == accelerator.scale_up_size == 72
    assert whole_units(catalog, name, 10 * MW) == 66


def test_rates_are_in_si_per_accelerator(catalog):
    h200 = catalog.accelerator("h200_sxm")
    assert h200.memory_bytes_per_s == pytest.approx(4.8e12)
    assert h200.dense_flop_per_s[NumberFormat.FP8] == pytest.approx(1979e12)
    assert h200.sparse_flop_per_s[NumberFormat.FP8] == pytest.approx(3958e12)
    assert NumberFormat.FP4 not in h200.dense_flop_per_s
    assert h200.scale_up_bytes_per_s == pytest.approx(450e9)
    assert h200.scale_out_bytes_per_s == pytest.approx(50e9)  # 400 Gbit/s
    assert h200.board_w == 700
    assert h200.server_w == pytest.approx(10.2e3 / 8)


@pytest.mark.parametrize(
    ("name", "mib"),
    [
        ("h100", 81559),
        ("h200", 143771),
        ("b200", 183359),
        ("b300", 275040),
        ("gb200", 189471),
        ("gb300", 284208),
        ("rtx_pro_6000", 97887),
        ("l40s", 46068),
    ],
)
def test_memory_is_what_the_driver_reports(catalog, name, mib):
    assert catalog.accelerator(name).memory_bytes == pytest.approx(mib * 2**20)


def test_memory_without_driver_report_is_the_vendors_decimal_figure(catalog):
    assert catalog.accelerator("mi355x").memory_bytes == pytest.approx(288e9)


@pytest.mark.parametrize(
    ("name", "dense_fp4_tflops"), [("b200", 9000), ("b300", 13500), ("gb200", 10000), ("gb300", 15000)]
)
def test_fp4_rates_are_as_published(catalog, name, dense_fp4_tflops):
    assert catalog.accelerator(name).dense_flop_per_s[NumberFormat.FP4] == pytest.approx(dense_fp4_tflops * 1e12)


@pytest.mark.parametrize(
    ("name", "node_bytes", "accelerators", "source"),
    [
        ("mi300x", 1.5 * 2**40, 8, "mlperf-inference-v4.1-amd"),
        ("mi325x", 2.25 * 2**40, 8, "mlperf-inference-v5.0"),
        ("mi355x", 3e12, 8, "mlperf-inference-v6.1-hosts"),
        ("b300", 2e12, 8, "mlperf-inference-v6.1-hosts"),
        ("gb300", 864 * 2**30, 4, "azure-gpu-sizes"),
        ("a100-40gb", 1e12, 8, "mlperf-inference-v0.7"),
        ("a100-80gb", 2e12, 8, "mlperf-inference-v3.0"),
        ("a100-pcie-80gb", 512e9, 8, "mlperf-inference-v3.0"),
        ("l40s", 1e12, 8, "mlperf-inference-v4.0"),
        ("l4", 768 * 2**30, 8, "aws-g6-memory"),
    ],
)
def test_host_memory_is_the_nodes_over_its_accelerators(catalog, name, node_bytes, accelerators, source):
    accelerator = catalog.accelerator(name)
    assert accelerator.accelerators_per_node == accelerators
    assert accelerator.host_bytes == pytest.approx(node_bytes / accelerators, rel=0.003)
    assert accelerator.sources["host_memory_gb"] == source


@pytest.mark.parametrize(
    ("source", "link_gb_per_s", "measured"),
    [("bam-pcie-gen4", 16 * 16 / 8, 25), ("vllm-kv-offloading", 32 * 16 / 8, 50), ("sglang-hicache-gb300", 450, 192)],
)
def test_copies_from_host_memory_are_as_measured_on_the_link(catalog, source, link_gb_per_s, measured):
    """PCIe: 16 or 32 GT/s on 16 lanes; NVLink-C2C: 450 GB/s a direction."""
    parts = [a for a in catalog.accelerators.values() if a.sources.get("host_gb_per_s") == source]
    assert parts and {a.host_bytes_per_s for a in parts} == {measured * 1e9}
    assert measured < link_gb_per_s


@pytest.mark.parametrize(
    ("name", "node_bytes"), [("h100", 8 * 3.84e12), ("b300", 8 * 3.84e12), ("mi300x", 28 * 2**40), ("gb300", 16e12)]
)
def test_an_accelerator_has_one_drive_of_its_node(catalog, name, node_bytes):
    """Four drives in RAID 0 were measured to read 26 GB/s."""
    accelerator = catalog.accelerator(name)
    assert accelerator.ssd_bytes == pytest.approx(node_bytes / accelerator.accelerators_per_node, rel=0.003)
    assert accelerator.ssd_bytes_per_s == pytest.approx(26e9 / 4)


def test_tiers_are_known_whole_or_not_at_all(catalog):
    """A size without its bandwidth is of no use; a tier behind another is larger and slower."""
    for accelerator in catalog.accelerators.values():
        host = (accelerator.host_bytes, accelerator.host_bytes_per_s)
        drives = (accelerator.ssd_bytes, accelerator.ssd_bytes_per_s)
        assert (None in host) == (host == (None, None)) and (None in drives) == (drives == (None, None))
        if None not in drives:
            assert None not in host and drives[0] > host[0] and drives[1] < host[1]


@pytest.mark.parametrize("name", ["a10g", "gaudi3", "mi250", "arc_pro_b60"])
def test_host_links_that_nobody_published_are_absent(catalog, name):
    assert catalog.accelerator(name).host_bytes_per_s is None


@pytest.mark.parametrize(
    ("framework", "names"),
    [
        ("vllm", ["h100_sxm", "mi300x", "mi325x", "mi355x", "arc_pro_b60"]),
        ("sglang", ["h100_sxm", "mi300x", "mi325x", "mi355x"]),
        ("tensorrt-llm", ["h100_sxm", "gb300_nvl72"]),
    ],
)
def test_offload_is_where_frameworks_document_it(catalog, framework, names):
    """vLLM: CUDA, ROCm and XPU; SGLang's HiCache: CUDA and ROCm; TensorRT LLM with the block manager: NVIDIA's."""
    for name in names:
        assert "kv_offload" in catalog.framework(framework).support[name].features


def test_every_value_has_a_known_source(catalog):
    for accelerator in catalog.accelerators.values():
        assert {"memory_bandwidth_gb_per_s", "dense_tflops", "scale_up_size"} <= set(accelerator.sources)
        assert set(accelerator.sources.values()) <= set(catalog.sources)
        assert accelerator.observed_on


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("H200", "h200_sxm"),
        ("H200-SXM", "h200_sxm"),
        ("gb300", "gb300_nvl72"),
        ("A100-80GB", "a100_80g_sxm"),
        ("RTXPRO6000", "rtx_pro_6000"),
        ("RTX PRO 6000", "rtx_pro_6000"),
        ("TPU-v5e", "tpu_v5e"),
        ("MI300X", "mi300x"),
        ("H100-PCIe", "h100_pcie"),
    ],
)
def test_people_and_price_lists_say_it_their_way(catalog, said, name):
    assert catalog.accelerator(said).name == name


def test_a100_alone_means_the_40_gb_part_in_price_lists_and_is_not_mapped(catalog):
    with pytest.raises(Exception, match="unknown accelerator 'A100'"):
        catalog.accelerator("A100")


@pytest.mark.parametrize(
    ("said", "name", "bits"),
    [("fp16", "bf16", 16), ("fp4", "nvfp4", 4.5), ("uint4", "int4", 4.15625), ("MXFP4", "mxfp4", 4.25)],
)
def test_precisions_by_alias(catalog, said, name, bits):
    precision = catalog.precision(said)
    assert (precision.name, precision.ffn_bits) == (name, bits)


def test_nvfp4_leaves_latent_attention_in_bf16(catalog):
    nvfp4 = catalog.precision("nvfp4")
    assert (nvfp4.attention_bits, nvfp4.latent_attention_bits) == (4.5, 16)
    assert nvfp4.latent_attention_compute is NumberFormat.BF16
    assert catalog.kv_precision(nvfp4.default_kv_precision).bits == 8


def test_frameworks_state_where_they_run(catalog):
    vllm, sglang, trtllm = (catalog.framework(name) for name in ("vLLM", "sglang", "TRT-LLM"))
    vendors = {catalog.accelerators[name].vendor for name in trtllm.support}
    assert vendors == {"nvidia"}
    assert {catalog.accelerators[name].vendor for name in sglang.support} == {"nvidia", "amd"}
    assert set(catalog.accelerators) - set(vllm.support) == {"inferentia2", "trainium1", "sn40l"}
    assert "fp8" not in vllm.support["a100_80g_sxm"].precisions
    assert "nvfp4" not in trtllm.support["h200_sxm"].precisions
    assert "nvfp4" in trtllm.support["gb300_nvl72"].precisions
    assert "mxfp4" in vllm.support["mi355x"].precisions


def test_frameworks_of_old_measurements_are_not_recommended(catalog):
    kept = {name for name, framework in catalog.frameworks.items() if framework.recommended}
    assert kept == {"vllm", "sglang", "tensorrt-llm"}
    assert catalog.framework("Deepspeed-MII").name == catalog.framework("Deepspeed").name == "deepspeed"
    assert catalog.framework("Transformers NeuronX").name == "transformers-neuronx"


@pytest.mark.parametrize(
    ("said", "name"),
    [("gb200_nvl_tray", "gb200_nvl72"), ("gb300_nvl_tray", "gb300_nvl72"), ("A100-80GB-PCIe", "a100_80g_pcie")],
)
def test_parts_of_a_rack_and_cards_are_found(catalog, said, name):
    assert catalog.accelerator(said).name == name


def test_prices_of_chips_count_cores_where_an_entry_is_a_core(catalog):
    (offer,) = (o for o in catalog.price_list(["aws"]).offers if o.instance_type == "inf2.48xlarge")
    assert (offer.accelerator, offer.accelerator_count) == ("inferentia2", 24)
    assert catalog.accelerator("inferentia2").accelerators_per_node == 24


@pytest.mark.parametrize(
    ("said", "name", "lengths"),
    [("8k1k", "agentic", (8192, 1024)), ("1k1k", "chat", (1024, 1024)), ("1K8K", "reasoning", (1024, 8192))],
)
def test_inferencex_shapes_assume_no_prefix_reuse(catalog, said, name, lengths):
    workload = catalog.workload(said)
    assert workload.name == name
    assert (workload.input_tokens, workload.output_tokens) == lengths
    assert workload.prefix_share == 0
    assert workload.sources["input_cv"] == "tokopt-assumption"


def test_sites(catalog):
    assert next(iter(catalog.sites.values())) is catalog.site("default")
    assert catalog.site("texas").usd_per_kwh == pytest.approx(0.066)
    assert catalog.site("Germany").usd_per_kwh is None
    assert catalog.site("sweden").carbon_g_per_kwh == pytest.approx(40.695)


def test_published_sheet_follows_from_catalog_data(catalog):
    sheet = catalog.published_economics["nvidia-2026-04"]
    h200, gb300 = sheet.lines
    for line in sheet.lines:
        accelerator = catalog.accelerators[line.accelerator]
        assert accelerator.all_in_w is not None
        price = catalog.ownership[sheet.ownership].usd_per_accelerator_hour[line.accelerator]
        rates = accelerator.sparse_flop_per_s if line.peak_sparse else accelerator.dense_flop_per_s
        speed = line.unrounded_tokens_per_s_per_gpu
        assert price == pytest.approx(line.published.usd_per_gpu_hour, abs=0.005)
        assert rates[line.peak_format] / 1e15 / price == pytest.approx(line.published.pflops_per_usd, abs=0.06)
        assert price / (speed * 0.0036) == pytest.approx(line.published.usd_per_million_tokens, rel=0.03)
        assert speed / accelerator.all_in_w * 1e6 == pytest.approx(line.published.tokens_per_s_per_mw, rel=0.03)
    assert round(h200.published.usd_per_gpu_hour / (h200.unrounded_tokens_per_s_per_gpu * 0.0036), 2) == 4.20
    ratio = gb300.published.tokens_per_s_per_gpu / h200.unrounded_tokens_per_s_per_gpu
    assert ratio == pytest.approx(sheet.ratios.tokens_per_s_per_gpu, rel=0.02)
