"""The hallway: walks a request through the rooms. Everything that `import tokopt` offers is here."""

from __future__ import annotations

from typing import Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.plans import Plan

from .checking import check, read_plan
from .estimating import estimate
from .frontiers import economics, frontier
from .planning import make_request, solve_request
from .progress import Progress, silent
from .tables import estimate_many, estimate_table

__all__ = [
    "Progress",
    "check",
    "economics",
    "estimate",
    "estimate_many",
    "estimate_table",
    "frontier",
    "load_catalog",
    "make_request",
    "plan",
    "read_plan",
    "silent",
    "solve_request",
]


def plan(*, catalog: str | Catalog | None = None, progress: Progress = silent, **request: Any) -> Plan:
    """Return the fleet that serves a model at the lowest cost within latency and power.

    Args:
        catalog: A catalog, or a directory that overlays the embedded one.
        progress: Told what is being done.
        **request: See `make_request`: `power="10MW"`, `sla="50ms"`, `model=`, `workload=`, `demand="400req/s"`,
            `prices=`, `gpus=`, `precisions=`, and so on.

    Returns:
        The plan. Its `status` is `infeasible` where nothing meets the request; that is not an exception.

    Raises:
        InputError: A request that cannot be understood, in one line that says what is allowed.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    directory = catalog if isinstance(catalog, str) else None
    asked = make_request(loaded, catalog_directory=directory, **request)
    return solve_request(asked, loaded, progress)
