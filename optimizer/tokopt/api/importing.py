"""`import`: results of other tools as rows of measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.catalog.measurements import KNOWN
from tokopt.catalog.result_formats import MOST_COUNTED, STATISTICS, read_results
from tokopt.domain.deployments import Layout, Pool, ServingMode
from tokopt.domain.importing import ImportedResults, MeasuredRun, ResultTool
from tokopt.domain.plans import FleetItem, Plan
from tokopt.errors import InputError, not_one_of
from tokopt.units import MS

from .checking import read_plan
from .pools import asked_pools
from .written import write_table

DEGREES = ("tp", "pp", "ep", "dp", "cp", "dcp")
KEPT_UP = 0.95  # share of the rate that was asked for, below which throughput says how a run began and ended
CLOSED, OPEN = "fixed_concurrency", "arrivals"
OPTIONS = {  # column -> option that gives it, where a file and a plan may leave it out
    "vendor_system": "--accelerator",
    "model": "--model",
    "framework": "--framework",
    "isl": "--isl",
    "osl": "--osl",
    "concurrency_or_batch": "--concurrency",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What is said besides a file: by options first, by an item of a plan then.

    Lengths and load are the file's own where it says them: they are of what was sent, not of what served it.
    """

    columns: Mapping[str, Any]  # of options
    planned: Mapping[str, Any]  # of the plan
    rate: float | None = None  # planned requests/s of one replica
    notes: tuple[str, ...]


def import_results(
    tool: str,
    results: str | Path | Sequence[str | Path],
    *,
    plan: Plan | str | Path | Mapping[str, Any] | None = None,
    item: int | None = None,
    out: str | Path | None = None,
    accelerator: str | None = None,
    model: str | None = None,
    framework: str | None = None,
    framework_version: str | None = None,
    precision: str | None = None,
    kv_precision: str | None = None,
    tp: int | None = None,
    pp: int | None = None,
    ep: int | None = None,
    dp: int | None = None,
    prefill: str | None = None,
    decode: str | None = None,
    gpus: int | None = None,
    isl: float | None = None,
    osl: float | None = None,
    prefix_share: float | None = None,
    concurrency: float | None = None,
    rate: float | None = None,
    stat: str = "mean",
    catalog: str | Catalog | None = None,
) -> ImportedResults:
    """Return results of benchmarks as rows in the columns that `validate` and `calibrate` read.

    What served the requests is taken from the arguments first, then from an item of a plan whose replica was measured,
    and then from the file; lengths and load are taken from the file where it says them.

    Args:
        tool: Who wrote them: `aiperf`, `guidellm`, `vllm-bench` or `inferencex`.
        results: A file or several.
        plan: The plan that was measured: a record, its JSON as a mapping, or the path of a plan file.
        item: Which item of its fleet, from 1; None = the only one.
        out: File for the rows; `.parquet` or CSV.
        accelerator: What it ran on.
        model: What was served, where the file's name of it is another.
        framework: What served it.
        framework_version: Its version, for the record.
        precision: Of the weights.
        kv_precision: Of the cache.
        tp: Tensor-parallel degree.
        pp: Pipeline stages.
        ep: Expert-parallel degree.
        dp: Attention-data-parallel ranks.
        prefill: Prefill pool where it is apart, like `2xtp4`; goes with `decode`.
        decode: Decode pool, like `1xtp8`.
        gpus: Accelerators of all that was measured; None = of the layout.
        isl: Mean input tokens, where the file does not say.
        osl: Mean output tokens.
        prefix_share: Share of input tokens that caches found.
        concurrency: Mean requests in flight, where the file does not say.
        rate: Requests/s that were sent, where the file does not say.
        stat: Which statistic of latencies: `mean`, `p50`, `p75`, `p90`, `p95` or `p99`.
        catalog: A catalog or an overlay directory; None = what the plan's request names.

    Raises:
        InputError: In one line, with file and field: not a result of the tool, or something that nobody says.
    """
    if tool not in list(ResultTool):
        raise not_one_of("tool", str(tool), [each.value for each in ResultTool])
    if stat not in STATISTICS:
        raise not_one_of("--stat", str(stat), STATISTICS)
    files = [results] if isinstance(results, (str, Path)) else list(results)
    if not files:
        raise InputError("no result file is named")
    read = None if plan is None else read_plan(plan)
    loaded = (
        catalog if isinstance(catalog, Catalog) else load_catalog(catalog or (read.request.catalog if read else None))
    )
    options = {
        "vendor_system": accelerator, "model": model, "framework": framework, "framework_version": framework_version,
        "weight_precision": precision, "kv_precision": kv_precision, "tp": tp, "pp": pp, "ep": ep, "dp": dp,
        "n_gpus": gpus, "isl": isl, "osl": osl, "prefix_share": prefix_share,
    }  # fmt: skip
    _require_sound({"isl": isl, "osl": osl, "concurrency": concurrency, "rate": rate}, prefix_share)
    stated = _stated(loaded, options, asked_pools(prefill, decode), read, item)
    rows, notes = [], list(stated.notes)
    for file in files:
        for number, run in enumerate(read_results(ResultTool(tool), file), 1):
            row_id = f"{tool}:{Path(file).stem}:{number}"
            row, said = _row(loaded, run, stated, stat=stat, asked=(concurrency, rate), row_id=row_id)
            rows.append(row)
            notes += said
    found = ImportedResults(
        tool=ResultTool(tool),
        files=tuple(str(file) for file in files),
        rows=tuple(_same_columns(rows)),
        notes=tuple(dict.fromkeys(notes)),
    )
    if out is not None:
        import polars as pl

        write_table(pl.DataFrame(list(found.rows), infer_schema_length=None), out)
    return found


