"""Properties of the cost of an owned accelerator-hour: monotone in every input, limits of the annuity, exact sums."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokopt.cost import (
    CostPart,
    capital_recovery_factor,
    ownership_cost,
    prepayment_factor,
    provisioned_critical_w,
    published_cost,
)
from tokopt.domain.accelerators import Accelerator, PurchaseUnit, Topology
from tokopt.domain.offers import Capex, OwnedLot, OwnershipProfile
from tokopt.domain.sites import Site

# A busy machine draws slowly; no test is about time.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

GPU = Accelerator(
    name="gpu",
    title="GPU",
    vendor="v",
    generation="g",
    aliases=(),
    memory_bytes=1.0,
    memory_bytes_per_s=1.0,
    dense_flop_per_s={},
    sparse_flop_per_s={},
    scale_up_size=8,
    scale_up_bytes_per_s=1.0,
    scale_up_topology=Topology.SWITCH,
    scale_out_bytes_per_s=None,
    accelerators_per_node=8,
    nodes_per_rack=None,
    purchase_unit=PurchaseUnit.NODE,
    board_w=700.0,
    server_w=1275.0,
    all_in_w=1730.0,
    idle_w=None,
)
money = st.floats(0.0, 100_000.0)


@st.composite
def cases(draw):
    """Draw a component profile with its lot and site; rented or built."""
    built = draw(st.booleans())
    profile = OwnershipProfile(
        name="p",
        title="P",
        source="s",
        observed_on="2026-01-01",
        cost_of_capital=draw(st.floats(0.0, 0.4)),
        life_years=draw(st.floats(1.0, 10.0)),
        residual_fraction=draw(st.floats(0.0, 0.9)),
        colocation_usd_per_kw_month=None if built else draw(st.floats(0.0, 500.0)),
        build_usd_per_kw=draw(st.floats(1_000.0, 30_000.0)) if built else None,
        build_life_years=draw(st.floats(5.0, 30.0)) if built else None,
        maintenance_fraction_per_year=draw(st.floats(0.0, 0.3)),
        maintenance_usd_per_year=draw(st.floats(0.0, 5_000.0)),
        load_factor=draw(st.floats(0.05, 1.0)),
        utilisation=draw(st.floats(0.05, 1.0)),
        all_in_pue=draw(st.floats(1.0, 2.0)),
    )
    capex = Capex(
        server=draw(money), network=draw(money), storage=draw(money), install=draw(money), undivided=draw(money)
    )
    site = Site(
        name="s",
        title="S",
        pue=draw(st.floats(1.0, 2.5)),
        usd_per_kwh=draw(st.floats(0.001, 1.0)),
        carbon_g_per_kwh=None,
        source="s",
        observed_on="2026",
    )
    return profile, OwnedLot(accelerator="gpu", capex=capex), site


def hour(profile: OwnershipProfile, lot: OwnedLot, site: Site, gpu: Accelerator = GPU) -> float:
    return ownership_cost(profile, lot, gpu, site).usd_per_accelerator_hour


@unhurried
@given(case=cases())
def test_the_parts_add_up_to_the_last_digit(case):
    profile, lot, site = case
    cost = ownership_cost(profile, lot, GPU, site)
    assert math.fsum(cost.parts.values()) == cost.usd_per_accelerator_hour
    assert all(value >= 0.0 for value in cost.parts.values())
    busy = math.fsum(value for part, value in cost.parts.items() if part is not CostPart.IDLE)
    assert cost.usd_per_accelerator_hour == pytest.approx(busy / profile.utilisation, rel=1e-12)


# What raises the cost (+1) or lowers it (-1); the record that holds it, and by how much it grows.
INPUTS = [
    ("profile", "cost_of_capital", +1, 0.05),
    ("profile", "life_years", -1, 1.0),
    ("profile", "residual_fraction", -1, 0.05),
    ("profile", "colocation_usd_per_kw_month", +1, 10.0),
    ("profile", "build_usd_per_kw", +1, 500.0),
    ("profile", "build_life_years", -1, 1.0),
    ("profile", "maintenance_fraction_per_year", +1, 0.01),
    ("profile", "maintenance_usd_per_year", +1, 100.0),
    ("profile", "load_factor", +1, 0.05),
    ("profile", "utilisation", -1, 0.05),
    ("profile", "all_in_pue", -1, 0.1),
    ("site", "pue", +1, 0.1),
    ("site", "usd_per_kwh", +1, 0.01),
    ("capex", "server", +1, 1_000.0),
    ("capex", "network", +1, 1_000.0),
    ("capex", "storage", +1, 1_000.0),
    ("capex", "install", +1, 1_000.0),
    ("capex", "undivided", +1, 1_000.0),
]


@pytest.mark.parametrize(("record", "field", "sign", "step"), INPUTS)
@unhurried
@given(case=cases())
def test_the_cost_is_monotone_in_every_input(case, record, field, sign, step):
    profile, lot, site = case
    held = {"profile": profile, "site": site, "capex": lot.capex}[record]
    value = getattr(held, field)
    if value is None:
        return  # rented or built: the other way has this input
    more = dataclasses.replace(held, **{field: value + step})
    changed = {
        "profile": lambda: (more, lot, site),
        "site": lambda: (profile, lot, more),
        "capex": lambda: (profile, dataclasses.replace(lot, capex=more), site),
    }[record]()
    before, after = hour(profile, lot, site), hour(*changed)
    assert sign * (after - before) >= -1e-9 * before


@unhurried
@given(case=cases(), watts=st.floats(100.0, 3_000.0))
def test_more_power_never_costs_less(case, watts):
    profile, lot, site = case
    stated = dataclasses.replace(profile, critical_w={"gpu": watts})
    assert provisioned_critical_w(stated, GPU) == watts
    more = dataclasses.replace(profile, critical_w={"gpu": watts + 100.0})
    assert hour(more, lot, site) > hour(stated, lot, site) * (1 - 1e-12)


@unhurried
@given(case=cases())
def test_what_is_sunk_costs_no_capital(case):
    profile, lot, site = case
    sunk = ownership_cost(profile, dataclasses.replace(lot, sunk=True), GPU, site)
    assert set(sunk.parts) == {CostPart.FACILITY, CostPart.ENERGY, CostPart.MAINTENANCE, CostPart.IDLE}
    assert sunk.usd_per_accelerator_hour <= hour(profile, lot, site)
    free = dataclasses.replace(lot, capex=Capex())
    unmaintained = dataclasses.replace(profile, maintenance_fraction_per_year=0.0)
    of_free = ownership_cost(unmaintained, free, GPU, site)
    of_sunk = ownership_cost(unmaintained, dataclasses.replace(lot, sunk=True), GPU, site)
    assert of_free == of_sunk


@unhurried
@given(years=st.floats(0.5, 40.0), rate=st.floats(0.001, 0.9))
def test_limits_of_the_annuity(years, rate):
    assert capital_recovery_factor(0.0, years) == pytest.approx(1.0 / years)
    assert capital_recovery_factor(1e-12, years) == pytest.approx(1.0 / years, rel=1e-6)
    assert capital_recovery_factor(rate, years) >= max(1.0 / years, rate) * (1 - 1e-12)
    assert capital_recovery_factor(rate, 1e6) == pytest.approx(rate)  # a perpetuity
    assert capital_recovery_factor(rate, 1.0) == pytest.approx(1.0 + rate)  # one payment, a year later


@unhurried
@given(fraction=st.floats(0.0, 1.0), rate=st.floats(0.0, 0.5), years=st.integers(1, 10))
def test_a_prepaid_contract_is_worth_what_its_payments_are(fraction, rate, years):
    """The even payments of the factor have the present value of what is paid in fact, year by year."""
    factor = float(prepayment_factor(fraction, cost_of_capital=rate, term_years=float(years)))
    discounts = [(1.0 + rate) ** -year for year in range(1, years + 1)]
    paid = fraction * years + (1.0 - fraction) * sum(discounts)
    assert factor * sum(discounts) == pytest.approx(paid, rel=1e-9)
    assert factor >= 1.0 - 1e-9


def test_a_published_price_is_itself_until_its_prepayment_is_counted():
    profile = OwnershipProfile(
        name="r",
        title="R",
        source="s",
        observed_on="2026-01-01",
        usd_per_accelerator_hour={"gpu": 1.6},
        prepaid_fraction=0.25,
        term_years=3.0,
    )
    assert published_cost(profile, "gpu").usd_per_accelerator_hour == 1.6
    counted = published_cost(dataclasses.replace(profile, cost_of_capital=0.1), "gpu")
    assert counted.usd_per_accelerator_hour == pytest.approx(1.6 * 1.0515861, rel=1e-6)
