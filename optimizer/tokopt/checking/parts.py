"""Rules on items that buy of two offers, since their pools are on different accelerators."""

from __future__ import annotations

from tokopt.checking.case import Case, number, same
from tokopt.domain.deployments import Pool
from tokopt.domain.plans import ItemPart


def parts_agree(case: Case) -> list[str]:
    """Check that an item has parts where its pools are on different accelerators, which add up to the item."""
    item, deployment = case.item, case.item.deployment
    if not deployment.mixed:
        return [case.fault("parts are stated, but all is of one offer")] if item.parts else []
    expected = [("decode", deployment.accelerator), ("prefill", deployment.prefill_accelerator)]
    stated = [(part.pool, part.accelerator) for part in item.parts]
    if stated != expected:
        return [case.fault(f"parts are {stated}, but pools on different accelerators need {expected}")]
    faults = []
    for name in ("units", "gpus", "nodes", "usd_per_hour", "provisioned_kw", "rated_kw"):
        values = [getattr(part, name) for part in item.parts]
        total = None if None in values else sum(values)
        faults += case.differs(name, getattr(item, name), total, "sum over its parts")
    first = item.parts[0]
    for name in ("instance_type", "gpus_per_unit", "usd_per_unit_hour", "carbon_usd_per_unit_hour", "price_source"):
        says, should = getattr(item, name), getattr(first, name)
        if says != should:
            faults.append(case.fault(f"{name} is {says}, but its part that decodes says {should}"))
    periods = case.request.periods
    if not periods:
        for part in item.parts:
            paid = part.units * (part.usd_per_unit_hour + part.carbon_usd_per_unit_hour)
            if not same(part.usd_per_hour, paid):
                said = f"usd_per_hour of {part.accelerator} is {number(part.usd_per_hour)}, but units cost"
                faults.append(case.fault(f"{said} {number(paid)}"))
    return faults


def pools_fit(case: Case) -> list[str]:
    """Check that the workers of all replicas fit into the units of their pool's offer, which are whole nodes.

    A worker is in one unit or fills several; a replica's pools are never in one unit.
    """
    pools = {"decode": case.item.deployment.decode, "prefill": case.item.deployment.prefill}
    faults = []
    for part in case.item.parts:
        accelerator, pool = case.inputs.accelerators.get(part.accelerator), pools.get(part.pool)
        if accelerator is None or pool is None:
            continue
        least = _units_needed(pool, case.item.replicas, part)
        if part.units < least:
            workers = pool.workers * case.item.replicas
            held = f"{workers:,} {part.pool} workers of {pool.layout.accelerators:,} need {least:,} units"
            faults.append(case.fault(f"{held} of {part.gpus_per_unit:,}, not {part.units:,}"))
        if part.gpus_per_unit < accelerator.accelerators_per_node:
            node = f"a node of {part.accelerator} has {accelerator.accelerators_per_node}"
            faults.append(case.fault(f"instances of {part.gpus_per_unit:,} have no fast network between them ({node})"))
    return faults


def _units_needed(pool: Pool, replicas: int, part: ItemPart) -> int:
    """Return the least units that hold so many workers whole."""
    worker, unit, left = pool.layout.accelerators, part.gpus_per_unit, pool.workers * replicas
    if worker > unit:
        return left * (worker // unit + bool(worker % unit))
    a_unit = unit // worker
    return left // a_unit + bool(left % a_unit)
