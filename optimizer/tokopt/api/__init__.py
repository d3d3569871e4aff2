"""The hallway: walks a request through the rooms. Everything that `import tokopt` offers is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.plans import Plan

from .asking import make_request
from .planning import solve_request
from .progress import Progress, silent

if TYPE_CHECKING:
    from .auditing import audit
    from .calibrating import calibrate
    from .checking import check, read_plan
    from .comparing import compare
    from .cost_sheet import economics
    from .doctoring import doctor
    from .estimating import estimate
    from .explaining import explain
    from .exporting import export_plan
    from .frontiers import frontier
    from .importing import import_results
    from .owning import ownership_cost
    from .prices import check_prices, show_prices
    from .reporting import board_report, plots, report_html
    from .simulating import simulate
    from .speculation_tables import speculation_table
    from .tables import estimate_many, estimate_table
    from .tracing import fit_trace, make_trace, trace_summary
    from .tuning import tune
    from .validating import validate

__all__ = [
    "Progress",
    "audit",
    "board_report",
    "calibrate",
    "check",
    "check_prices",
    "compare",
    "doctor",
    "economics",
    "estimate",
    "estimate_many",
    "estimate_table",
    "explain",
    "export_plan",
    "fit_trace",
    "frontier",
    "import_results",
    "load_catalog",
    "make_request",
    "make_trace",
    "ownership_cost",
    "plan",
    "plots",
    "read_plan",
    "report_html",
    "show_prices",
    "silent",
    "simulate",
    "solve_request",
    "speculation_table",
    "trace_summary",
    "tune",
    "validate",
]

# What a plan does not need is imported when it is first asked for.
_HOMES = {
    "audit": "auditing",
    "calibrate": "calibrating",
    "check": "checking",
    "compare": "comparing",
    "read_plan": "checking",
    "estimate": "estimating",
    "economics": "cost_sheet",
    "doctor": "doctoring",
    "explain": "explaining",
    "export_plan": "exporting",
    "import_results": "importing",
    "frontier": "frontiers",
    "ownership_cost": "owning",
    "check_prices": "prices",
    "show_prices": "prices",
    "board_report": "reporting",
    "plots": "reporting",
    "report_html": "reporting",
    "simulate": "simulating",
    "speculation_table": "speculation_tables",
    "estimate_many": "tables",
    "estimate_table": "tables",
    "fit_trace": "tracing",
    "make_trace": "tracing",
    "trace_summary": "tracing",
    "tune": "tuning",
    "validate": "validating",
}


def __getattr__(name: str) -> Any:
    """Import a function from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def plan(
    *, catalog: str | Catalog | None = None, progress: Progress = silent, verify: bool = False, **request: Any
) -> Plan:
    """Return the fleet that serves a model at the lowest cost within latency and power.

    Args:
        catalog: A catalog, or a directory that overlays the embedded one.
        progress: Told what is being done.
        verify: Simulate what is recommended, cut what misses its limits there, and solve again until all hold.
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
    if verify:
        from .verifying import verified_plan

        return verified_plan(asked, loaded, progress)
    return solve_request(asked, loaded, progress)