def _same_columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    used = [name for name in KNOWN if any(row.get(name) is not None for row in rows)]
    for row in rows:
        yield {name: row.get(name) for name in used}


# --- what is said besides a file ---


def _require_sound(above_zero: Mapping[str, float | None], prefix_share: float | None) -> None:
    """Refuse options that no measurement can have.

    Raises:
        InputError: One is not above 0 and finite, or no share.
    """
    for name, value in above_zero.items():
        if value is not None and not 0.0 < value < math.inf:
            raise InputError(f"--{name}: {value:g} is not a number above 0")
    if prefix_share is not None and not 0.0 <= prefix_share <= 1.0:
        raise InputError(f"--prefix-share: {prefix_share:g} is not a share between 0 and 1")


def _stated(
    catalog: Catalog,
    options: Mapping[str, Any],
    pools: tuple[Pool, Pool] | None,
    plan: Plan | None,
    number: int | None,
) -> Stated:
    given = {name: value for name, value in options.items() if value is not None}
    for degree in (*DEGREES, "n_gpus"):
        if degree in given and not 1 <= given[degree] <= MOST_COUNTED:
            option = "gpus" if degree == "n_gpus" else degree
            raise InputError(f"--{option}: {given[degree]} is not 1 or more, up to {MOST_COUNTED:,}")
    if pools is not None:
        apart = [name for name in DEGREES if name in given]
        if apart:
            raise InputError(f"--{apart[0]} is of one pool, --prefill and --decode are of two: give one of them")
        given |= _columns_of(*pools)
    if plan is None:
        if number is not None:
            raise InputError("--item goes with --plan PLAN.json")
        return Stated(columns=given, planned={}, notes=())
    item = _item(plan, number)
    planned, notes = _planned(catalog, plan, item)
    if any(name in given or f"decode_{name}" in given for name in DEGREES):
        layout = {f"{pool}{name}" for pool in ("", "prefill_", "decode_") for name in (*DEGREES, "workers")}
        planned = {name: value for name, value in planned.items() if name not in {*layout, "n_gpus", "serving_mode"}}
    return Stated(columns=given, planned=planned, rate=item.busiest_requests_per_s, notes=tuple(notes))


def _item(plan: Plan, number: int | None) -> FleetItem:
    if not plan.fleet:
        raise InputError("--plan: the plan has no fleet: it is infeasible, so nothing of it was measured")
    if number is None and len(plan.fleet) > 1:
        raise InputError(f"--item is missing: the plan's fleet has {len(plan.fleet)} items, 1 to {len(plan.fleet)}")
    if number is not None and not 1 <= number <= len(plan.fleet):
        raise InputError(f"--item {number}: the plan's fleet has 1 to {len(plan.fleet)}")
    return plan.fleet[(number or 1) - 1]


