"""`check`: a plan verified again, by code that shares nothing with what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokopt.catalog import Catalog, load_catalog
from tokopt.checking import CheckInputs, check_plan
from tokopt.domain.expert_traffic import UNIFORM
from tokopt.domain.host_times import slower
from tokopt.domain.plans import Plan
from tokopt.errors import InputError
from tokopt.version import __version__

from .columns import selected_prices
from .expert_traffic import traffic_named


def read_plan(source: Plan | str | Path | Mapping[str, Any]) -> Plan:
    """Return a plan from a record, a mapping or a JSON file.

    Raises:
        InputError: In one line: not readable, not JSON, or not a plan, with the first field that is wrong.
    """
    if isinstance(source, Plan):
        return source
    where = "plan"
    data: Any = source
    if isinstance(source, (str, Path)):
        where = str(source) or "''"
        try:
            data = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        except json.JSONDecodeError as error:
            raise InputError(f"{where}:{error.lineno}: not JSON: {error.msg}") from None
    try:
        return Plan.model_validate_json(json.dumps(data)) if isinstance(data, Mapping) else Plan.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InputError(f"{where}: not a plan{_of_version(data)}: {key}: {first['msg']}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: not a plan: {error}") from None


def _of_version(data: Any) -> str:
    """Return which version of tokopt made a document, where it says so and it is not this one."""
    made = data.get("provenance") if isinstance(data, Mapping) else None
    version = made.get("tokopt_version") if isinstance(made, Mapping) else None
    return f" of tokopt {__version__}, it was made with {version}" if version not in (None, __version__) else ""


def check_inputs(plan: Plan, catalog: Catalog) -> CheckInputs:
    """Return the records that a plan's request names."""
    request = plan.request
    exposed = any(item.deployment.without for item in plan.fleet)
    return CheckInputs(
        llms={asked.llm: catalog.llm(asked.llm) for asked in request.served_classes()},
        accelerators=catalog.accelerators,
        frameworks=catalog.frameworks,
        precisions=catalog.precisions,
        kv_bits={name: kv.bits for name, kv in catalog.kv_precisions.items()},
        speculators=catalog.speculators if _speculators_named(plan) else {},
        expert_traffic=None if request.expert_traffic == UNIFORM else traffic_named(catalog, request.expert_traffic),
        host_times=slower(catalog.host_times, request.robust) if exposed else {},
        calibration=catalog.calibration.slower(request.robust),
        offers=catalog.price_list(request.prices, rates=request.rates, selection=selected_prices(request)).offers,
    )


def _speculators_named(plan: Plan) -> bool:
    return any(item.deployment.speculator is not None for item in plan.fleet)


def check(plan: Plan | str | Path | Mapping[str, Any], *, catalog: str | Catalog | None = None) -> list[str]:
    """Verify a plan from its request and the catalogs, without the solver.

    Args:
        plan: A plan, its JSON as a mapping, or the path of a plan file.
        catalog: A catalog or an overlay directory; None = what the plan's request names.

    Returns:
        What is wrong, one line a fault; empty = nothing.

    Raises:
        InputError: The plan cannot be read, or names something that the catalog does not have.
    """
    read = read_plan(plan)
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog or read.request.catalog)
    return check_plan(read, check_inputs(read, loaded))
