"""tokopt: which GPUs, how many and set up how, serve a model at the lowest cost per token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokopt.version import __version__ as __version__

if TYPE_CHECKING:
    from tokopt.api import (
        audit,
        board_report,
        calibrate,
        check,
        check_prices,
        compare,
        doctor,
        economics,
        estimate,
        estimate_many,
        explain,
        export_plan,
        fit_trace,
        frontier,
        import_results,
        load_catalog,
        make_trace,
        ownership_cost,
        plan,
        plots,
        report_html,
        show_prices,
        simulate,
        solve_request,
        speculation_table,
        trace_summary,
        tune,
        validate,
    )
    from tokopt.domain.auditing import Audit
    from tokopt.domain.calibrating import CalibrationReport
    from tokopt.domain.checkup import Checkup
    from tokopt.domain.comparing import Comparison
    from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
    from tokopt.domain.explaining import Explanation
    from tokopt.domain.exporting import Export
    from tokopt.domain.importing import ImportedResults
    from tokopt.domain.ownership import OwnershipBreakdown
    from tokopt.domain.plans import Plan, PlanRequest
    from tokopt.domain.reporting import BoardReport
    from tokopt.domain.simulations import Simulation, SimulationSettings
    from tokopt.domain.trace_summaries import MadeTrace, TraceFit, TraceSummary
    from tokopt.domain.tuning import Tuning
    from tokopt.domain.validation import Validation
    from tokopt.domain.workloads import Sla, Workload
    from tokopt.errors import CatalogError, InfeasibleError, InputError, TokoptError

__all__ = [
    "Audit",
    "BoardReport",
    "CalibrationReport",
    "CatalogError",
    "Checkup",
    "Comparison",
    "Deployment",
    "Explanation",
    "Export",
    "ImportedResults",
    "InfeasibleError",
    "InputError",
    "Layout",
    "MadeTrace",
    "OwnershipBreakdown",
    "Plan",
    "PlanRequest",
    "Pool",
    "ServingMode",
    "Simulation",
    "SimulationSettings",
    "Sla",
    "TokoptError",
    "TraceFit",
    "TraceSummary",
    "Tuning",
    "Validation",
    "Workload",
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
    "explain",
    "export_plan",
    "fit_trace",
    "frontier",
    "import_results",
    "load_catalog",
    "make_trace",
    "ownership_cost",
    "plan",
    "plots",
    "report_html",
    "show_prices",
    "simulate",
    "solve_request",
    "speculation_table",
    "trace_summary",
    "tune",
    "validate",
]

_HOMES = {
    "tokopt.domain.auditing": ("Audit",),
    "tokopt.domain.calibrating": ("CalibrationReport",),
    "tokopt.domain.checkup": ("Checkup",),
    "tokopt.domain.comparing": ("Comparison",),
    "tokopt.domain.deployments": ("Deployment", "Layout", "Pool", "ServingMode"),
    "tokopt.domain.explaining": ("Explanation",),
    "tokopt.domain.exporting": ("Export",),
    "tokopt.domain.importing": ("ImportedResults",),
    "tokopt.domain.ownership": ("OwnershipBreakdown",),
    "tokopt.domain.plans": ("Plan", "PlanRequest"),
    "tokopt.domain.reporting": ("BoardReport",),
    "tokopt.domain.simulations": ("Simulation", "SimulationSettings"),
    "tokopt.domain.trace_summaries": ("MadeTrace", "TraceFit", "TraceSummary"),
    "tokopt.domain.tuning": ("Tuning",),
    "tokopt.domain.validation": ("Validation",),
    "tokopt.domain.workloads": ("Sla", "Workload"),
    "tokopt.errors": ("CatalogError", "InfeasibleError", "InputError", "TokoptError"),
}
_HOME_OF = {name: home for home, members in _HOMES.items() for name in members}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import tokopt` costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOME_OF.get(name, "tokopt.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
