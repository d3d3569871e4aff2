"""Write docs/catalogs.md from the models that catalog files are checked against.

    python tools/build_catalog_docs.py docs/catalogs.md

Types, bounds, defaults and required keys come from the models. The meaning of a key is its field's description or, for
the models that have none, its entry in `MEANINGS`; a key without either is an error.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokopt.catalog import rows
from tokopt.catalog.calibration_files import (
    CONSTANT_NAMES,
    FIGURES,
    MODES,
    TRAITS,
    AcceptanceRow,
    CalibrationRow,
    EffectRow,
    EntryRow,
    IntervalRow,
    MeasuredRow,
)
from tokopt.catalog.files import Row
from tokopt.catalog.llms import LlmRow, QualityRow
from tokopt.catalog.measurement_files import MeasurementFamilyRow
from tokopt.catalog.measurements import DEPLOYMENT, KNOWN, MEASURED, POWER, TEXTS
from tokopt.catalog.ownership_rows import CapexRow, LotRow, OwnershipRow
from tokopt.catalog.price_formats import own
from tokopt.catalog.price_names import AcceleratorNameRow, MachineNameRow, PriceNamesRow, SliceNameRow
from tokopt.catalog.sites import COLUMNS as SITE_COLUMNS
from tokopt.catalog.speculators import DraftAcceptanceRow, DraftHeadRow, SpeculatorRow
from tokopt.domain.calibration import Novelty
from tokopt.domain.offers import Market

PAGE = """\
# Catalogs

<!-- Made by tools/build_catalog_docs.py from the code that reads the files; change that, not this page. -->

Everything that tokopt knows of hardware, models, prices and places is data in `catalogs/`, in the units that vendors
and price pages use. No code knows an accelerator or a model by its name: adding one is a row. The installed package
carries the same files, and `tokopt catalog list`, `show` and `check` read them.

| file | an entry is |
| --- | --- |
{files}

## Your own entries

`--catalog DIR` on a command, or `tokopt.load_catalog(DIR)`, lays a directory over the embedded catalog. The directory
is laid out like `catalogs/` and holds only what you want to add or change; `tokopt catalog check --catalog DIR` reports
unknown files and everything else that is wrong with it. What wins:

- An entry replaces the embedded entry of the same name, as a whole: keys that are left out are not taken from the
  embedded one. Entries of other names are added.
- `prices/<provider>.csv` replaces that provider's embedded list as a whole.
- `calibration/default.yaml` replaces the embedded constants as a whole; `tokopt calibrate` makes one from measurements.
- A family of measurements (its entry in `measurements/sources.yaml` and its CSV file) replaces the embedded family of
  the same name as a whole.
- The default site is the first of the embedded `sites.yaml`; an entry of that name replaces it.
- Command-line options and arguments of the Python API come before any catalog.

Where several price lists are named together (`--prices aws,./mine.csv`), the first price of a machine, place and market
is kept; the later one is reported as rejected.

Names of files and entries consist of lower-case letters, digits, `.`, `_` and `-`. Names and aliases are matched
without case, and mostly with spaces and underscores read as hyphens. A name comes before an alias; an alias that two
entries share is an error where it is used.

## Adding a row

1. Find the figure where it was first published: a datasheet, a model's repository, a price page. If it is a copy, say
   of what.
2. Add the source to `sources.yaml` (title, publisher, day it was read, and a locator that leads another person to the
   same place: a repository path with its commit, or the name of a document), or reuse its key.
3. Add the entry. An accelerator is a file `accelerators/<name>.yaml`, a model a file `llms/<name>.yaml` whose `config`
   is copied from its `config.json`, a price a row of a provider's CSV file. Leave out the keys whose value is not
   known; a guess has the source `tokopt-assumption`.
4. Name a new accelerator in `frameworks.yaml` under every framework that supports it, and give it a price; without
   either no plan can use it.
5. Run `tokopt catalog check`, then the tests. A plan that now names the new entry is a good sign.

