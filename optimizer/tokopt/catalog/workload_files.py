"""Files that say what has to be served: classes of requests, their lengths as a histogram or a trace, and periods."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from tokopt.catalog.files import Row, read_yaml, validate
from tokopt.catalog.trace_files import open_trace
from tokopt.catalog.trace_formats import COLUMNS
from tokopt.domain.speculators import Domain
from tokopt.domain.traces import joined
from tokopt.domain.workloads import LEAST_BURSTINESS, MOST_BURSTINESS
from tokopt.errors import CatalogError

if TYPE_CHECKING:
    import polars as pl

MOST_SPLIT = 20


class PriceRow(Row):
    """What a million tokens earn."""

    input: str | float = 0.0
    output: str | float = 0.0


class HistogramRow(Row):
    """One bin of a histogram of lengths."""

    input_tokens: float = Field(ge=1)
    output_tokens: float = Field(ge=1)
    share: float = Field(gt=0)


class ClassRow(Row):
    """One class of requests, in the words of `tokopt plan`."""

    model: str = ""
    workload: str = ""  # of the catalog; or lengths of its own:
    input_tokens: float | None = Field(default=None, ge=1, lt=1e9)
    output_tokens: float | None = Field(default=None, ge=1, lt=1e9)
    input_cv: float | None = Field(default=None, ge=0, le=10)
    output_cv: float | None = Field(default=None, ge=0, le=10)
    prefix_share: float | None = Field(default=None, ge=0, le=1)
    reuse: str | None = None  # as in --reuse
    burstiness: float | None = Field(  # variation of times between arrivals, squared
        default=None, ge=LEAST_BURSTINESS, le=MOST_BURSTINESS
    )
    domain: Domain | None = None  # what the texts are about
    histogram: str | tuple[HistogramRow, ...] | None = None
    trace: str | None = None
    split: int = Field(default=1, ge=1, le=MOST_SPLIT)  # classes by length, each on replicas of its own
    demand: str | float | None = None
    sla: str | None = None
    price: PriceRow = PriceRow()
    max_quality_loss: str | float | None = None


class PeriodRow(Row):
    """One period of the horizon."""

    name: str = Field(min_length=1)
    hours: float = Field(gt=0)
    demand: float | dict[str, float] = 1.0  # factor on every class, or by class
    prices: dict[str, float] = Field(default_factory=dict)  # factor by market
    start_hour: float | None = Field(default=None, ge=0, lt=24)  # for electricity that is priced by the hour
    starts_on: str = ""
    electricity: float = Field(default=1.0, ge=0)
    carbon: float = Field(default=1.0, ge=0)

    @field_validator("starts_on", mode="before")
    @classmethod
    def _day(cls, value: Any) -> str:
        if isinstance(value, datetime.date):
            return value.isoformat()
        try:
            return datetime.date.fromisoformat(str(value)).isoformat() if value else ""
        except ValueError:
            raise ValueError("a date is needed, like 2027-03-01") from None


class WorkloadsRow(Row):
    """A workloads file."""

    workloads: dict[str, ClassRow] = Field(min_length=1)
    periods: tuple[PeriodRow, ...] = ()
    hourly_demand: tuple[float, ...] = ()  # 24 factors: the hours of a day


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Requests with lengths and weights, and how they arrive."""

    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    weight: NDArray[np.float64]
    requests_per_s: float | None = None  # of a trace
    arrival_cv2: float | None = None


def read_workloads(source: str | Path | Mapping[str, Any]) -> tuple[WorkloadsRow, Path]:
    """Return a workloads file, or such a mapping, and the folder that its paths start from.

    Raises:
        InputError: In one line with file and key.
    """
    where, folder, data = "workloads", Path.cwd(), source
    if isinstance(source, (str, Path)):
        where, folder = str(source), Path(source).resolve().parent
        data = read_yaml(Path(source))
    row = validate(WorkloadsRow, data, where=where)
    if row.periods and row.hourly_demand:
        raise CatalogError(f"{where}: periods and hourly_demand both say when: give one of them")
    if row.hourly_demand and len(row.hourly_demand) != 24:
        raise CatalogError(f"{where}: hourly_demand: 24 factors are needed, not {len(row.hourly_demand)}")
    if any(not 0.0 <= factor < np.inf for factor in row.hourly_demand):
        raise CatalogError(f"{where}: hourly_demand: factors must be 0 or more")
    names = [period.name for period in row.periods]
    doubles = {name for name in names if names.count(name) > 1}
    if doubles:
        raise CatalogError(f"{where}: periods: {', '.join(sorted(doubles))} appears twice")
    for name, each in row.workloads.items():
        _one_kind_of_lengths(where, name, each)
    return row, folder


def _one_kind_of_lengths(where: str, name: str, row: ClassRow) -> None:
    own = row.input_tokens is not None or row.output_tokens is not None
    ways = {"workload": bool(row.workload), "histogram": row.histogram is not None, "trace": row.trace is not None}
    given = [way for way, is_given in ways.items() if is_given]
    if len(given) > 1:
        raise CatalogError(f"{where}: workloads.{name}: {' and '.join(given)} both give lengths: give one of them")
    if not given and not (row.input_tokens and row.output_tokens):
        raise CatalogError(
            f"{where}: workloads.{name}: no lengths: give workload, input_tokens and output_tokens, histogram or trace"
        )
    if own and given and given != ["workload"]:
        raise CatalogError(
            f"{where}: workloads.{name}: {given[0]} gives the lengths: leave input_ and output_tokens out"
        )
    if row.split > 1 and row.histogram is None and row.trace is None:
        raise CatalogError(f"{where}: workloads.{name}: split needs a histogram or a trace")


