"""Write what the documentation says of the calibration: tables in docs/model.md and docs/accuracy.md, and its plots.

    python tools/build_calibration_docs.py            # rewrite the blocks and draw the plots
    python tools/build_calibration_docs.py --check    # say which blocks are out of date; draw nothing

A block stands between `<!-- calibration: NAME -->` and `<!-- end -->`; what stands around it is written by hand. Errors
on held-out rows come from the calibration file, errors in-sample from `tokopt.validate` on the embedded measurements.
Trials that leave out a part of the model are made again with the rest, but a check only looks at their version.
Plots need Matplotlib (`pip install tokopt[report]`).
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

import tokopt
from tokopt.api import row_predictions
from tokopt.api.benchmark_rows import entry_traits
from tokopt.api.power_readings import power_readings
from tokopt.api.tables import estimate_many
from tokopt.calibration import summarize
from tokopt.calibration.power_fitting import Shares
from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.calibration import POWER_SHARES, Calibration
from tokopt.domain.measurements import Load
from tokopt.domain.validation import NOT_STATED, ErrorGroup, Validation
from tokopt.perf import closed_loop, memory, step
from tokopt.perf import rows as rows_module
from tokopt.perf.constants import linked, unlinked

if TYPE_CHECKING:
    import polars as pl

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "img"
BLOCK = re.compile(r"(?P<open><!-- calibration: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<close><!-- end -->)", re.DOTALL)
BY = ("vendor_system", "framework", "serving_mode")
FIGURES = {"output_tok_s_per_gpu": "tok/s/GPU", "tpot_ms": "TPOT", "ttft_ms": "TTFT"}
FEWEST = 10  # rows of a group that is shown
MOVED = 0.02  # of the logarithm of a prediction: rows that a trial changes by less are left out of it
SPLITS = {
    "layout": "layout of a system, framework, model and precision",
    "llm": "language model",
    "system": "accelerator system",
    "in-sample": "nothing: in-sample",
}
NOVELTIES = {
    "measured": "everything was measured",
    "new_llm": "language model was not",
    "new_system": "accelerator with this framework was not",
    None: "whatever else",
}
MODES = {"any": "all without gaps", "agg": "one pool", "disagg": "two pools", "gaps": "table rows with gaps"}
# What the model was to reach first, on held-out rows of these families: (figure, mean, median) in percent.
GOALS: tuple[tuple[str, str, str, float, float], ...] = (
    ("closed loops", "aic", "output_tok_s_per_gpu", 15.0, 10.0),
    ("closed loops", "aic", "tpot_ms", 15.0, 10.0),
    ("closed loops", "aic", "ttft_ms", 35.0, math.inf),
    ("saturation, TensorRT-LLM 1.2", "trtllm-v1.2-docs", "output_tok_s_per_gpu", 20.0, math.inf),
    ("saturation, TensorRT-LLM 1.0", "trtllm-v1.0", "output_tok_s_per_gpu", 20.0, math.inf),
    ("MLPerf Inference v5.1, Offline", "mlperf5.1", "output_tok_s_per_gpu", 25.0, math.inf),
)
Body = Callable[["Facts"], str]


class Facts:
    """What the blocks and plots are made of."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.calibration: Calibration = catalog.calibration
        with tempfile.TemporaryDirectory() as folder:
            import polars as pl

            out = Path(folder) / "compared.parquet"
            self.validation: Validation = tokopt.validate(by=BY, out=out, catalog=catalog)
            self.table: pl.DataFrame = pl.read_parquet(out)


# --- blocks of docs/model.md ---