An accelerator without measurements is predicted with the effects of its generation, vendor and other traits where
`calibration/` has them, and with the general constants otherwise; its ranges are those of an unknown system.

## Sources

A row has one `source`, a key in `sources.yaml`, for all of its values; `sources` names the keys of single fields that
differ. Every plan carries the sources of what it used. Price rows have their source in words, and language models name
the file that their architecture was copied from.

## Errors

A wrong file gives one line: file, entry, key, what is wrong, what was found, and how many more faults there are. The
exit status is 2.

```
mine/workloads.yaml: chat: input_tokens: Input should be greater than 0, not -5 (and 1 more)
mine/sites.yaml: home: usd_per_mwh: unknown key (allowed: source, sources, ... usd_per_kwh, carbon_g_per_kwh)
mine/precisions.yaml:14: not valid YAML: key 'ffn_bits' appears twice
```

Unknown keys and a key that is given twice are refused; so are text where a number is needed, infinity and NaN. A
suffix is the unit (`memory_gb`, `board_w`), so a value in another unit has another key and is refused too. Price lists
are the exception: a row that cannot be used is left out and reported with its line and the reason, and only a file of
which nothing can be used is an error.

{sections}"""

COMMON = """\
## Keys of every sourced row

{table}
"""
PRICES = """\
## prices/&lt;provider&gt;.csv

A price list: one row a machine, place and market, with a header row; the order of columns does not matter. A list of
your own needs
{needed};
the others may be missing or empty. Columns that are not in this table are ignored, unless one looks like a misspelt
name of these. Where the embedded snapshot comes from is said in `catalogs/prices/README.md`; files in the formats of
others are the subject of [prices.md](prices.md).

| column | type | meaning |
| --- | --- | --- |
{columns}
"""
SITES = """\
## sites/&lt;table&gt;.csv

States, countries and cloud regions, a site a row; an entry of `sites.yaml` replaces the row of its name. An offer finds
its site by provider and region. The embedded tables are made by `tools/build_sites.py`. All columns are needed, cells
may be empty but for `name` and `pue`: {columns}. A figure and its source (a key in sources.yaml) go together;
`aliases` are separated by semicolons, and `place` names the site that a region lies in.
"""
MEASUREMENTS = """\
## measurements/&lt;family&gt;.csv

Published measurements that `tokopt validate` compares predictions with: one row a run. `measurements/sources.yaml`
describes each family; ids in its file lack the family's name and the colon after it. What all rows of a family share
stands once in `measurements/shared.csv` (columns `family`, `column`, `value`); a shared `source` is what the sources of
the rows begin with. The files are built by `tools/build_measurements.py`. A table of your own for `tokopt validate` is
one CSV or Parquet file with the same columns, `id` and `source` in full or left out.

| column | type |
| --- | --- |
{columns}

An entry of `measurements/sources.yaml`:

{table}
"""
CONSTANTS = """\
### constants

Every one of these has an entry, with the keys of the next table. `link` is the scale on which effects of traits are
added to a value: `log` (ln x) for positive numbers, `logit` (ln(x / (1 - x))) for shares between 0 and 1, `excess`
(ln(x - 1)) for ratios above 1. Values are in SI units. `calibration/priors.yaml`, where a fit starts, is of the same
form.

| constant | meaning |
| --- | --- |
{table}

### effects