def lengths_of(row: ClassRow, folder: Path) -> Lengths | None:
    """Return the lengths of a histogram or a trace, None where the row has neither.

    Raises:
        InputError: A file that cannot be read, or has no requests that are possible.
    """
    if row.trace is not None:
        return read_trace(folder / row.trace)
    if row.histogram is None:
        return None
    if isinstance(row.histogram, str):
        return read_histogram(folder / row.histogram)
    bins = [(each.input_tokens, each.output_tokens, each.share) for each in row.histogram]
    if not bins:
        raise CatalogError("histogram: no bins")
    inputs, outputs, weights = np.array(bins, dtype=float).T
    return Lengths(input_tokens=inputs, output_tokens=outputs, weight=weights)


def read_histogram(path: Path) -> Lengths:
    """Return a histogram file: columns of input tokens, output tokens and share (or count)."""
    frame = _frame(path, ("input_tokens", "output_tokens", "share"))
    return _lengths(path, frame, frame["share"].to_numpy())


def read_trace(path: Path) -> Lengths:
    """Return the requests of a trace file, in whatever format `trace_files` knows; they need not be in order.

    Raises:
        InputError: In one line with the row.
    """
    requests = joined(list(open_trace(path, allow_unsorted=True).chunks()))
    span = float(requests.time_s[-1])
    if requests.requests < 2 or span <= 0.0:
        raise CatalogError(f"{path}: at least two requests at different times are needed to tell a rate")
    gaps = np.diff(requests.time_s)
    return Lengths(
        input_tokens=requests.input_tokens.astype(float),
        output_tokens=requests.output_tokens.astype(float),
        weight=np.ones(requests.requests),
        requests_per_s=(requests.requests - 1) / span,
        arrival_cv2=float(np.clip(gaps.var() / gaps.mean() ** 2, 1e-3, 1000.0)),
    )


def _frame(path: Path, needed: tuple[str, ...]) -> pl.DataFrame:
    """Return the needed columns of a table under our names, as numbers."""
    import polars as pl

    try:
        table = pl.scan_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else pl.scan_csv(path)
        there = {name.strip().lower(): name for name in table.collect_schema().names()}
    except (OSError, pl.exceptions.PolarsError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CatalogError(f"{path}: cannot be read: {why}") from None
    chosen = {}
    for ours in needed:
        found = next((there[name] for name in COLUMNS[ours] if name in there), None)
        if found is None:
            raise CatalogError(f"{path}: no column of {ours} (like {', '.join(COLUMNS[ours][:3])})")
        chosen[ours] = found
    try:
        columns = [pl.col(name).cast(pl.Float64).alias(ours) for ours, name in chosen.items()]
        frame = table.select(columns).collect()
    except pl.exceptions.PolarsError as error:
        raise CatalogError(f"{path}: not a table of numbers: {str(error).splitlines()[0]}") from None
    if frame.height == 0:
        raise CatalogError(f"{path}: no rows")
    return frame


def _lengths(path: Path, frame: pl.DataFrame, weight: NDArray[np.float64]) -> Lengths:
    inputs, outputs = frame["input_tokens"].to_numpy(), frame["output_tokens"].to_numpy()
    weight = np.asarray(weight, dtype=float)
    sound = (inputs >= 1) & (outputs >= 1) & (inputs < 1e9) & (outputs < 1e9) & (weight > 0)
    if not sound.all():
        row = int(np.flatnonzero(~sound)[0])
        raise CatalogError(
            f"{path}: row {row + 2}: {inputs[row]:g} tokens in, {outputs[row]:g} out, weight {weight[row]:g}: "
            "at least one token each way and a weight above zero are needed"
        )
    return Lengths(input_tokens=inputs, output_tokens=outputs, weight=weight)


def split_by_length(lengths: Lengths, parts: int) -> list[Lengths]:
    """Return lengths cut into parts of about equal tokens, shortest prompts first; fewer where prompts are alike."""
    order = np.argsort(lengths.input_tokens, kind="stable")
    work = np.cumsum((lengths.weight * (lengths.input_tokens + lengths.output_tokens))[order])
    part = np.minimum((work - 1e-12) / work[-1] * parts, parts - 1).astype(int)
    # Prompts of one length stay together: a router cannot tell them apart.
    sorted_inputs = lengths.input_tokens[order]
    part = part[np.searchsorted(sorted_inputs, sorted_inputs, side="left")]
    cut = [order[part == number] for number in np.unique(part)]
    total = float(lengths.weight.sum())
    return [
        Lengths(
            input_tokens=lengths.input_tokens[rows],
            output_tokens=lengths.output_tokens[rows],
            weight=lengths.weight[rows],
            requests_per_s=None
            if lengths.requests_per_s is None
            else lengths.requests_per_s * float(lengths.weight[rows].sum()) / total,
            arrival_cv2=lengths.arrival_cv2,
        )
        for rows in cut
    ]


def mean_and_cv(values: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Return the weighted mean and coefficient of variation."""
    mean = float(np.average(values, weights=weight))
    variance = float(np.average(np.square(values - mean), weights=weight))
    return mean, min(float(np.sqrt(variance)) / mean, 10.0)
