"""Calibration files: what is read from them, and what is refused in one line with file and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokopt.catalog import load_catalog
from tokopt.catalog.calibration_files import CONSTANT_NAMES, load_calibration
from tokopt.domain.calibration import Link, Novelty
from tokopt.domain.provenance import Origin
from tokopt.errors import CatalogError

DIRECTORY = Path(__file__).parents[3] / "catalogs" / "calibration"
Spoil = Callable[[dict[str, Any]], object]


def loaded(path: Path, spoil: Spoil = lambda data: None):
    data = yaml.safe_load((DIRECTORY / "priors.yaml").read_text())
    spoil(data)
    path = path / "mine.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True))
    return load_calibration(path)


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_embedded_files(path: Path) -> None:
    calibration = load_calibration(path)
    assert set(calibration.entries) == set(CONSTANT_NAMES)
    known = load_catalog().sources
    assert all(entry.source in known for entry in calibration.entries.values())
    assert all(effect.source in known for effect in calibration.effects)
    assert calibration.acceptance["default"]


def test_priors_are_not_fitted() -> None:
    priors = load_calibration(DIRECTORY / "priors.yaml")
    assert not priors.fitted
    assert {entry.origin for entry in priors.entries.values()} == {Origin.PRIOR}
    assert all(entry.sd is None for entry in priors.entries.values())
    assert all(interval.rows == 0 for interval in priors.intervals)


def test_what_a_file_says(tmp_path: Path) -> None:
    def write(data: dict[str, Any]) -> None:
        data["data_hash"] = "abc"
        data["constants"]["slowdown"] |= {"value": 1.5, "sd": 0.25, "origin": "fitted", "note": "here"}
        data["effects"] = {"slowdown": {"framework+llm": {"vllm+llama-3.1-8b": {"shift": -0.5, "sd": 0.1, "rows": 7}}}}
        data["intervals"].append(
            {"figure": "ttft_ms", "novelty": "new_llm", "mode": "disagg", "low": 0.5, "high": 3, "rows": 12}
        )
        data["measured"] = {"names": {"llm": ["llama-3.1-8b"]}, "numbers": {"isl": [1, 4096]}}

    calibration = loaded(tmp_path, write)
    entry, (effect,), interval = calibration.entries["slowdown"], calibration.effects, calibration.intervals[-1]
    assert calibration.fitted
    assert (entry.value, entry.link, entry.sd, entry.origin, entry.note) == (1.5, Link.LOG, 0.25, Origin.FITTED, "here")
    assert (effect.constant, effect.trait, effect.level) == ("slowdown", "framework+llm", "vllm+llama-3.1-8b")
    assert (effect.shift, effect.sd, effect.rows, effect.origin) == (-0.5, 0.1, 7, Origin.FITTED)
    assert effect.source == entry.source  # unless it has one of its own
    assert (interval.novelty, interval.mode, interval.low, interval.high) == (Novelty.NEW_LLM, "disagg", 0.5, 3.0)
    assert calibration.intervals[0].novelty is None
    assert calibration.measured.names == {"llm": ("llama-3.1-8b",)}
    assert calibration.measured.numbers == {"isl": (1.0, 4096.0)}


def test_effects_of_a_trait_may_be_a_table(tmp_path: Path) -> None:
    lists = {"llama-3.1-8b": [-0.5, 0.1, 7], "qwen3-8b": [0.25, 0.2, 3]}
    table = "llama-3.1-8b -0.5 0.1 7\nqwen3-8b 0.25 0.2 3\n"
    written = [loaded(tmp_path, put("effects", value={"slowdown": {"llm": form}})).effects for form in (lists, table)]
    assert written[0] == written[1]
    assert [(e.level, e.shift, e.sd, e.rows) for e in written[1]] == [
        ("llama-3.1-8b", -0.5, 0.1, 7),
        ("qwen3-8b", 0.25, 0.2, 3),
    ]


def put(*keys: str, value: object) -> Spoil:
    """Set one key of a file, by its path."""

    def spoil(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data.setdefault(key, {})
        data[keys[-1]] = value

    return spoil


def no_range_of_ttft(data: dict[str, Any]) -> None:
    data["intervals"] = [row for row in data["intervals"] if row["figure"] != "ttft_ms"]


def only_a_range_of_one_mode(data: dict[str, Any]) -> None:
    data["intervals"][2]["mode"] = "agg"


EFFECT = {"shift": 0.1, "sd": 0.1}
FAULTS: dict[str, tuple[Spoil, str]] = {
    "missing constant": (lambda data: data["constants"].pop("slowdown"), "constants: missing slowdown"),
    "unknown constant": (
        lambda data: data["constants"].update(speedup=data["constants"]["slowdown"]),
        "constants: unknown constant 'speedup' (allowed: memory_efficiency",
    ),
    "effect on an unknown constant": (
        put("effects", "speedup", value={"llm": {"llama-3.1-8b": EFFECT}}),
        "effects: unknown constant 'speedup'",
    ),
    "unknown trait of an effect": (
        put("effects", "slowdown", value={"colour": {"red": EFFECT}}),
        "effects: unknown trait 'colour' (allowed: accelerator, generation, vendor, framework",
    ),
    "unknown trait in a combination": (
        put("effects", "slowdown", value={"llm+colour": {"llama-3.1-8b+red": EFFECT}}),
        "effects: unknown trait 'colour'",
    ),
    "unknown trait of a constant": (
        put("constants", "slowdown", "effects", value={"colour": 0.1}),
        "effects: unknown trait 'colour'",
    ),
    "zero on a log": (put("constants", "slowdown", "value", value=0), "constants.slowdown: must lie between 0 and inf"),
    "share of one": (
        put("constants", "mixing", "value", value=1),
        "constants.mixing: must lie between 0 and 1, not 1.0",
    ),
    "share of nothing": (put("constants", "mixing", "value", value=0), "constants.mixing: must lie between 0 and 1"),
    "ratio below one": (
        put("constants", "expert_imbalance", "value", value=0.9),
        "constants.expert_imbalance: must lie between 1 and inf, not 0.9",
    ),
    "no number": (put("constants", "slowdown", "value", value=float("nan")), "constants.slowdown"),
    "negative": (put("constants", "slowdown", "value", value=-1), "constants.slowdown.value"),
    "unknown link": (put("constants", "slowdown", "link", value="square"), "constants.slowdown.link"),
    "no spread": (put("constants", "slowdown", "spread", value=0), "constants.slowdown.spread"),
    "no source": (put("constants", "slowdown", "source", value=""), "constants.slowdown.source"),
    "effect without spread": (
        put("effects", "slowdown", value={"llm": {"llama-3.1-8b": {"shift": 0.1, "sd": 0}}}),
        "effects.slowdown.llm.llama-3.1-8b.sd",
    ),
    "line of a table that is too short": (
        put("effects", "slowdown", value={"llm": "llama-3.1-8b 0.1 0.1 7\nqwen3-8b 0.1 0.1"}),
        "effects.slowdown.llm: a line is a level with its shift, sd, rows, not 'qwen3-8b 0.1 0.1'",
    ),
    "level of a table twice": (
        put("effects", "slowdown", value={"llm": "qwen3-8b 0.1 0.1 7\nqwen3-8b 0.1 0.1 7"}),
        "effects.slowdown.llm: level 'qwen3-8b' appears twice",
    ),
    "word in a table": (
        put("effects", "slowdown", value={"llm": "qwen3-8b much 0.1 7"}),
        "effects.slowdown.llm.qwen3-8b.shift",
    ),
    "no default acceptance": (lambda data: data["acceptance"].pop("default"), "acceptance: missing default"),
    "certain acceptance": (
        put("acceptance", "default", "chances", value=[0.9, 1.0]),
        "acceptance.default: chances must lie in 0 to 1, not [0.9, 1.0]",
    ),
    "no chances": (put("acceptance", "default", "chances", value=[]), "acceptance.default.chances"),
    "no range": (no_range_of_ttft, "intervals: no range of ttft_ms for any novelty and mode"),
    "no range for any mode": (only_a_range_of_one_mode, "intervals: no range of ttft_ms for any novelty and mode"),
    "unknown figure": (
        lambda data: data["intervals"][0].update(figure="joy"),
        "intervals.0: figure is one of output_tok_s_per_gpu, tpot_ms, ttft_ms",
    ),
    "unknown novelty": (lambda data: data["intervals"][1].update(novelty="old"), "intervals.1: novelty is one of any"),
    "unknown mode": (
        lambda data: data["intervals"][1].update(mode="both"),
        "intervals.1: mode is one of any, agg, disagg, gaps",
    ),
    "range above the prediction": (lambda data: data["intervals"][1].update(low=1.1), "intervals.1.low"),
    "range below the prediction": (lambda data: data["intervals"][1].update(high=0.9), "intervals.1.high"),
    "unknown key": (put("colour", value="red"), "colour"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_refused(tmp_path: Path, what: str) -> None:
    spoil, expected = FAULTS[what]
    with pytest.raises(CatalogError) as caught:
        loaded(tmp_path, spoil)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(str(tmp_path / "mine.yaml"))
    assert "\n" not in message
