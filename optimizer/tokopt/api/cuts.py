"""What simulation found to be too much: columns give their replicas less, and searches keep away from limits."""

from __future__ import annotations

from dataclasses import replace

from tokopt.domain.demand import WorkloadClass
from tokopt.domain.deployments import Deployment
from tokopt.domain.plans import PlanRequest
from tokopt.domain.workloads import Sla

from .columns import PricedCandidate
from .found import Found


def with_cuts(found: Found) -> Found:
    """Return what was found with the request's cuts of capacities; what is cut to nothing is left out."""
    if not found.request.capacity_cuts:
        return found
    kept = []
    for row in found.columns:
        factor = cut_of(found.request, found.classes[row.service].name, row.candidate.deployment)
        if factor > 0.0:
            kept.append(row if factor == 1.0 else _cut(row, factor))
    return replace(found, columns=kept)


def limits_to_plan_for(request: PlanRequest, asked: WorkloadClass) -> Sla:
    """Return the limits of a class that set-ups are searched for: as much tighter as simulation found them to need."""
    margins = request.limit_margins.get(asked.name, {})
    limits = {name: asked.sla.limit_ms(name) for name in margins}
    tighter = {f"{name}_ms": limit * margins[name] for name, limit in limits.items() if limit is not None}
    return asked.sla.model_copy(update=tighter) if tighter else asked.sla


def cut_of(request: PlanRequest, of_class: str, deployment: Deployment) -> float:
    """Return the factor on the capacity of replicas that serve a class: their own cut, or that of their kind."""
    kind = (of_class, deployment.accelerator, deployment.mode)
    here = [cut for cut in request.capacity_cuts if (cut.of_class, cut.accelerator, cut.mode) == kind]
    own = next((cut for cut in here if cut.deployment == deployment), None)
    found = own or next((cut for cut in here if cut.deployment is None), None)
    return 1.0 if found is None else found.factor


def _cut(row: PricedCandidate, factor: float) -> PricedCandidate:
    candidate, column = row.candidate, row.column
    return replace(
        row,
        candidate=replace(candidate, capacity_requests_per_s=candidate.capacity_requests_per_s * factor),
        column=replace(column, requests_per_s=tuple(rate * factor for rate in column.requests_per_s)),
    )