def _planned(catalog: Catalog, plan: Plan, item: FleetItem) -> tuple[dict[str, Any], list[str]]:
    """Return the columns of one replica of an item, and what they leave out."""
    deployment, notes = item.deployment, []
    asked = plan.request.class_named(next(iter(item.share_of_traffic), ""))
    columns: dict[str, Any] = {
        "vendor_system": catalog.accelerator(item.accelerator).name,
        "model": item.model,
        "framework": item.framework,
        "weight_precision": item.precision,
        "kv_precision": item.kv_precision,
        "n_gpus": item.gpus_per_replica,
        "speculative": "none",
    }
    if deployment.mode is ServingMode.AGG:
        assert deployment.layout is not None
        columns |= {"serving_mode": "agg", **_degrees(deployment.layout, "")}
    else:
        assert deployment.prefill is not None and deployment.decode is not None
        columns |= _columns_of(deployment.prefill, deployment.decode)
        if deployment.mixed:
            notes.append(f"prefill workers run on {deployment.prefill_accelerator}, which a row cannot say")
    if deployment.speculation_depth:
        columns["speculative"] = deployment.speculator or "mtp"
        if deployment.speculator is None:
            columns["mtp_depth"] = deployment.speculation_depth
        else:
            notes.append(f"rows name {deployment.speculator}, but predictions of rows know no drafts but MTP's")
    if asked is not None:
        columns["model"] = asked.llm
    if deployment.caching is not None:
        columns["prefix_share"] = deployment.caching.hit_share
    elif asked is not None and asked.workload.prefix_share:
        columns["prefix_share"] = asked.workload.prefix_share
    return columns, notes


def _columns_of(prefill: Pool, decode: Pool) -> dict[str, Any]:
    columns: dict[str, Any] = {"serving_mode": "disagg"}
    for name, pool in (("prefill", prefill), ("decode", decode)):
        columns |= {f"{name}_workers": pool.workers, **_degrees(pool.layout, f"{name}_")}
    return columns


def _degrees(layout: Layout, prefix: str) -> dict[str, int]:
    return {f"{prefix}{name}": getattr(layout, name) for name in DEGREES}


# --- rows ---


def _row(
    catalog: Catalog,
    run: MeasuredRun,
    stated: Stated,
    *,
    stat: str,
    asked: tuple[float | None, float | None],
    row_id: str,
) -> tuple[dict[str, Any], list[str]]:
    """Return the row of a run, and what to know about it.

    Raises:
        InputError: Nobody says something that a row needs.
    """
    file = {"model": run.model, "isl": run.input_tokens, "osl": run.output_tokens, **run.facts}
    said = {name: value for name, value in file.items() if value is not None}
    row: dict[str, Any] = {**said, **stated.planned, **stated.columns}
    for name in ("isl", "osl"):
        row[name] = said.get(name, stated.columns.get(name))
    _require(run, row)
    _canonical(catalog, run, row)
    row["n_gpus"] = row.get("n_gpus") or _accelerators(row)
    if max(row["n_gpus"], _accelerators(row)) > MOST_COUNTED:
        raise InputError(f"{run.where}: the layout has more than {MOST_COUNTED:,} accelerators, which nobody measured")
    row.setdefault("serving_mode", "agg")
    notes = _load(run, row, asked, stated.rate)
    _measured(run, row, stat, notes)
    row |= {"id": row_id, "source": Path(run.where.split(": ")[0]).name, "stat": stat, "measured_date": run.measured_on}
    if run.cut_short:
        notes.append(f"{run.where}: the run was cut short")
    if run.failed:
        notes.append(f"{run.where}: {run.failed:,} of {run.failed + (run.requests or 0):,} requests failed")
    return row, notes


def _require(run: MeasuredRun, row: Mapping[str, Any]) -> None:
    for name, what in (
        ("vendor_system", "the accelerator"), ("model", "the model"), ("framework", "the framework"),
        ("isl", "the input tokens"), ("osl", "the output tokens"),
    ):  # fmt: skip
        if row.get(name) in (None, ""):
            plan = "" if name in ("isl", "osl") else " (or --plan PLAN.json)"
            raise InputError(f"{run.where}: does not say {what}: give {OPTIONS[name]}{plan}")
        if name in ("isl", "osl") and not row[name] >= 1:
            raise InputError(f"{run.where}: {name} of {row[name]:g} tokens is below 1")


def _canonical(catalog: Catalog, run: MeasuredRun, row: dict[str, Any]) -> None:
    """Bring names to the catalog's own.

    Raises:
        InputError: It does not have one.
    """
    find: Mapping[str, Callable[[str], str]] = {
        "vendor_system": lambda name: catalog.accelerator(name).name,
        "model": lambda name: _llm_name(catalog, name),
        "framework": lambda name: catalog.framework(name).name,
        "weight_precision": lambda name: catalog.precision(name).name,
        "kv_precision": lambda name: catalog.kv_precision(name).name,
    }
    for column, named in find.items():
        if row.get(column):
            try:
                row[column] = named(str(row[column]))
            except InputError as error:
                option = OPTIONS.get(column, f"--{column.removeprefix('weight_').replace('_', '-')}")
                raise InputError(f"{run.where}: {column}: {error} (or give {option})") from None


