"""Dollars: what an accelerator-hour costs to own, and what tokens cost at a price and a rate."""

from tokopt.cost.ownership import (
    OwnershipCost,
    capital_recovery_factor,
    capital_usd_per_hour,
    critical_w,
    energy_usd_per_hour,
    facility_usd_per_hour,
    maintenance_usd_per_hour,
    ownership_cost,
    shell_usd_per_kw_month,
)
from tokopt.cost.tokens import pflops_per_usd, tokens_per_s_per_mw, usd_per_million_tokens

__all__ = [
    "OwnershipCost",
    "capital_recovery_factor",
    "capital_usd_per_hour",
    "critical_w",
    "energy_usd_per_hour",
    "facility_usd_per_hour",
    "maintenance_usd_per_hour",
    "ownership_cost",
    "pflops_per_usd",
    "shell_usd_per_kw_month",
    "tokens_per_s_per_mw",
    "usd_per_million_tokens",
]