`effects.<constant>.<trait>.<level>` is an [effect](#effect). Traits are {traits}, or several of them joined by `+`
(`accelerator+framework`), whose levels are joined in the same way (`h100_sxm+vllm`). `mode`, `harness`, `era`
and `month` are traits of published rows, not of deployments: `agg` or `disagg`, how a benchmark chooses lengths, the
age of its software, and when it was measured. Effects of them act on rows of measurement tables only.

### intervals, measured and cross_validation

An [interval](#interval) is chosen by figure ({figures}), novelty ({novelties}, or `any`) and mode ({modes}): the most
specific one that there is. `cross_validation` has one mapping a set of rows: `split` (what was held out together:
`layout`, `llm`, `system`; `in-sample` = nothing), `rows_of` (family of measurements), `rows`, and for each figure the
mean error, each counted as at most 100 % (`<figure>_mape`), and the median one (`<figure>_median_ape`) [%]; the rows
with power have those of `power_kw`.
"""

# (heading, what an entry is, model, models nested in it)
SECTIONS: tuple[tuple[str, str, type[Row], tuple[type[Row], ...]], ...] = (
    ("sources.yaml", "source of facts", rows.SourceRow, ()),
    (
        "accelerators/<name>.yaml",
        "accelerator with its node and rack",
        rows.AcceleratorRow,
        (rows.PowerCurveRow, rows.PowerSettingRow),
    ),
    ("precisions.yaml", "way to store and multiply weights", rows.PrecisionRow, ()),
    ("kv_precisions.yaml", "way to store a KV cache", rows.KvPrecisionRow, ()),
    ("expert_traffic.yaml", "how unlike the experts of a model are asked for", rows.ExpertTrafficRow, ()),
    (
        "frameworks.yaml",
        "serving framework and what it supports",
        rows.FrameworkRow,
        (rows.FrameworkSupportRow, rows.FeatureLimitRow),
    ),
    ("host_times.yaml", "piece of a host's work for a step, which features hide", rows.HostTimeRow, ()),
    ("llms/<name>.yaml", "language model", LlmRow, (QualityRow,)),
    ("workloads.yaml", "distribution of request lengths", rows.WorkloadRow, (rows.ReuseRow,)),
    (
        "speculators.yaml",
        "way to draft tokens for some models",
        SpeculatorRow,
        (DraftHeadRow, DraftAcceptanceRow),
    ),
    ("benchmarks.yaml", "published benchmark: lengths of its requests, limits of latency", rows.BenchmarkRow, ()),
    ("power_readings.yaml", "power that was read while an accelerator worked", rows.PowerReadingRow, ()),
    (
        "platforms.yaml",
        "what a vendor documents: stages of a model's life, models that are listed",
        rows.PlatformRow,
        (rows.StageRow, rows.ListedModelsRow),
    ),
    ("sites.yaml", "place that machines stand in", rows.SiteRow, ()),
    (
        "price_names.yaml",
        "name that price lists use for a provider, an accelerator or a machine",
        PriceNamesRow,
        (AcceleratorNameRow, SliceNameRow, MachineNameRow),
    ),
    ("ownership/<name>.yaml", "profile of what owning costs", OwnershipRow, (CapexRow, LotRow)),
    (
        "calibration/default.yaml",
        "constant of the performance model, with effects of traits, ranges and pedigree",
        CalibrationRow,
        (EntryRow, EffectRow, IntervalRow, MeasuredRow, AcceptanceRow),
    ),
    (
        "published_economics.yaml",
        "published comparison of cost per token",
        rows.EconomicsRow,
        (rows.EconomicsLineRow, rows.EconomicsFiguresRow),
    ),
)

MEANINGS = {
    QualityRow: {
        "benchmark": "Name of the benchmark",
        "score": "What the checkpoint of this precision scores",
        "original_score": "What the original scores in the same table",
        "note": "Which checkpoint it was, and against what",
        "source": "Where both were read",
    },
    LlmRow: {
        "name": "Name; that of the file",
        "title": "Name as the publisher writes it",
        "aliases": "Other names that people type, such as its repositories",
        "native_precision": "Precision that it was published in",
        "precisions": "Precisions that checkpoints of it are published in",
        "quality": "What published checkpoints of other precisions score, and the original with them",
        "kv_quality": "The same for caches in other precisions, against a cache in 16 bits",
        "kept_wider": "What published checkpoints of a precision leave in a wider one, in words",
        "precision_aliases": "What people call a precision of it by mistake, and the precision that it is",
        "published_total_parameters": "Parameters in all, as published",
        "published_total_resolution": "How far that count may be from what is counted: half a unit of its last digit",
        "published_total_definition": "What that count counts",
        "published_beside_parameters": "Parameters in that count outside the language model, as of a vision tower",
        "published_active_parameters": "Parameters that a token uses, as published",
        "published_active_resolution": "The same as above for this count",
        "published_active_definition": "What that count counts",
        "published_note": "How the counts are to be read",
        "published_source": "Where the counts were published, in words",
        "shipped_mtp_layers": "Multi-token-prediction layers in the checkpoint, where its config announces others",
        "source": "Where `config` was copied from, in words",
        "observed_on": "Day on which it was read",
        "note": "What a reader should know about the values",
        "config": "The keys of the model's Hugging Face `config.json` that decide its architecture, unchanged",
    },
    CalibrationRow: {
        "name": "Name of the set",
        "version": "Version of the set; every plan states it",
        "made_on": "Day on which it was made",
        "data_hash": "Hash of the measurements that it was fitted to; empty = fitted to none",
        "summary": "What was done and how well it predicts, in words",
        "fitted_to": "What it was fitted to, in words and numbers",
        "constants": "One entry a constant, all of them",
        "effects": "How traits of a deployment shift constants: constant to trait to level to effect. The effects of a "
        "trait may be a text with a line for each level: its name, `shift`, `sd` and `rows`",
        "intervals": "80 % ranges of figures",
        "measured": "What the measurements cover; a deployment outside of it is `extrapolated`",
        "cross_validation": "Errors on rows that a fit had not seen, one mapping a set of rows",
        "acceptance": "Chances of draft tokens by language model; `default` is needed",
    },
    EntryRow: {
        "value": "The value before effects",
        "link": "Scale on which effects are added",
        "spread": "Standard deviation of what was believed of the value before any measurement, on that scale",
        "effects": "Traits by which the value may differ, with the prior standard deviation of those differences",
        "sd": "Standard deviation of the fitted value, on that scale; absent for a prior",
        "origin": "How it was obtained",
        "source": "Key in sources.yaml",
        "note": "What a reader should know about it",
    },
    EffectRow: {
        "shift": "What is added to the value, on the scale of its link",
        "sd": "Standard deviation of the shift",
        "rows": "Measurements of that level",
        "origin": "How it was obtained",
        "source": "Key in sources.yaml",
        "note": "What a reader should know about it",
    },
    IntervalRow: {
        "figure": "What it is the range of",
        "novelty": "What of the deployment was never measured",
        "mode": "Kind of deployment or row; `gaps` = rows of tables that leave out workers or speculation",
        "low": "Lower end over the prediction",
        "high": "Upper end over the prediction",
        "rows": "Residuals that it stands on; 0 = an assumption",
    },
    MeasuredRow: {
        "names": "Levels that were measured, by trait",
        "numbers": "Least and most of the lengths and of the requests per accelerator that were measured",
    },
    AcceptanceRow: {
        "chances": "Chance that the first, second, ... draft token is accepted, given that all before it were; below 1",
        "source": "Key in sources.yaml",
        "note": "What a reader should know about them",
    },
}
RULES = {  # between keys: what no single key can say
    rows.AcceleratorRow: "One of `memory_gb` and\n`memory_gib` is needed, and `nodes_per_rack` where racks are bought.",
    DraftAcceptanceRow: "One of the three is\nneeded, `tokens_per_step` with its `depth`. From `cumulative` chances "
    "follow as published; from the others they are solved,\nequal between two depths (geometric).",
    SpeculatorRow: "An `eagle3` has a `head`, a `draft_model` an `llm`, and both a `precision`; an `ngram` has none.",
    rows.PowerSettingRow: "Exactly one of `cap_w` and `clock_mhz` is needed; the accelerator needs a `power_curve`.",
}
CONSTANT_MEANINGS = {
    "memory_efficiency": "Sustained over peak bandwidth of device memory while weights are read",
    "expert_memory_efficiency": "The same for experts' weights, relative to that",
    "kv_efficiency": "Sustained over peak bandwidth while the KV cache is read",
    "bf16_efficiency": "Sustained over peak rate of large matrix products in 16 bits",
    "fp8_efficiency": "The same in FP8",
    "fp4_efficiency": "The same in FP4",
    "int8_efficiency": "The same in INT8",
    "grouped_gemm_efficiency": "Rate of experts' products over that of dense ones",
    "attention_efficiency": "Sustained over peak rate of attention's score and value products while decoding",
    "prefill_attention_efficiency": "The same for prompts",
    "scale_up_efficiency": "Sustained over peak bandwidth inside a scale-up domain",
    "scale_out_efficiency": "Sustained over peak bandwidth between domains",
    "scale_up_latency_s": "Latency of an all-reduce between two accelerators of a scale-up domain [s]",
    "latency_growth": "Growth of that latency a doubling of the group, relative to it",
    "exchange_latency_s": "Latency of the dispatch or the combine of an all-to-all inside a domain [s]",
    "scale_out_latency_s": "Latency of a collective between domains [s]",
    "activation_passes": "Times that a token's hidden vector is read or written a layer, besides the products",
    "layer_overhead_s": "Launches that do not overlap, a layer [s]",
    "expert_layer_overhead_s": "On top of it for a layer with routed experts [s]",
    "linear_layer_overhead_s": "On top of it for a layer with recurrent attention [s]",
    "sparse_layer_overhead_s": "On top of it for a layer that chooses the tokens it attends to [s]",
    "step_overhead_s": "Scheduler and sampling, a step [s]",
    "sequence_overhead_s": "Scheduler and sampling, a running sequence and step [s]",
    "request_overhead_s": "Front end, tokenizer and first scheduling, a request [s]",
    "expert_imbalance": "Load of the fullest accelerator over the mean where experts are spread",
    "rank_imbalance": "Share of a prefill that the other attention ranks wait for",
    "pipeline_bubble": "Idle share of a long pipeline, as micro-batches differ",
    "mixing": "Share of prefill work that rides along in decode steps",
    "slowdown": "Time of a step over the sum of its parts: what is left of kernels and layers that differ",
    "wave_share": "How far requests of a closed loop move in step",
    "prefill_wave_share": "The same where prefill has a pool of its own",
    "prefill_pool_efficiency": "Share of its rate that a pool of prefill workers keeps up",
    "handover_s": "Routing and scheduling a request a second time when it changes pools, besides the transfer [s]",
    "reserved_bytes": "Memory for the framework, communication buffers and CUDA graphs [B]",
    "memory_bound_power_share": (
        "Share of the span from idle to board power that is drawn while memory traffic alone fills a step"
    ),
    "compute_bound_power_share": "The same while matrix units alone fill it",
    "host_power_share": "Share of what a server's nameplate has beyond its boards, drawn whenever it is on",
    "unlabelled_speculation": (
        "Habit of tables: tokens beyond the first of a step where "
        "a row may or may not speculate, at 64 requests in flight"
    ),
    "unlabelled_decline": "Habit of tables: how that falls with concurrency, -d ln / d ln",
    "unstated_decode_workers": "Habit of tables: decode workers of a row that does not say how many",
    "unstated_prefill_share": "Habit of tables: prefill workers of such a row over what its decode workers ask for",
    "oversubscription": (
        "Habit of tables: share of the requests in flight that queue before "
        "the engine, in such a row whose concurrency is no power of two"
    ),
}
PRICE_COLUMNS = {
    "provider": ("text", "Who sells it; empty = the name of the file"),
    "region": ("text", "The provider's name of the region; empty = not stated"),
    "zone": ("text", "The provider's name of the zone; empty = the price holds for the region"),
    "instance_type": ("text", "The provider's name of the machine; empty = count and accelerator"),
    "accelerator": ("text", "Name, alias or price name of an accelerator"),
    "accelerator_count": ("whole number >= 1", "Accelerators in the machine; empty = 1"),
    "market": (" or ".join(f"`{market}`" for market in Market), "Terms; empty = `on_demand`"),
    "usd_per_hour": ("number > 0", "Price of the whole machine [USD/h]"),
    "usd_per_accelerator_hour": ("number > 0", "Price of one of its accelerators [USD/h]"),
    "price_per_hour": ("number > 0", "The same as `usd_per_hour`, in `currency`"),
    "price_per_accelerator_hour": ("number > 0", "The same as `usd_per_accelerator_hour`, in `currency`"),
    "currency": (
        "code of three letters",
        "Currency of the prices; empty = USD, others need a rate (`--rate EUR=1.08`)",
    ),
    "as_of": ("text", "Date of the price; a bare year where only that is known"),
    "available_units": ("whole number >= 0", "Machines that can be had; empty = not stated, 0 = out of stock"),
    "source": ("text", "Where the price was read; empty = the name of the file"),
    "note": ("text", "What to know about the row"),
}


def page() -> str:
    """Return the whole page."""
    files = [(heading, said) for heading, said, _, _ in SECTIONS]
    files.insert(-2, ("prices/<provider>.csv", "price of a machine, in a place and a market"))
    files.append(("sites/<table>.csv", "state, country or cloud region"))
    files.append(("measurements/<family>.csv", "published measurement of a deployment"))
    sections = [COMMON.format(table=key_table(rows.SourcedRow, keep_sourced=True))]
    for heading, _, row, nested in SECTIONS:
        if row is CalibrationRow:
            sections.append(price_section())
        sections.append(section(heading, row, nested))
        if row is rows.SiteRow:
            sections.append(SITES.format(columns=in_code(SITE_COLUMNS)))
    sections.append(measurement_section())
    listed = "\n".join(f"| `{name}` | {said} |" for name, said in files)
    return PAGE.format(files=listed, sections="\n".join(sections))


def section(heading: str, row: type[Row], nested: tuple[type[Row], ...]) -> str:
    """Return the section of one file."""
    text = f"## {escaped(heading)}\n\n{introduction(row)}\n\n{key_table(row)}\n"
    if row is CalibrationRow:
        text += "\n" + CONSTANTS.format(
            table="\n".join(constant_lines()),
            traits=in_code(TRAITS),
            figures=in_code(FIGURES),
            novelties=in_code([novelty.value for novelty in Novelty]),
            modes=in_code(MODES),
        )
    for inner in nested:
        text += f"\n### {in_words(inner.__name__)}\n\n{introduction(inner)}\n\n{key_table(inner)}\n"
    return text


def in_code(names: Sequence[str]) -> str:
    """Return names as code, one after another."""
    return ", ".join(f"`{name}`" for name in names)


def introduction(row: type[Row]) -> str:
    """Return what a model's docstring says, and which keys are listed elsewhere."""
    said = re.sub(r" \([\w/<>]+\.yaml\)", "", inspect.cleandoc(row.__doc__ or ""))
    rule = f" {RULES[row]}" if row in RULES else ""
    return said + rule + ("\n\nAlso the keys of every sourced row." if issubclass(row, rows.SourcedRow) else "")


def in_words(name: str) -> str:
    """Return the name of a nested model as the page writes it: `EconomicsLineRow` is an economics line."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name.removesuffix("Row")).lower()


def key_table(row: type[Row], *, keep_sourced: bool = False) -> str:
    """Return a model's keys as a table: key, type with unit, required or default, meaning."""
    schema = row.model_json_schema()
    definitions = schema.get("$defs", {})
    shared = set() if keep_sourced or not issubclass(row, rows.SourcedRow) else set(rows.SourcedRow.model_fields)
    lines = ["| key | type | required | meaning |", "| --- | --- | --- | --- |"]
    for key, field in schema["properties"].items():
        if key in shared:
            continue
        meaning, unit = split_unit(field.get("description") or MEANINGS.get(row, {}).get(key) or missing(row, key))
        kind = kind_of(field, definitions) + (f" [{unit}]" if unit else "")
        lines.append(f"| `{key}` | {kind} | {required(key, field, schema)} | {escaped(meaning)} |")
    return "\n".join(lines)


def missing(row: type[Row], key: str) -> str:
    """Raise for a key that nobody described."""
    raise SystemExit(f"{row.__name__}.{key}: no description in its field, and none in MEANINGS")


def split_unit(description: str) -> tuple[str, str]:
    """Return a description without its unit in square brackets, and the unit."""
    found = re.search(r" *\[([^]]+)\]", description)
    return (description.replace(found[0], "", 1), found[1]) if found else (description, "")


def required(key: str, field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return `yes`, or `no` with the default where it says something."""
    if key in schema.get("required", ()):
        return "yes"
    default = field.get("default")
    if isinstance(default, bool | str) and default != "":
        return f"no ({str(default).lower()})"
    return "no" if default in (None, "") or isinstance(default, list | dict) else f"no ({default:g})"


def kind_of(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a JSON schema as words."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        target = definitions[name]
        return kind_of(target, definitions) if "enum" in target else linked(in_words(name))
    if "anyOf" in field:
        kinds = [kind_of(option, definitions) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "")
    if kind == "array" and "prefixItems" in field:
        return "pair of " + kind_of(field["prefixItems"][0], definitions) + "s"
    if kind == "array":
        return f"list of {kind_of(field['items'], definitions)}"
    if kind == "object":
        keys, values = field.get("propertyNames"), field.get("additionalProperties")
        of = f"{kind_of(keys, definitions)} to " if keys else "name to "
        return f"mapping of {of}{kind_of(values, definitions)}" if isinstance(values, dict) else "mapping"
    if kind in ("number", "integer"):
        return f"{'whole number' if kind == 'integer' else kind} {' and '.join(bounds(field))}".strip()
    return {"string": "date" if field.get("format") == "date" else "text", "boolean": "true or false"}[kind]


def linked(heading: str) -> str:
    """Return a link to a heading of the page."""
    return f"[{heading}](#{heading.replace(' ', '-')})"


def bounds(field: dict[str, Any]) -> Iterator[str]:
    """Yield the bounds of a number."""
    for key, sign in (("exclusiveMinimum", ">"), ("minimum", ">="), ("exclusiveMaximum", "<"), ("maximum", "<=")):
        if key in field:
            yield f"{sign} {field[key]:g}"


def constant_lines() -> Iterator[str]:
    """Yield one table row a constant."""
    unknown = set(CONSTANT_NAMES) ^ set(CONSTANT_MEANINGS)
    if unknown:
        raise SystemExit(f"CONSTANT_MEANINGS and the code disagree on: {', '.join(sorted(unknown))}")
    for name in CONSTANT_NAMES:
        yield f"| `{name}` | {CONSTANT_MEANINGS[name]} |"


def price_section() -> str:
    """Return the section of price lists."""
    unknown = set(own.COLUMNS) ^ set(PRICE_COLUMNS)
    if unknown:
        raise SystemExit(f"PRICE_COLUMNS and the code disagree on: {', '.join(sorted(unknown))}")
    needed = ", or ".join(" and ".join(f"`{name}`" for name in sorted(some)) for some in own.NEEDED)
    columns = "\n".join(f"| `{name}` | {PRICE_COLUMNS[name][0]} | {PRICE_COLUMNS[name][1]} |" for name in own.COLUMNS)
    return PRICES.format(needed=needed, columns=columns)


def measurement_section() -> str:
    """Return the section of measurements."""
    units = {name: limits.unit for name, limits in {**MEASURED, **POWER}.items()}
    units |= {"tok_s_user": "tokens/s/user", "total_tok_s_per_gpu": "tokens/s/GPU"}
    units |= {name: unit for name, unit in DEPLOYMENT.items() if unit and not unit.startswith("as ")}
    kinds = ("text" if n in TEXTS else f"number [{units[n]}]" if n in units else "number" for n in KNOWN)
    columns = "\n".join(f"| `{name}` | {kind} |" for name, kind in zip(KNOWN, kinds, strict=True))
    return MEASUREMENTS.format(columns=columns, table=key_table(MeasurementFamilyRow))


def escaped(text: str) -> str:
    """Return text with angle brackets that Markdown would take for tags written out."""
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