def _llm_name(catalog: Catalog, name: str) -> str:
    """Return the catalog's name of a model; one that was named by its configuration's path keeps that.

    Raises:
        InputError: There is no such model.
    """
    found = catalog.llm(name).name
    return name if Path(name).suffix == ".json" else found


def _accelerators(row: Mapping[str, Any]) -> int:
    """Return the accelerators of a layout."""

    def worker(prefix: str) -> int:
        size = 1
        for name in ("tp", "pp", "dp", "cp"):
            size *= int(row.get(f"{prefix}{name}") or 1)
        return size

    if row.get("serving_mode") == "disagg":
        return sum(int(row.get(f"{pool}_workers") or 1) * worker(f"{pool}_") for pool in ("prefill", "decode"))
    return worker("")


def _load(
    run: MeasuredRun, row: dict[str, Any], asked: tuple[float | None, float | None], planned: float | None
) -> list[str]:
    """Fill in what loaded the deployment: requests in flight, and the rate that was sent where there was one.

    What is asked for counts where the file does not say it.

    Raises:
        InputError: The file does not say, and nor does anybody else.
    """
    said = bool(run.concurrency or run.rate)
    concurrency, rate = (run.concurrency, run.rate) if said else asked
    if not (concurrency or rate or run.in_flight):
        rate = planned  # requests that came at stated times came at the plan's
    row["request_rate"] = rate
    row["scenario"] = CLOSED if rate is None else OPEN
    if concurrency and rate is None:
        row["concurrency_or_batch"] = concurrency
        return []
    arrived = rate or run.requests_per_s
    whole = _whole_ms(run, row)
    in_flight = run.in_flight or asked[0] or (arrived * whole * MS if arrived and whole else None)
    if not in_flight:
        raise InputError(f"{run.where}: does not say how many requests were in flight: give --concurrency")
    row["concurrency_or_batch"] = round(max(in_flight, 1.0), 3)
    if rate is None:
        return [f"{run.where}: does not say its load; {in_flight:,.1f} requests were in flight on average"]
    return [
        f"{run.where}: {rate:g} requests/s were sent; predictions of rows take the {in_flight:,.1f} requests that were "
        "in flight on average"
    ]


def _whole_ms(run: MeasuredRun, row: Mapping[str, Any]) -> float | None:
    """Return the mean time of an answer: stated, or of a first token and those after it."""
    if "mean" in run.e2e_ms:
        return run.e2e_ms["mean"]
    if "mean" in run.ttft_ms and "mean" in run.tpot_ms:
        return run.ttft_ms["mean"] + run.tpot_ms["mean"] * max(float(row["osl"]) - 1.0, 0.0)
    return None


def _measured(run: MeasuredRun, row: dict[str, Any], stat: str, notes: list[str]) -> None:
    """Fill in what was measured.

    Raises:
        InputError: Nothing was, or not that statistic.
    """
    for column, values in (("ttft_ms", run.ttft_ms), ("tpot_ms", run.tpot_ms)):
        if values and stat not in values:
            raise InputError(f"{run.where}: has no {stat} of {column}; it has {', '.join(values)}: give --stat")
        row[column] = values.get(stat)
    if row["tpot_ms"]:
        row["tok_s_user"] = 1e3 / row["tpot_ms"]
    accelerators = float(row["n_gpus"])
    output, total = run.output_tok_per_s_per_gpu, run.total_tok_per_s_per_gpu
    if output is None and run.output_tok_per_s is not None:
        output = run.output_tok_per_s / accelerators
        total = run.total_tok_per_s / accelerators if run.total_tok_per_s is not None else None
    rate = row.get("request_rate")
    if rate and run.requests_per_s is not None and run.requests_per_s < KEPT_UP * rate:
        notes.append(
            f"{run.where}: {run.requests_per_s:.4g} requests/s were answered of {rate:g} sent: how the run began and "
            "ended, or an overload; its throughput is left out"
        )
        output = total = None
    row["output_tok_s_per_gpu"], row["total_tok_s_per_gpu"] = output or None, total or None
    if not any(row[name] for name in ("ttft_ms", "tpot_ms", "output_tok_s_per_gpu")):
        raise InputError(f"{run.where}: nothing was measured: neither latencies nor throughput are stated")
