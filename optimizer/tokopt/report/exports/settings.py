"""Settings of a tool as rows: what a flag is called, and what of a plan it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tokopt.domain.exporting import Role, ServingItem, ServingWorker

# What a flag takes: a value, True = the flag alone, None or False = it is left out.
Value = str | int | float | bool | None
Setting = tuple[str, Callable[[ServingItem, ServingWorker], Value]]

# Router that a plan assumes -> what vLLM's and SGLang's routers call it.
POLICIES = {"random": "random", "round_robin": "round_robin", "least_loaded": "power_of_two", "kv_aware": "cache_aware"}
KV_DTYPES = {"bf16": "bfloat16", "fp8": "fp8", "nvfp4": "nvfp4"}  # precision of caches -> what most engines call it
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