def constants(facts: Facts) -> str:
    """Return the table of constants."""
    made = facts.calibration
    count = Counter(effect.constant for effect in made.effects)
    lines = [
        f"Version `{made.version}` of {made.made_on}: {len(made.entries)} constants, {len(made.effects)} effects.",
        "",
        "| constant | value | link | sd | effects | origin | source | note |",
        "| --- | ---: | --- | ---: | ---: | --- | --- | --- |",
    ]
    for name, entry in made.entries.items():
        sd = f"{entry.spread:g}" if entry.sd is None else f"{entry.sd:g}"
        cells = [f"`{name}`", f"{entry.value:g}", entry.link.value, sd, str(count[name] or "")]
        lines.append(row([*cells, entry.origin.value, entry.source, entry.note]))
    return "\n".join(lines)


def effects(facts: Facts) -> str:
    """Return how many effects of each trait there are, and the farthest for each constant."""
    made = facts.calibration
    if not made.effects:
        return "There are none."
    traits = Counter(effect.trait for effect in made.effects)
    counted = ", ".join(f"{count} of `{trait}`" for trait, count in traits.most_common())
    lines = [f"{len(made.effects)} effects: {counted}. The largest of each constant:", ""]
    lines += ["| constant | trait | level | shift | sd | rows |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for name in made.entries:
        own = [effect for effect in made.effects if effect.constant == name]
        if own:
            most = max(own, key=lambda effect: (abs(effect.shift), effect.level))
            level = most.level.replace("+", " + ")
            lines.append(
                row([f"`{name}`", most.trait, level, f"{most.shift:+.2f}", f"{most.sd:.2f}", f"{most.rows:,}"])
            )
    return "\n".join(lines)


def acceptance(facts: Facts) -> str:
    """Return the chances of draft tokens."""
    made = facts.calibration
    lines = ["| model | first, second, third | source |", "| --- | --- | --- |"]
    for llm, chances in made.acceptance.items():
        lines.append(row([llm, ", ".join(f"{chance:g}" for chance in chances), made.acceptance_sources[llm]]))
    return "\n".join(lines)


# --- blocks of docs/accuracy.md ---


def version(facts: Facts) -> str:
    """Return which calibration the numbers are of."""
    made, validation = facts.calibration, facts.validation
    fitted = f"fitted to data with hash `{made.data_hash}`" if made.fitted else "not fitted to any measurement"
    return (
        f"All tables and plots on this page are of calibration `{made.version}` ({made.made_on}), {fitted}. "
        f"{made.summary} The embedded table has {validation.rows:,} rows; {validation.answered:,} are predicted."
    )


def goals(facts: Facts) -> str:
    """Return what the model was to reach first, and what it reaches on held-out rows."""
    found = {(str(e["split"]), str(e["rows_of"])): e for e in facts.calibration.errors}
    lines = [
        "| held-out rows of | figure | goal: mean / median | reached | |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for said, family, figure, mean, median in GOALS:
        error = found.get(("layout", family), {})
        reached = [number(error.get(f"{figure}_mape")), number(error.get(f"{figure}_median_ape"))]
        goal = f"{mean:g} % / {median:g} %" if math.isfinite(median) else f"{mean:g} % / -"
        if math.isnan(reached[0]):
            lines.append(row([said, FIGURES[figure], goal, "-", "not known"]))
            continue
        met = reached[0] <= mean and reached[1] <= median
        lines.append(
            row([said, FIGURES[figure], goal, f"{reached[0]:.1f} % / {reached[1]:.1f} %", "met" if met else "missed"])
        )
    return "\n".join(lines)


def cross_validated(facts: Facts) -> str:
    """Return all errors of the calibration file."""
    lines = [
        "| held out together | rows of | rows | tok/s/GPU | TPOT | TTFT |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for error in facts.calibration.errors:
        if not any(f"{figure}_mape" in error for figure in FIGURES):
            continue  # of power, which has a table of its own
        split = SPLITS.get(str(error["split"]), str(error["split"]))
        cells = [split, str(error["rows_of"]), f"{int(error['rows']):,}"]
        for figure in FIGURES:
            mean, median = number(error.get(f"{figure}_mape")), number(error.get(f"{figure}_median_ape"))
            cells.append("-" if math.isnan(mean) else f"{mean:.1f} / {median:.1f}")
        lines.append(row(cells))
    return "\n".join(lines)


def ranges(facts: Facts) -> str:
    """Return the 80 % ranges as factors on a prediction."""
    lines = ["| what was measured | kind of row | tok/s/GPU | TPOT | TTFT |", "| --- | --- | ---: | ---: | ---: |"]
    keys = dict.fromkeys((i.novelty, i.mode) for i in facts.calibration.intervals)
    for novelty, mode in keys:
        own = {i.figure: i for i in facts.calibration.intervals if (i.novelty, i.mode) == (novelty, mode)}
        said = [f"{own[f].low:.2f} to {own[f].high:.2f}" if f in own else "-" for f in FIGURES]
        lines.append(row([NOVELTIES[novelty.value if novelty else None], MODES.get(mode, mode), *said]))
    return "\n".join(lines)


def families(facts: Facts) -> str:
    """Return errors in-sample by family of measurements and by kind of load."""
    shown = [facts.validation.overall, *facts.validation.by_prefix, *facts.validation.by_scenario]
    return error_table(
        "family, or scenario and mode", shown, lambda group: " ".join(group.key.values()) if group.key else "**all**"
    )


def doubts(facts: Facts) -> str:
    """Return errors in-sample by what is doubtful in a row."""

    def said(group: ErrorGroup) -> str:
        role = group.key["role"].replace(NOT_STATED, "plain row")
        return f"{role}; {group.key['speculative']}"

    return error_table("role; what is said of speculation", facts.validation.by_role, said)


def groups(facts: Facts) -> str:
    """Return errors in-sample by accelerator, framework and serving mode."""
    shown = sorted(
        (g for g in facts.validation.groups if g.rows >= FEWEST and g.answered), key=lambda g: list(g.key.values())
    )
    table = error_table("accelerator, framework, mode", shown, lambda g: ", ".join(g.key.values()))
    left = len(facts.validation.groups) - len(shown)
    return f"{table}\n\n{left} groups of fewer than {FEWEST} rows, or without a prediction, are not shown."


def biased(facts: Facts) -> str:
    """Return the groups whose throughput or TPOT is farthest off to one side, in-sample."""
    found = []
    for group in facts.validation.groups:
        for figure in ("output_tok_s_per_gpu", "tpot_ms"):
            ratio = group.median_ratio[figure]
            if ratio is not None and group.compared[figure] >= FEWEST and not 1 / 1.2 <= ratio <= 1.2:
                found.append((abs(math.log(ratio)), group, figure, ratio))
    if not found:
        return "No group of ten rows or more has a median ratio below 0.83 or above 1.20."
    lines = ["| accelerator, framework, mode | rows | figure | predicted / measured |", "| --- | ---: | --- | ---: |"]
    for _, group, figure, ratio in sorted(found, key=lambda each: -each[0]):
        rows = f"{group.compared[figure]:,}"
        lines.append(row([", ".join(group.key.values()), rows, FIGURES[figure], f"{ratio:.2f}"]))
    return "\n".join(lines)


def economics(facts: Facts) -> str:
    """Return the published comparison of cost per token beside tokopt's own points."""
    answer = tokopt.economics(catalog=facts.catalog)
    published, own, held = (
        {each.accelerator: each.tokens_per_s_per_gpu for each in answer.rows if each.basis.value == basis}
        for basis in ("published", "model", "model_as_named")
    )
    lines = [
        "| accelerator | published tok/s/GPU | tokopt | over published | without features not named | over published |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    sides = []
    for name, speed in published.items():
        if name not in own or name not in held:
            continue
        sides.append((speed, own[name], held[name]))
        cells = [f"{speed:,.4g}"]
        cells += [cell for each in sides[-1][1:] for cell in (f"{each:,.0f}", f"{each / speed:.2f}")]
        lines.append(row([name, *cells]))
    if len(sides) > 1:
        first, *others = (last / base for last, base in zip(sides[-1], sides[0], strict=True))
        cells = [cell for each in others for cell in (f"{each:.1f}", f"{each / first:.2f}")]
        lines.append(row(["last over first", f"{first:.1f}", *cells]))
    return "\n".join(lines)


def power(facts: Facts) -> str:
    """Return measured next to predicted power: rows of tables, what was read elsewhere, and the held-out error."""
    made, catalog = facts.calibration, facts.catalog
    table = facts.table.filter(facts.table["power_kw"].is_not_null() & facts.table["predicted_power_kw"].is_not_null())
    lines = ["| measured | kW | predicted, kW | off |", "| --- | ---: | ---: | ---: |"]
    for one in table.sort("id").to_dicts():
        measured, predicted = one["power_kw"], one["predicted_power_kw"]
        cells = [one["id"], f"{measured:.2f}", f"{predicted:.2f}", f"{100 * (predicted / measured - 1):+.1f} %"]
        lines.append(row(cells))
    readings = power_readings(catalog, made, [], [], published=True)
    shares = Shares(*(made.entries[name].value for name in POWER_SHARES))
    off = readings.residuals(shares)
    lines += ["", "| read, an accelerator | W | by the fit, W |", "| --- | ---: | ---: |"]
    for reading, middle_w, residual in zip(catalog.power_readings.values(), readings.measured_w, off, strict=True):
        ends = dict.fromkeys([f"{reading.low_w:.0f}", f"{reading.high_w:.0f}"])
        lines.append(row([reading.title, " to ".join(ends), f"{middle_w * math.exp(residual):.0f}"]))
    lines += ["", "| share | prior | fitted | one standard deviation |", "| --- | ---: | ---: | ---: |"]
    for name in POWER_SHARES:
        entry = made.entries[name]
        ends = [unlinked(linked(entry.value, entry.link) + s * (entry.sd or entry.spread), entry.link) for s in (-1, 1)]
        said = f"{ends[0]:.2f} to {ends[1]:.2f}"
        lines.append(row([f"`{name}`", f"{catalog.priors.entries[name].value:.2f}", f"{entry.value:.2f}", said]))
    for error in (e for e in made.errors if "power_kw_mape" in e):
        mean, median = error["power_kw_mape"], error["power_kw_median_ape"]
        lines += [
            "",
            f"Held out by {SPLITS[str(error['split'])]}: {mean:.1f} % mean, {median:.1f} % median error of "
            f"{error['rows']:.0f} rows.",
        ]
    return "\n".join(lines)


def reasons(facts: Facts) -> str:
    """Return why rows are not predicted."""
    count: Counter[str] = Counter()
    for reason, rows in facts.validation.reasons.items():
        said = re.sub(r"; (did you mean|known:).*", "", reason)
        count[re.sub(r"tp=\d+ does", "a tensor parallel degree that does", said)] += rows
    return "\n".join(f"- {rows:,}: {reason}" for reason, rows in count.most_common()) or "Every row is predicted."


RESIDENT_TOKENS = memory.resident_tokens
# What of the model is left out -> where, and what stands in its place.
TRIALS: Mapping[str, tuple[Any, str, Callable[..., Any]]] = {
    "reservation of the whole output (TensorRT-LLM)": (
        memory,
        "resident_tokens",
        lambda given, out, cv, *, reserved: RESIDENT_TOKENS(given, out, cv, reserved=0.0 * reserved),
    ),
    "waves of closed loops": (closed_loop, "_in_step", lambda size: 0.0 * size.new),
    "queues before decode engines": (
        rows_module,
        "_engine_limit",
        lambda rows, *_: np.full(len(rows.concurrency), np.inf),
    ),
    "traffic of activations": (step, "_activations", lambda *_: lambda tokens: 0.0 * tokens),
    "rounded corner of the roofline": (step, "roofline_s", np.maximum),
    "effects of the harness": (row_predictions, "entry_traits", lambda entries: without_harness(entries)),
}


def without_harness(entries: Sequence[Any]) -> list[dict[str, str]]:
    """Return the traits of entries as those of deployments: nobody's benchmark."""
    return [{name: level for name, level in traits.items() if name != "harness"} for traits in entry_traits(entries)]


def trials(facts: Facts) -> str:
    """Return what errors become, in-sample, where one part of the model is left out and nothing is fitted again."""
    import polars as pl

    harness, mode = pl.col("source"), pl.col("serving_mode")
    fixed = (harness.str.contains("gap-analysis")) & (mode == "agg")
    drawn = (harness.str.contains("InferenceX")) & (mode == "agg")
    closed = pl.col("id").str.starts_with("aic:")
    pools, stated = closed & (mode == "disagg"), pl.col("decode_workers").is_not_null()
    full = pl.col("id").str.starts_with("trtllm-v1.")
    shown = [
        ("reservation of the whole output (TensorRT-LLM)", "TensorRT-LLM 1.0 and 1.2 at saturation", full, [0]),
        ("waves of closed loops", "one pool, fixed lengths", fixed, [1, 2]),
        ("waves of closed loops", "one pool, lengths drawn from 80 to 100 %", drawn, [1, 2]),
        (
            "queues before decode engines",
            "two pools, workers stated",
            pools & stated,
            [2],
        ),
        (
            "queues before decode engines",
            "two pools, workers not stated",
            pools & ~stated,
            [2],
        ),
        ("traffic of activations", "closed loops", closed, [0, 1]),
        ("rounded corner of the roofline", "closed loops", closed, [0, 1]),
        ("effects of the harness", "one pool, fixed lengths", fixed, [0, 1, 2]),
        ("effects of the harness", "one pool, lengths drawn from 80 to 100 %", drawn, [0, 1, 2]),
    ]
    table = facts.catalog.measurements().filter(closed | full)
    names = list(FIGURES)
    lines = [
        f"With calibration `{facts.calibration.version}`:",
        "",
        "| left out | rows | figure | with it | without |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    known = estimate_many(table, catalog=facts.catalog, measured=True)
    for what, (module, attribute, instead) in TRIALS.items():
        with mock.patch.object(module, attribute, instead):
            without = estimate_many(table, catalog=facts.catalog, measured=True)
        for said, rows_said, chosen, figures in (each for each in shown if each[0] == what):
            for name in (names[place] for place in figures):
                moved = (known[f"predicted_{name}"] / without[f"predicted_{name}"]).log().abs() > MOVED
                some = chosen & pl.lit(moved)
                cells = [trial_error(frame, some, name) for frame in (known, without)]
                count = f"{rows_said}: {int(table.select(some.sum()).item()):,}"
                lines.append(row([said, count, FIGURES[name], *cells]))
    return "\n".join(lines)


def trial_error(frame: pl.DataFrame, chosen: pl.Expr, name: str) -> str:
    """Return median ratio, mean and median error of a figure over the chosen rows."""
    import polars as pl

    measured = pl.coalesce(name, "derived_output_tok_s_per_gpu") if name == "output_tok_s_per_gpu" else pl.col(name)
    some = frame.filter(chosen).select(predicted=f"predicted_{name}", measured=measured).drop_nulls()
    found = summarize(some["predicted"], some["measured"], some["predicted"], some["predicted"])
    return f"{found.median_ratio:.2f}: {found.mape_capped:.0f} / {found.median_ape:.0f}" if found.compared else "-"


def error_table(first: str, shown: Sequence[ErrorGroup], said: Callable[[ErrorGroup], str]) -> str:
    """Return groups as a table: median ratio, mean and median error of each figure, and coverage."""
    lines = [
        f"| {first} | rows | tok/s/GPU | TPOT | TTFT | in 80 % range |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for group in shown:
        cells = [said(group), f"{group.answered:,}"]
        for figure in FIGURES:
            mean, median, ratio = (
                getattr(group, name)[figure] for name in ("mape_capped", "median_ape", "median_ratio")
            )
            cells.append("-" if mean is None else f"{ratio:.2f}: {mean:.0f} / {median:.0f}")
        held = [group.interval_coverage_by_figure[figure] for figure in FIGURES]
        cells.append(" / ".join("-" if share is None else f"{share:.0f}" for share in held))
        lines.append(row(cells))
    return "\n".join(lines)


def number(value: Any) -> float:
    """Return a value of the calibration file as a number; not a number where it is absent."""
    return math.nan if value is None else float(value)


def row(cells: Sequence[str]) -> str:
    """Return cells as a row of a table."""
    return ("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |").replace("|  |", "| |")


BLOCKS: Mapping[str, Mapping[str, Body]] = {
    "model.md": {"constants": constants, "effects": effects, "acceptance": acceptance},
    "accuracy.md": {
        "version": version,
        "goals": goals,
        "cross-validated": cross_validated,
        "ranges": ranges,
        "families": families,
        "groups": groups,
        "biased": biased,
        "doubts": doubts,
        "trials": trials,
        "economics": economics,
        "power": power,
        "reasons": reasons,
    },
}
SLOW = ("trials",)  # a check only looks whether they are of this calibration


def rewritten(page: str, text: str, facts: Facts, *, check: bool) -> tuple[str, list[str]]:
    """Return the text of a page with its blocks made anew, and the names of those that changed."""
    bodies = BLOCKS[page]
    named = [found["name"] for found in BLOCK.finditer(text)]
    if sorted(named) != sorted(bodies):
        raise SystemExit(f"docs/{page}: has blocks {', '.join(sorted(named))}; needed are {', '.join(sorted(bodies))}")
    changed = []

    def made(found: re.Match[str]) -> str:
        if check and found["name"] in SLOW and f"`{facts.calibration.version}`" in found["body"]:
            return found[0]
        body = f"\n{bodies[found['name']](facts)}\n\n"
        if body != found["body"]:
            changed.append(found["name"])
        return found["open"] + body + found["close"]

    return BLOCK.sub(made, text), changed


# --- plots ---

# Colours of Okabe and Ito, told apart by the colour-blind, with unlike markers and unlike darkness.
KINDS = (
    ("fixed_concurrency offline", "static batch", "#999999", "x", 8),
    ("max_throughput offline", "saturation", "#56B4E9", "+", 12),
    ("fixed_concurrency agg", "closed loop, one pool", "#0072B2", "o", 6),
    ("fixed_concurrency disagg", "closed loop, two pools", "#D55E00", "^", 10),
    ("latency limits", "under latency limits", "#000000", "s", 9),
)
UNITS = {"output_tok_s_per_gpu": "output tokens/s/GPU", "tpot_ms": "TPOT [ms]", "ttft_ms": "TTFT [ms]"}
AXES = {
    "concurrency_or_batch": "requests in flight",
    "isl": "input tokens",
    "osl": "output tokens",
    "tp": "tensor parallel degree",
}
SHADES = 48


def plotted(facts: Facts) -> pl.DataFrame:
    """Return the rows that are predicted, with kind, age and ln(predicted / measured) of each figure."""
    import polars as pl

    known = facts.catalog.measurement_families
    today = [name for name, family in known.items() if family.of_today]
    static = [name for name, family in known.items() if family.load is Load.STATIC_BATCH]
    family = pl.col("id").str.split(":").list.first()
    kind = pl.concat_str(pl.col("scenario").fill_null(""), pl.lit(" "), pl.col("serving_mode").fill_null(""))
    measured = {figure: pl.col(figure) for figure in FIGURES}
    derived = pl.col("derived_output_tok_s_per_gpu")
    measured["output_tok_s_per_gpu"] = pl.coalesce(pl.col("output_tok_s_per_gpu"), derived)
    return (
        facts.table.filter(pl.col("predicted_reason").fill_null("") == "")
        .with_columns(
            kind=pl.when(pl.col("scenario").is_in(["server", "interactive"]))
            .then(pl.lit("latency limits"))
            .when(pl.col("scenario") == "offline")
            .then(pl.lit("max_throughput offline"))
            .when(family.is_in(static) & (pl.col("scenario") == "fixed_concurrency"))
            .then(pl.lit("fixed_concurrency offline"))
            .otherwise(kind),
            today=family.is_in(today),
            tp=pl.coalesce(pl.col("tp"), pl.col("decode_tp")),
            **{f"measured_{figure}": column for figure, column in measured.items()},
        )
        .with_columns(
            **{f"off_{f}": (pl.col(f"predicted_{f}") / pl.col(f"measured_{f}")).log() for f in FIGURES},
        )
    )


def predicted_against_measured(table: pl.DataFrame) -> Any:
    """Draw predictions over measurements, one panel a figure."""
    import matplotlib.pyplot as plt
    import polars as pl

    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4.8), layout="constrained")
    for axis, name in zip(axes, FIGURES, strict=True):
        both = table.filter(pl.col(f"measured_{name}") > 0, pl.col(f"predicted_{name}") > 0)
        values = both[f"measured_{name}"].to_numpy()
        low, high = values.min() / 2.0, values.max() * 2.0
        ends = np.array([low, high])
        axis.plot(ends, ends, color="black", linewidth=1)
        for factor in (1 / 1.5, 1.5):
            axis.plot(ends, ends * factor, color="black", linewidth=0.8, linestyle=":")
        for kind, label, colour, marker, size in KINDS:
            some = both.filter(pl.col("kind") == kind)
            axis.scatter(
                some[f"measured_{name}"],
                some[f"predicted_{name}"].clip(low * 1.1, high / 1.1),
                s=size,
                c=colour,
                marker=marker,
                linewidths=0.6 if marker in "x+" else 0,
                alpha=0.7,
                label=label,
                rasterized=True,
            )
        axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axis.set_xlabel(f"measured {UNITS[name]}")
        axis.set_ylabel("predicted")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(KINDS), frameon=False, markerscale=2)
    return figure


def residuals_by_number(table: pl.DataFrame) -> Any:
    """Draw ln(predicted / measured) over numbers of a deployment: rows, and median with the middle 80 % of bins."""
    import matplotlib.pyplot as plt
    import polars as pl

    figure, axes = plt.subplots(3, 4, figsize=(13.5, 8.4), layout="constrained", sharex="col", sharey="row")
    for line, name in zip(axes, FIGURES, strict=True):
        for axis, column in zip(line, AXES, strict=True):
            some = table.filter(pl.col("today"), pl.col(f"off_{name}").is_finite(), pl.col(column) > 0)
            x, y = np.log2(some[column].to_numpy()), some[f"off_{name}"].to_numpy()
            spread = np.random.default_rng(0).uniform(-0.2, 0.2, len(x))
            axis.scatter(x + spread, np.clip(y, -1.5, 1.5), s=3, c="#56B4E9", alpha=0.5, linewidths=0, rasterized=True)
            bins = np.round(x)
            for place in np.unique(bins):
                own = y[bins == place]
                if len(own) >= FEWEST:
                    low, middle, high = np.quantile(own, (0.1, 0.5, 0.9))
                    axis.plot([place, place], [low, high], color="black", linewidth=1.3)
                    axis.plot(place, middle, "D", color="#D55E00", markeredgecolor="black", markersize=5)
            axis.axhline(0.0, color="black", linewidth=0.8)
            axis.set_ylim(-1.55, 1.55)
        line[0].set_ylabel(f"ln(predicted / measured)\n{FIGURES[name]}")
    for axis, label in zip(axes[-1], AXES.values(), strict=True):
        axis.set_xlabel(label)
        axis.xaxis.set_major_locator(plt.MaxNLocator(7, integer=True))
        axis.xaxis.set_major_formatter(lambda value, _: f"{2.0**value:,.0f}")
    return figure


def residuals_by_system(table: pl.DataFrame) -> Any:
    """Draw ln(predicted / measured) by system: median, quartiles and the middle 80 %, rows of today and older ones."""
    import matplotlib.pyplot as plt
    import polars as pl

    systems = table.group_by("vendor_system").len().filter(pl.col("len") >= FEWEST)["vendor_system"].sort().to_list()
    systems.reverse()
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 0.27 * len(systems) + 1.6), layout="constrained", sharey=True)
    for axis, name in zip(axes, FIGURES, strict=True):
        known = table.filter(pl.col(f"off_{name}").is_finite())
        for place, system in enumerate(systems):
            for age, colour, shift in ((True, "#0072B2", 0.17), (False, "#E69F00", -0.17)):
                own = known.filter(pl.col("vendor_system") == system, pl.col("today") == age)[f"off_{name}"].to_numpy()
                if len(own) < FEWEST:
                    continue
                ends = np.quantile(own, (0.1, 0.25, 0.5, 0.75, 0.9))
                at = place + shift
                axis.plot(ends[[0, 4]], [at, at], color="black", linewidth=1, zorder=1)
                axis.barh(at, ends[3] - ends[1], left=ends[1], height=0.28, color=colour, edgecolor="black", zorder=2)
                axis.plot([ends[2], ends[2]], [at - 0.14, at + 0.14], color="white", linewidth=2.2, zorder=3)
        axis.axvline(0.0, color="black", linewidth=0.8)
        axis.set(title=FIGURES[name], xlim=(-1.2, 1.2), xlabel="ln(predicted / measured)")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(systems)), systems)
    patches = [plt.Rectangle((0, 0), 1, 1, facecolor=c, edgecolor="black") for c in ("#0072B2", "#E69F00")]
    figure.legend(
        patches,
        ["software of 2025 and 2026", "software of 2023 and 2024"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    return figure


PLOTS = {
    "predicted_against_measured.png": predicted_against_measured,
    "residuals_by_number.png": residuals_by_number,
    "residuals_by_system.png": residuals_by_system,
}


def draw(facts: Facts) -> None:
    """Draw all plots into docs/img, in few shades so that the files stay small."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    IMAGES.mkdir(exist_ok=True)
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    table = plotted(facts)
    for name, plot in PLOTS.items():
        buffer = io.BytesIO()
        figure = plot(table)
        figure.savefig(buffer, format="png", dpi=90)
        plt.close(figure)
        buffer.seek(0)
        with Image.open(buffer) as image:
            image.convert("RGB").quantize(SHADES, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)
        print(f"docs/img/{name}: {(IMAGES / name).stat().st_size / 1000:.0f} kB")


def main(arguments: list[str]) -> int:
    """Rewrite or check the blocks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a block is out of date")
    parser.add_argument("--no-plots", action="store_true", help="rewrite the blocks only")
    chosen = parser.parse_args(arguments)
    facts = Facts(load_catalog())
    stale = []
    for page in BLOCKS:
        path = ROOT / "docs" / page
        text = path.read_text(encoding="utf-8")
        made, changed = rewritten(page, text, facts, check=chosen.check)
        stale += [f"docs/{page}: {name}" for name in changed]
        if changed and not chosen.check:
            path.write_text(made, encoding="utf-8")
    for block in stale:
        print(f"{block}: {'out of date' if chosen.check else 'rewritten'}")
    if chosen.check:
        if stale:
            print("run: python tools/build_calibration_docs.py")
        return 1 if stale else 0
    if not chosen.no_plots:
        draw(facts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
