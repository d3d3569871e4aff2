"""Cost of owning: capital, facility, energy and maintenance, per accelerator-hour.

The functions take floats or arrays, one element an accelerator type; scalars broadcast. Two powers are kept apart:
*provisioned* power sizes the site and its rent, *average* power sizes the electricity bill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique

import numpy as np

from tokopt.cost.tokens import Numbers
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import OwnedLot, OwnershipProfile
from tokopt.domain.sites import Site
from tokopt.errors import InputError
from tokopt.units import HOURS_PER_MONTH, HOURS_PER_YEAR, KW

_MONTHS_PER_YEAR = 12.0
_NEGLIGIBLE_RATE = 1e-15  # a year; below it the annuity is 1 / years to the last digit


@unique
class CostPart(StrEnum):
    """What an accelerator-hour's cost consists of."""

    SERVER = "server"
    NETWORK = "network"
    STORAGE = "storage"
    INSTALL = "install"
    CAPITAL = "capital"  # of which only the sum is known
    PUBLISHED = "published"  # a price, whatever it consists of
    PREPAYMENT = "prepayment"  # cost of the capital in what is paid in advance
    FACILITY = "facility"
    ENERGY = "energy"
    MAINTENANCE = "maintenance"
    IDLE = "idle"  # all of the above in hours that are not used


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipCost:
    """What one useful accelerator-hour costs, by part. [USD/h]"""

    parts: Mapping[CostPart, float]

    @property
    def usd_per_accelerator_hour(self) -> float:
        """The sum of the parts, rounded once. [USD per useful accelerator-hour]"""
        return math.fsum(self.parts.values())


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


def prepayment_factor(fraction: Numbers, *, cost_of_capital: Numbers, term_years: Numbers) -> Numbers:
    """Cost of a contract of which a part is paid in advance, over the cost of one that is paid as it runs.

    A price p a year over n years is worth p / CRF(r, n) when it is paid as it runs. With a share f of the nominal sum
    n * p paid at the start, and the rest as it runs, it is worth f * n * p + (1 - f) * p / CRF(r, n). Their ratio is

    factor = 1 - f + f * n * CRF(r, n)                                          (1 for r = 0 or f = 0)

    Args:
        fraction: f, paid when the term begins. [1]
        cost_of_capital: r, of who pays. [1/year]
        term_years: n. [year]

    Returns:
        [1]
    """
    return 1.0 - fraction + fraction * term_years * capital_recovery_factor(cost_of_capital, term_years)


def critical_w(accelerator: Accelerator, all_in_pue: float) -> float:
    """Critical (IT) power to provision for one accelerator: its server and its share of all other IT. [W]

    All-in power is utility power of a building of a certain PUE, so the critical part is all-in / PUE of that building;
    never less than the server's nameplate. What a site draws from the utility is critical power times its own PUE.

    Args:
        accelerator: Its all-in and server power are used.
        all_in_pue: PUE that its all-in power contains. [1]

    Raises:
        InputError: The accelerator's all-in power is not known.
    """
    if accelerator.all_in_w is None:
        raise InputError(
            f"accelerator {accelerator.name}: all_in_w is not known, and the cost of owning needs it "
            "for facility and energy; an ownership profile can state critical_kw instead"
        )
    return max(accelerator.all_in_w / all_in_pue, accelerator.server_w or 0.0)


def provisioned_critical_w(profile: OwnershipProfile, accelerator: Accelerator) -> float:
    """Return the critical power of an accelerator that a profile states, or else that of the accelerator. [W]"""
    stated = profile.critical_w.get(accelerator.name)
    return critical_w(accelerator, profile.all_in_pue) if stated is None else stated


def rent_usd_per_kw_month(profile: OwnershipProfile) -> float:
    """Return the rent of critical power, or what an owned shell is worth. [USD per kW and month]

    Raises:
        InputError: Neither is stated in full.
    """
    build, rate, years = profile.build_usd_per_kw, profile.cost_of_capital, profile.build_life_years
    if profile.colocation_usd_per_kw_month is not None:
        return profile.colocation_usd_per_kw_month
    if build is None or rate is None or years is None:
        raise InputError(
            f"ownership profile {profile.name}: colocation_usd_per_kw_month is needed, or build_usd_per_kw with "
            "build_life_years and cost_of_capital"
        )
    return float(shell_usd_per_kw_month(build, cost_of_capital=rate, life_years=years))


def ownership_cost(profile: OwnershipProfile, lot: OwnedLot, accelerator: Accelerator, site: Site) -> OwnershipCost:
    """Return what an accelerator-hour of a lot costs under a component profile at a site.

    Capital is nothing where it is sunk. Idle hours cost what used ones do: each useful hour carries
    (1 / utilisation - 1) hours of idling.

    Raises:
        InputError: A figure that the formula needs is not known.
    """
    if site.usd_per_kwh is None:
        raise InputError(f"site {site.name}: usd_per_kwh is not known, and the cost of owning needs it for energy")
    provisioned_w = provisioned_critical_w(profile, accelerator)
    maintenance = maintenance_usd_per_hour(lot.capex.total, fraction_per_year=profile.maintenance_fraction_per_year)
    parts = {
        **_capital_parts(profile, lot),
        CostPart.FACILITY: float(facility_usd_per_hour(provisioned_w, usd_per_kw_month=rent_usd_per_kw_month(profile))),
        CostPart.ENERGY: float(
            energy_usd_per_hour(
                provisioned_w, load_factor=profile.load_factor, pue=site.pue, usd_per_kwh=site.usd_per_kwh
            )
        ),
        CostPart.MAINTENANCE: float(maintenance + profile.maintenance_usd_per_year / HOURS_PER_YEAR),
    }
    busy = math.fsum(parts.values())
    return OwnershipCost(parts={**parts, CostPart.IDLE: busy / profile.utilisation - busy})


def _capital_parts(profile: OwnershipProfile, lot: OwnedLot) -> dict[CostPart, float]:
    """Return what the parts of capex cost an hour, those that there are. [USD/h]"""
    capex = {
        CostPart.SERVER: lot.capex.server,
        CostPart.NETWORK: lot.capex.network,
        CostPart.STORAGE: lot.capex.storage,
        CostPart.INSTALL: lot.capex.install,
        CostPart.CAPITAL: lot.capex.undivided,
    }
    if lot.sunk or not lot.capex.total:
        return {}
    rate, years = profile.cost_of_capital, profile.life_years if lot.life_years is None else lot.life_years
    if rate is None or years is None:
        raise InputError(f"ownership profile {profile.name}: cost_of_capital and life_years are needed for capex")
    residual = profile.residual_fraction if lot.residual_fraction is None else lot.residual_fraction
    return {
        part: float(capital_usd_per_hour(usd, cost_of_capital=rate, life_years=years, residual_fraction=residual))
        for part, usd in capex.items()
        if usd
    }


def published_cost(profile: OwnershipProfile, accelerator: str) -> OwnershipCost:
    """Return what an accelerator-hour costs under a published profile, with the capital in its prepayment.

    Without a cost of capital, it is the published figure.
    """
    published = profile.usd_per_accelerator_hour[accelerator]
    rate, years = profile.cost_of_capital, profile.term_years
    if rate is None or years is None or not profile.prepaid_fraction:
        return OwnershipCost(parts={CostPart.PUBLISHED: published})
    factor = prepayment_factor(profile.prepaid_fraction, cost_of_capital=rate, term_years=years)
    return OwnershipCost(parts={CostPart.PUBLISHED: published, CostPart.PREPAYMENT: published * (float(factor) - 1.0)})
