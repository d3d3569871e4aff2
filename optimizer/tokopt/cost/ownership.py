"""Cost of owning: capital, facility, energy and maintenance, per accelerator-hour.

The functions take floats or arrays, one element an accelerator type; scalars broadcast. Two powers are kept apart:
*provisioned* power sizes the site and its rent, *average* power sizes the electricity bill.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokopt.cost.tokens import Numbers
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import OwnershipProfile, Site
from tokopt.errors import InputError
from tokopt.units import HOURS_PER_MONTH, HOURS_PER_YEAR, KW

_MONTHS_PER_YEAR = 12.0
_NEGLIGIBLE_RATE = 1e-15  # a year; below it the annuity is 1 / years to the last digit


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipCost:
    """What one accelerator-hour costs to own, by part. [USD/h], before utilisation."""

    capital_usd_per_hour: float
    facility_usd_per_hour: float
    energy_usd_per_hour: float
    maintenance_usd_per_hour: float
    utilisation: float

    @property
    def usd_per_accelerator_hour(self) -> float:
        """The sum, over the hours that are used. [USD per useful accelerator-hour]"""
        parts = self.capital_usd_per_hour + self.facility_usd_per_hour
        return (parts + self.energy_usd_per_hour + self.maintenance_usd_per_hour) / self.utilisation


def capital_recovery_factor(rate: Numbers, years: Numbers) -> Numbers:
    """Share of a sum that is paid each year to pay it back, with interest, in equal parts at the end of each year.

    CRF = r / (1 - (1 + r)^-n), and 1 / n for r = 0                                        (annuity formula)

    Args:
        rate: Cost of capital. [1/year]
        years: Life over which it is paid back, above zero. [year]

    Returns:
        [1/year]
    """
    rate = np.asarray(rate, dtype=np.float64)
    none = rate < _NEGLIGIBLE_RATE
    interest = np.where(none, 1.0, rate)  # any rate will do: these elements are replaced below
    factor = np.where(none, 1.0 / np.asarray(years), interest / -np.expm1(-years * np.log1p(interest)))
    return factor[()]  # a scalar for scalars


def capital_usd_per_hour(
    capex_usd: Numbers, *, cost_of_capital: Numbers, life_years: Numbers, residual_fraction: Numbers = 0.0
) -> Numbers:
    """Capital paid back each hour of life, less what the residual value is worth today.

    capital = capex * CRF(r, n) * (1 - residual * (1 + r)^-n) / 8760

    Args:
        capex_usd: Server, network, storage and install, per accelerator. [USD]
        cost_of_capital: r. [1/year]
        life_years: n. [year]
        residual_fraction: Share of capex that the machine sells for at the end of life. [1]

    Returns:
        [USD/h]
    """
    kept = 1.0 - residual_fraction * (1.0 + cost_of_capital) ** -life_years
    return capex_usd * capital_recovery_factor(cost_of_capital, life_years) * kept / HOURS_PER_YEAR


def shell_usd_per_kw_month(build_usd_per_kw: Numbers, *, cost_of_capital: Numbers, life_years: Numbers) -> Numbers:
    """Monthly rent that an owned building and its power and cooling plant are worth.

    rent = build * CRF(r, n) / 12

    Args:
        build_usd_per_kw: Construction cost per kW of critical power. [USD/kW]
        cost_of_capital: r. [1/year]
        life_years: Life of the shell, commonly 15 to 20 years. [year]

    Returns:
        [USD per kW and month]
    """
    return build_usd_per_kw * capital_recovery_factor(cost_of_capital, life_years) / _MONTHS_PER_YEAR


def facility_usd_per_hour(provisioned_w: Numbers, *, usd_per_kw_month: Numbers) -> Numbers:
    """Rent of the provisioned critical power: kW * rent / 730.

    Args:
        provisioned_w: Critical (IT) power provisioned, per accelerator. [W]
        usd_per_kw_month: Colocation rent, or what an owned shell is worth. [USD per kW and month]

    Returns:
        [USD/h]
    """
    return provisioned_w / KW * usd_per_kw_month / HOURS_PER_MONTH


def energy_usd_per_hour(provisioned_w: Numbers, *, load_factor: Numbers, pue: Numbers, usd_per_kwh: Numbers) -> Numbers:
    """Electricity bill: kW * load_factor * PUE * $/kWh.

    Args:
        provisioned_w: Critical (IT) power provisioned, per accelerator. [W]
        load_factor: Energy drawn over provisioned power. [1]
        pue: Utility power over critical power. [1]
        usd_per_kwh: Electricity price; demand charges included where they apply. [USD/kWh]

    Returns:
        [USD/h]
    """
    return provisioned_w / KW * load_factor * pue * usd_per_kwh


def maintenance_usd_per_hour(capex_usd: Numbers, *, fraction_per_year: Numbers) -> Numbers:
    """Spares, support and staff: capex * m / 8760.

    Args:
        capex_usd: Server, network, storage and install, per accelerator. [USD]
        fraction_per_year: m, yearly cost over capex. [1/year]

    Returns:
        [USD/h]
    """
    return capex_usd * fraction_per_year / HOURS_PER_YEAR


def critical_w(accelerator: Accelerator, pue: float) -> float:
    """Critical (IT) power to provision for one accelerator: its server and its share of all other IT. [W]

    All-in power is utility power, so the critical part is all-in / PUE; never less than the server's nameplate.

    Raises:
        InputError: The accelerator's all-in power is not known.
    """
    if accelerator.all_in_w is None:
        raise InputError(
            f"accelerator {accelerator.name}: all_in_w is not known, and the cost of owning needs it "
            "for facility and energy"
        )
    return max(accelerator.all_in_w / pue, accelerator.server_w or 0.0)


def ownership_cost(profile: OwnershipProfile, accelerator: Accelerator, site: Site) -> OwnershipCost:
    """Return what an accelerator-hour costs under a component profile at a site.

    Raises:
        InputError: The profile has no capex for the accelerator, or a figure that the formula needs is not known.
    """
    capex_usd = profile.capex_usd.get(accelerator.name)
    if capex_usd is None:
        raise InputError(f"ownership profile {profile.name}: no capex_usd for accelerator {accelerator.name}")
    rate, years, rent = profile.cost_of_capital, profile.life_years, profile.colocation_usd_per_kw_month
    if rate is None or years is None or rent is None:
        raise InputError(
            f"ownership profile {profile.name}: cost_of_capital, life_years and colocation_usd_per_kw_month are needed"
        )
    if site.usd_per_kwh is None:
        raise InputError(f"site {site.name}: usd_per_kwh is not known, and the cost of owning needs it for energy")
    provisioned_w = critical_w(accelerator, site.pue)
    capital = capital_usd_per_hour(
        capex_usd, cost_of_capital=rate, life_years=years, residual_fraction=profile.residual_fraction
    )
    energy = energy_usd_per_hour(
        provisioned_w, load_factor=profile.load_factor, pue=site.pue, usd_per_kwh=site.usd_per_kwh
    )
    maintenance = maintenance_usd_per_hour(capex_usd, fraction_per_year=profile.maintenance_fraction_per_year)
    return OwnershipCost(
        capital_usd_per_hour=float(capital),
        facility_usd_per_hour=float(facility_usd_per_hour(provisioned_w, usd_per_kw_month=rent)),
        energy_usd_per_hour=float(energy),
        maintenance_usd_per_hour=float(maintenance),
        utilisation=profile.utilisation,
    )
