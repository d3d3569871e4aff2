"""Settings of a tool as rows: what a flag is called, and what of a plan it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tokopt.domain.exporting import Role, ServingItem, ServingWorker

# What a flag takes: a value, True = the flag alone, None or False = it is left out.
Value = str | int | float | bool | None
Setting = tuple[str, Callable[[ServingItem, ServingWorker], Value]]

ROLES = {Role.SERVE: "prefill and decode", Role.PREFILL: "prefill", Role.DECODE: "decode"}


def written(settings: Iterable[Setting], item: ServingItem, worker: ServingWorker) -> Iterator[tuple[object, ...]]:
    """Yield the flags of a worker with their values."""
    for flag, of in settings:
        value = of(item, worker)
        if value is True:
            yield (flag,)
        elif value is not None and value is not False:
            yield (flag, value)


def above_one(value: int) -> int | None:
    """Return a degree where it is more than the default."""
    return value if value > 1 else None


def in_words(worker: ServingWorker) -> str:
    """Return what a worker is, in words for a comment."""
    degrees = {"tp": worker.tp, "pp": worker.pp, "dp": worker.dp, "ep": worker.ep, "cp": worker.cp, "dcp": worker.dcp}
    layout = " ".join(f"{name}{degree}" for name, degree in degrees.items() if degree > 1) or "one accelerator"
    return f"{ROLES[worker.role]} worker, {layout} on {worker.accelerators} x {worker.accelerator}"
