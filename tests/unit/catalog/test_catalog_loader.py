"""Loading and overlaying catalogs; every fault is one clear line with file and key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tokopt.catalog import Catalog, load_catalog
from tokopt.errors import CatalogError, InputError

EMBEDDED = load_catalog().directories[0]

MINE = {
    "title": "My accelerator",
    "vendor": "me",
    "generation": "first",
    "aliases": ["mine"],
    "memory_gb": 100,
    "memory_bandwidth_gb_per_s": 1000,
    "dense_tflops": {"bf16": 100},
    "scale_up_size": 8,
    "scale_up_gb_per_s": 100,
    "scale_up_topology": "switch",
    "accelerators_per_node": 8,
    "purchase_unit": "node",
    "source": "inferencex-app",
    "observed_on": "2026-01-01",
}
SITE = {"title": "Here", "pue": 1.1, "source": "eia-2023", "observed_on": "2026-01-01"}


def lay(directory: Path, file: str, content: object) -> Catalog:
    path = directory / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return load_catalog(directory)


def with_accelerator(directory: Path, **changes: object) -> Catalog:
    row = {key: value for key, value in {**MINE, **changes}.items() if value != "LEAVE OUT"}
    return lay(directory, "accelerators/my_accelerator.yaml", row)


def fault(load) -> str:
    with pytest.raises(CatalogError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- overlays ---


def test_embedded_catalog_is_the_first_directory():
    assert load_catalog().directories == (EMBEDDED,)
    assert (EMBEDDED / "sources.yaml").is_file()


def test_overlay_adds_and_replaces_by_name(tmp_path):
    catalog = with_accelerator(tmp_path)
    lay(tmp_path, "accelerators/h200_sxm.yaml", {**MINE, "memory_gib": 99})
    catalog = load_catalog(str(tmp_path))
    assert catalog.directories == (EMBEDDED, tmp_path)
    assert catalog.accelerator("my_accelerator").memory_bytes == 100e9
    assert catalog.accelerators["h200_sxm"].memory_bytes == 99 * 2**30
    assert set(load_catalog().accelerators) < set(catalog.accelerators)


def test_overlay_of_a_table_keeps_the_other_entries(tmp_path):
    catalog = lay(tmp_path, "sites.yaml", {"here": SITE, "texas": {**SITE, "pue": 1.3}})
    assert catalog.site("here").pue == 1.1
    assert catalog.site("texas").pue == 1.3
    assert catalog.site("ohio").pue == load_catalog().site("ohio").pue


def test_overlay_that_does_not_exist(tmp_path):
    assert "no such directory" in fault(lambda: load_catalog(tmp_path / "nowhere"))


def test_overlay_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "no such directory" in fault(lambda: load_catalog(tmp_path / "file"))


def test_overlay_with_nothing_of_a_catalog(tmp_path):
    (tmp_path / "acclerators").mkdir()
    names = "accelerators, benchmarks.yaml, calibration, expert_traffic.yaml, frameworks.yaml"
    assert names in fault(lambda: load_catalog(tmp_path))


def test_empty_table_adds_nothing(tmp_path):
    assert set(lay(tmp_path, "sites.yaml", "").sites) == set(load_catalog().sites)


# --- faults of one entry ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory_gbit": 3}, "memory_gbit: unknown key"),
        ({"memory_gb": "80GB"}, "memory_gb: Input should be a valid number, not '80GB'"),
        ({"memory_gb": "80"}, "memory_gb: Input should be a valid number, not '80'"),
        ({"memory_gb": True}, "memory_gb: Input should be a valid number, not True"),
        ({"memory_gb": -1}, "memory_gb: Input should be greater than 0, not -1"),
        ({"memory_gb": 0}, "memory_gb: Input should be greater than 0, not 0"),
        ({"memory_gb": float("nan")}, "memory_gb: Input should be"),
        ({"memory_gb": float("inf")}, "memory_gb: Input should be a finite number"),
        ({"board_w": None}, "board_w: a value that is not known is left out, not None"),
        ({"memory_gb": "LEAVE OUT"}, "memory_gb: missing (or memory_gib)"),
        ({"memory_bandwidth_gb_per_s": "LEAVE OUT"}, "memory_bandwidth_gb_per_s: missing"),
        ({"source": "LEAVE OUT"}, "source: missing"),
        ({"observed_on": "LEAVE OUT"}, "observed_on: missing"),
        ({"source": ""}, "source: String should have at least 1 character"),
        ({"observed_on": "spring"}, "observed_on: Input should be a valid date"),
        ({"dense_tflops": {"fp16": 3}}, "dense_tflops.fp16.[key]: Input should be 'bf16', 'fp8', 'fp4' or 'int8'"),
        ({"dense_tflops": {"bf16": 0}}, "dense_tflops.bf16: Input should be greater than 0"),
        ({"dense_tflops": {}}, "dense_tflops: "),
        ({"scale_up_size": 8.5}, "scale_up_size: Input should be a valid integer"),
        ({"scale_up_topology": "star"}, "scale_up_topology: Input should be 'switch', 'mesh', 'torus' or 'pcie'"),
        ({"purchase_unit": "rack"}, "nodes_per_rack: missing, although purchase_unit is rack"),
        ({"sources": {"idle_w": "eia-2023"}}, "sources.idle_w: a source without a value"),
        ({"aliases": "mine"}, "aliases: Input should be a valid tuple"),
    ],
)
def test_fault_of_an_accelerator_names_file_and_key(tmp_path, changes, said):
    message = fault(lambda: with_accelerator(tmp_path, **changes).accelerators)
    assert message.startswith(f"{tmp_path / 'accelerators' / 'my_accelerator.yaml'}: ")
    assert said in message


def test_several_faults_are_counted(tmp_path):
    message = fault(lambda: with_accelerator(tmp_path, memory_gb=-1, board_w=-1, speed=3).accelerators)
    assert message.endswith("(and 2 more)")


def test_key_that_appears_twice(tmp_path):
    text = yaml.safe_dump(MINE) + "memory_gb: 90\n"
    message = fault(lambda: lay(tmp_path, "accelerators/my_accelerator.yaml", text).accelerators)
    assert "'memory_gb' appears twice" in message


def test_name_that_appears_twice_in_a_table(tmp_path):
    text = yaml.safe_dump({"here": SITE}) * 2
    assert "'here' appears twice" in fault(lambda: lay(tmp_path, "sites.yaml", text).sites)


@pytest.mark.parametrize("name", ["Here", "two words", "1,5", True, 3])
def test_name_that_is_no_name(tmp_path, name):
    assert "is no name" in fault(lambda: lay(tmp_path, "sites.yaml", {name: SITE}).sites)


@pytest.mark.parametrize(("text", "said"), [("- a\n", "a mapping"), ("a: [\n", "not valid YAML"), ("x", "a mapping")])
def test_file_that_is_no_table(tmp_path, text, said):
    assert said in fault(lambda: lay(tmp_path, "sites.yaml", text).sites)


def test_entry_that_is_no_mapping(tmp_path):
    message = fault(lambda: lay(tmp_path, "sites.yaml", {"here": 3}).sites)
    assert message == f"{tmp_path / 'sites.yaml'}: here: a mapping of keys to values is needed, not int"


def test_file_that_is_no_text(tmp_path):
    (tmp_path / "sites.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in fault(lambda: load_catalog(tmp_path).sites)


@pytest.mark.parametrize(
    ("file", "table", "entry", "key"),
    [
        ("sites.yaml", "sites", {**SITE, "pue": 0.9}, "pue"),
        ("workloads.yaml", "workloads", {"title": "x", "input_tokens": 0}, "input_tokens"),
        ("workloads.yaml", "workloads", {"title": "x", "prefix_share": 1.5}, "prefix_share"),
        ("precisions.yaml", "precisions", {"title": "x", "ffn_bits": -4}, "ffn_bits"),
        ("precisions.yaml", "precisions", {"title": "x", "weight_only": "no"}, "weight_only"),
        ("kv_precisions.yaml", "kv_precisions", {"title": "x", "bits": 0}, "bits"),
        ("frameworks.yaml", "frameworks", {"title": "x", "memory_fraction": 92}, "memory_fraction"),
        ("sources.yaml", "sources", {"title": "", "publisher": "me"}, "title"),
        ("published_economics.yaml", "published_economics", {"title": "x", "token_basis": "all"}, "token_basis"),
    ],
)
def test_fault_in_any_table_names_file_entry_and_a_key(tmp_path, file, table, entry, key):
    message = fault(lambda: getattr(lay(tmp_path, file, {"mine": entry}), table))
    assert message.startswith(f"{tmp_path / file}: mine: ")
    assert f": {key}: " in message or "more)" in message


def test_framework_that_describes_one_accelerator_twice(tmp_path):
    support = {"accelerators": ["l4"], "precisions": ["bf16"], "kv_precisions": ["bf16"], "source": "vllm-config"}
    row = {
        "title": "Mine",
        "memory_fraction": 0.9,
        "max_running_requests": 8,
        "chunk_tokens": 8,
        "source": "vllm-config",
        "observed_on": "2026-01-01",
        "support": [support, support],
    }
    message = fault(lambda: lay(tmp_path, "frameworks.yaml", {"mine": row}).frameworks)
    assert message.endswith("mine: support.1.accelerators: l4 is in an earlier entry too")
    row["support"] = [{**support, "features": ["magic"]}]
    assert "support.0.features.0" in fault(lambda: lay(tmp_path, "frameworks.yaml", {"mine": row}).frameworks)


# --- lookups ---


@pytest.mark.parametrize(
    ("lookup", "name", "said"),
    [
        ("accelerator", "h20", "unknown accelerator 'h20'; did you mean"),
        ("precision", "fp5", "unknown precision 'fp5'"),
        ("kv_precision", "fp5", "unknown KV precision"),
        ("framework", "vlm", "did you mean vllm?"),
        ("workload", "chatt", "did you mean chat?"),
        ("site", "texsa", "did you mean texas"),
        ("llm", "deepseek-r2", "unknown language model 'deepseek-r2'; did you mean"),
        ("ownership_profile", "hyperscalar", "unknown ownership profile"),
    ],
)
def test_unknown_name_is_bad_input_with_the_nearest_names(lookup, name, said):
    with pytest.raises(InputError, match="unknown") as caught:
        getattr(load_catalog(), lookup)(name)
    assert said in str(caught.value)


def test_names_are_matched_without_case_and_with_any_separator():
    catalog = load_catalog()
    assert catalog.accelerator(" GB300-nvl72 ").name == "gb300_nvl72"
    assert catalog.llm("DeepSeek-R1").name == "deepseek-r1"
    assert catalog.ownership_profile("ownership-Hyperscaler").name == "hyperscaler"


def test_name_beats_alias(tmp_path):
    assert with_accelerator(tmp_path, aliases=["h200_sxm"]).accelerator("h200_sxm").name == "h200_sxm"


def test_ambiguous_alias_is_refused_and_reported(tmp_path):
    catalog = with_accelerator(tmp_path, aliases=["h200"])
    assert "alias of h200_sxm and of my_accelerator" in fault(lambda: catalog.accelerator("h200"))
    assert any("'h200' is an alias of h200_sxm and of my_accelerator" in problem for problem in catalog.check())


def test_llm_from_a_config_file_that_is_missing(tmp_path):
    message = fault(lambda: load_catalog().llm(str(tmp_path / "config.json")))
    assert "config.json" in message


def test_price_list_of_an_ownership_profile():
    offers = load_catalog().price_list(["ownership-hyperscaler"]).offers
    assert {offer.accelerator: offer.usd_per_accelerator_hour for offer in offers}["h200_sxm"] == pytest.approx(1.41)


# --- version and checks ---


def test_version_follows_the_data(tmp_path):
    first = with_accelerator(tmp_path).version
    assert first == with_accelerator(tmp_path).version != load_catalog().version
    assert with_accelerator(tmp_path, memory_gb=101).version != first
    assert len(first) == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "hearsay"}, "source 'hearsay' is not in sources.yaml"),
        ({"board_w": 900, "all_in_kw": 0.8}, "board_w of 900 W is above all_in_w of 800 W"),
        ({"board_w": 50, "idle_w": 60}, "idle_w of 60 W is above board_w of 50 W"),
        ({"dense_tflops": {"bf16": 100, "fp8": 90}}, "dense_tflops: bf16 is faster than fp8"),
        ({"sparse_tflops": {"bf16": 50}}, "sparse_tflops: bf16 is slower than dense"),
        ({"memory_gb": 100_000_000_000}, "memory of 1e+11 GB is implausible"),
        ({"memory_bandwidth_gb_per_s": 3}, "memory bandwidth of 3 GB/s is implausible"),
        ({"dense_tflops": {"bf16": 0.1}}, "dense_tflops of 0.1 is implausible"),
    ],
)
def test_check_reports_what_no_row_can_say(tmp_path, changes, said):
    problems = with_accelerator(tmp_path, **changes).check()
    assert [problem for problem in problems if said in problem]
    assert all("my_accelerator" in problem for problem in problems)


def test_check_reports_names_that_no_table_has(tmp_path):
    support = {"accelerators": ["l5"], "precisions": ["fp3"], "kv_precisions": ["fp2"], "source": "vllm-config"}
    row = {
        "title": "Mine",
        "memory_fraction": 0.9,
        "max_running_requests": 8,
        "chunk_tokens": 8,
        "source": "vllm-config",
        "observed_on": "2026-01-01",
        "support": [support],
    }
    problems = lay(tmp_path, "frameworks.yaml", {"mine": row}).check()
    assert [name for name in ("l5", "fp3", "fp2") if any(f"'{name}' is not in the catalog" in p for p in problems)]
    assert len(problems) == 3


def test_check_reports_every_table_that_cannot_be_read(tmp_path):
    lay(tmp_path, "sites.yaml", "- a\n")
    lay(tmp_path, "workloads.yaml", "- a\n")
    assert len(load_catalog(tmp_path).check()) == 2


def test_check_reports_a_misspelt_file(tmp_path):
    lay(tmp_path, "sites.yaml", {"here": SITE})
    lay(tmp_path, "site.yaml", {"here": SITE})
    catalog = lay(tmp_path, "accelerators/h20.yml", MINE)
    first, second = catalog.check()
    assert "h20.yml: not part of a catalog" in first
    assert "site.yaml: not part of a catalog" in second


def test_tables_are_read_when_they_are_asked_for(tmp_path):
    catalog = lay(tmp_path, "sites.yaml", "- a\n")
    assert catalog.accelerator("h200").name == "h200_sxm"
