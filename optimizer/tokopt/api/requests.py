"""What people write, to what the engine takes: limits, demands, lists of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokopt.catalog import Catalog
from tokopt.domain.caching import Reuse
from tokopt.domain.demand import WorkloadShape
from tokopt.domain.features import SWITCHABLE, Feature
from tokopt.domain.speculators import Domain
from tokopt.domain.workloads import Sla, Statistic, Workload
from tokopt.errors import InputError, not_one_of
from tokopt.perf.queueing import Limits
from tokopt.units import MS, REQUEST_RATE, TIME, TOKEN_RATE, parse_quantity

from .reuse import parse_reuse, with_reuse

SLA_HELP = "write it like 50ms, or tpot=40ms,ttft=1s,p99 (also e2e=, tok/s/user=, mean, p50, p75, p90, p95)"
# Without a limit on the first token a plan could hide an unbounded queue behind a fine TPOT.
DEFAULT_TTFT_S = 2.0
DEFAULT_TTFT_S_PER_INPUT_TOKEN = 1e-3
# Below it a demand is near the tolerances of solvers.
LEAST_DEMAND_PER_S = 1e-4


def disabled_features(chosen: str | Sequence[str] | None, among: Sequence[Feature] = SWITCHABLE) -> tuple[Feature, ...]:
    """Return the features of `--disable`, in the order of the catalog.

    Raises:
        InputError: Not one that a request can do without.
    """
    wanted = names(chosen)
    for name in wanted:
        if name not in among:
            raise not_one_of("--disable", name, among)
    return tuple(feature for feature in among if feature in wanted)


def parse_sla(text: str | Sla) -> tuple[Sla, bool]:
    """Return the limits of `--sla`, and whether it said anything about the first token or the whole request.

    Raises:
        InputError: Not understood, twice the same limit, or a limit that is not above zero.
    """
    if isinstance(text, Sla):
        return text, True
    limits: dict[str, float | None] = {}
    statistic: Statistic | None = None
    for part in (p.strip() for p in text.split(",")):
        if part in Statistic.__members__.values():
            if statistic is not None:
                raise InputError(f"--sla: two statistics, {statistic} and {part}; {SLA_HELP}")
            statistic = Statistic(part)
            continue
        key, value = _sla_limit(part)
        if key in limits:
            raise InputError(f"--sla: {key.removesuffix('_ms')} is given twice; {SLA_HELP}")
        limits[key] = value
    said_first_token = "ttft_ms" in limits or "e2e_ms" in limits
    return Sla(**limits, statistic=statistic or Statistic.P99), said_first_token


def _sla_limit(part: str) -> tuple[str, float | None]:
    name, equals, value = (piece.strip() for piece in part.partition("="))
    if not equals and name[:1].isalpha():
        raise InputError(f"--sla: {name!r} is not understood; {SLA_HELP}")
    if not equals:
        return "tpot_ms", parse_quantity(name, TIME, what="--sla") / MS
    if name == "tok/s/user":
        try:
            rate = float(value.removesuffix("tok/s"))
        except ValueError:
            raise InputError(f"--sla: {part!r} is not understood; write it like tok/s/user=20") from None
        if not 0 < rate < float("inf"):
            raise InputError(f"--sla: {part!r} must be above zero; write it like tok/s/user=20")
        return "tpot_ms", 1.0 / rate / MS
    if name not in ("tpot", "ttft", "e2e"):
        raise InputError(f"--sla: {name!r} is not a limit; {SLA_HELP}")
    if value == "none":
        return f"{name}_ms", None
    return f"{name}_ms", parse_quantity(value, TIME, what=f"--sla {name}") / MS


def with_default_ttft(sla: Sla, said_first_token: bool, workload: Workload) -> tuple[Sla, bool]:
    """Return the limits with tokopt's own limit on the first token where none was given, and whether it was added."""
    if said_first_token:
        return sla, False
    seconds = DEFAULT_TTFT_S + DEFAULT_TTFT_S_PER_INPUT_TOKEN * workload.input_tokens
    return sla.model_copy(update={"ttft_ms": seconds / MS}), True


def limits_of(sla: Sla) -> Limits:
    """Return the limits in seconds, infinite where there is none."""

    def seconds(value_ms: float | None) -> float:
        return float("inf") if value_ms is None else value_ms * MS

    return Limits(
        tpot_s=seconds(sla.tpot_ms),
        ttft_s=seconds(sla.ttft_ms),
        e2e_s=seconds(sla.e2e_ms),
        statistic=sla.statistic.value,
    )


