"""Dollars: what an accelerator-hour costs to own, and what tokens cost at a price and a rate."""

from tokopt.cost.ownership import (
    CostPart,
    OwnershipCost,
    capital_recovery_factor,
    capital_usd_per_hour,
    critical_w,
    energy_usd_per_hour,
    facility_usd_per_hour,
    maintenance_usd_per_hour,
    ownership_cost,
    prepayment_factor,
    provisioned_critical_w,
    published_cost,
    rent_usd_per_kw_month,
    shell_usd_per_kw_month,
)
from tokopt.cost.shapley import balanced, shapley_values, with_missing
from tokopt.cost.tokens import pflops_per_usd, tokens_per_s_per_mw, usd_per_million_tokens

__all__ = [
    "CostPart",
    "OwnershipCost",
    "balanced",
    "capital_recovery_factor",
    "capital_usd_per_hour",
    "critical_w",
    "energy_usd_per_hour",
    "facility_usd_per_hour",
    "maintenance_usd_per_hour",
    "ownership_cost",
    "pflops_per_usd",
    "prepayment_factor",
    "provisioned_critical_w",
    "published_cost",
    "rent_usd_per_kw_month",
    "shapley_values",
    "shell_usd_per_kw_month",
    "tokens_per_s_per_mw",
    "usd_per_million_tokens",
    "with_missing",
]