def parse_demand(text: str | float, output_tokens: float) -> float:
    """Return requests a second of a demand like `400req/s`, or `2Mtok/s` of output.

    Raises:
        InputError: Neither, or not above zero, or too little for a fleet to be planned for it.
    """
    written = str(text)
    if "tok" in written:
        rate = parse_quantity(written, TOKEN_RATE, what="--demand") / output_tokens
    else:
        try:
            rate = parse_quantity(written, REQUEST_RATE, what="--demand")
        except InputError as error:
            like = " or 2Mtok/s of output" if str(error).endswith(REQUEST_RATE.example) else ""
            raise InputError(f"{error}{like}") from None
    if rate < LEAST_DEMAND_PER_S:
        raise InputError(f"--demand: {written!r} is below {LEAST_DEMAND_PER_S:g} req/s, one request in three hours")
    return rate


def names(values: str | Sequence[object] | None) -> tuple[str, ...]:
    """Return names given as a list or separated by commas."""
    if values is None:
        return ()
    pieces: Iterable[str] = values.split(",") if isinstance(values, str) else (str(value) for value in values)
    return tuple(piece.strip() for piece in pieces if piece.strip())


def resolve_workload(
    catalog: Catalog,
    workload: str | Workload | WorkloadShape,
    *,
    input_tokens: float | None = None,
    output_tokens: float | None = None,
    prefix_share: float | None = None,
    reuse: str | Reuse | None = None,
) -> Workload:
    """Return a workload by name or as given, with single figures replaced where stated.

    A stated share of prompts that are found takes the place of what repeats, and the other way round.

    Raises:
        InputError: An unknown name or domain, lengths below one token, a share outside 0 to 1, or reuse that is not
            possible.
    """
    if reuse is not None and prefix_share is not None:
        raise InputError("--reuse and --prefix-share both say what is found in prefix caches: give one of them")
    if isinstance(workload, WorkloadShape):
        base = workload_of(workload)
    else:
        base = catalog.workload(workload) if isinstance(workload, str) else workload
    isl = base.input_tokens if input_tokens is None else float(input_tokens)
    osl = base.output_tokens if output_tokens is None else float(output_tokens)
    share = base.prefix_share if prefix_share is None else float(prefix_share)
    for what, value in (("input length", isl), ("output length", osl)):
        if not 1.0 <= value < 1e9:
            raise InputError(f"{what}: {value:g} tokens is not possible; it is at least 1 and below 1e9")
    if not 0.0 <= share <= 1.0:
        raise InputError(f"prefix share: {share:g} is not a share; it lies between 0 and 1")
    changed = (isl, osl, share) != (base.input_tokens, base.output_tokens, base.prefix_share)
    name = f"{base.name} ({isl:g}/{osl:g})" if changed else base.name
    repeats = parse_reuse(reuse) if reuse is not None else base.reuse if prefix_share is None else None
    if base.reuse is not None and repeats is None and prefix_share is None:
        share = 0.0
    plain = Workload(
        name=name,
        input_tokens=isl,
        output_tokens=osl,
        input_cv=base.input_cv,
        output_cv=base.output_cv,
        prefix_share=share,
        arrival_cv2=base.arrival_cv2,
        domain=_domain(base.domain),
        source=base.source,
        observed_on=base.observed_on,
        note=base.note,
    )
    return plain if repeats is None else with_reuse(plain, repeats)


def workload_of(shape: WorkloadShape) -> Workload:
    """Return the workload that a plan file keeps."""
    return Workload(**{**shape.model_dump(), "reuse": shape.reuse})


def _domain(name: str | None) -> Domain | None:
    if name is not None and name not in Domain.__members__.values():
        raise not_one_of("domain", name, list(Domain))
    return None if name is None else Domain(name)


def shape_of(workload: Workload) -> WorkloadShape:
    """Return the part of a workload that a plan file keeps."""
    return WorkloadShape(
        name=workload.name,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        input_cv=workload.input_cv,
        output_cv=workload.output_cv,
        prefix_share=workload.prefix_share,
        reuse=workload.reuse,
        arrival_cv2=workload.arrival_cv2,
        domain=workload.domain,
    )


def parse_rate(rate: float | str, what: str) -> float:
    """Return a yearly rate written like 0.1 or 10%.

    Raises:
        InputError: Not a rate from 0 to below 1.
    """
    text = str(rate).strip()
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = float("nan")
    if not 0.0 <= value < 1.0:
        raise InputError(f"{what}: {text!r} is not a rate from 0 to below 1; write it like 0.1 or 10%")
    return value


MOST_ROBUST = 0.9


def parse_share(share: float | str | None, what: str, *, most: float | None = None) -> float:
    """Return a share written like 0.15 or 15%; nothing is 0.

    Raises:
        InputError: Not a share from 0 to below 0.9, or to `most`.
    """
    if share is None:
        return 0.0
    text = str(share).strip()
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = float("nan")
    if most is not None:
        if not 0.0 <= value <= most:
            raise InputError(f"{what}: {text!r} is not a share from 0 to {most:g}; write it like 0.15 or 15%")
        return value
    if not 0.0 <= value < MOST_ROBUST:
        raise InputError(f"{what}: {text!r} is not a share from 0 to below {MOST_ROBUST:g}; write it like 0.15 or 15%")
    return value
