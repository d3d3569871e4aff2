"""What owning costs and what tokens cost, against published figures and closed forms."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.cost import (
    CostPart,
    capital_recovery_factor,
    capital_usd_per_hour,
    critical_w,
    energy_usd_per_hour,
    facility_usd_per_hour,
    maintenance_usd_per_hour,
    ownership_cost,
    pflops_per_usd,
    shell_usd_per_kw_month,
    tokens_per_s_per_mw,
    usd_per_million_tokens,
)
from tokopt.domain.accelerators import Accelerator, PurchaseUnit, Topology
from tokopt.domain.offers import Capex, OwnedLot, OwnershipProfile
from tokopt.domain.sites import Site
from tokopt.errors import InputError

H200 = Accelerator(
    name="h200_sxm",
    title="NVIDIA H200 SXM",
    vendor="nvidia",
    generation="hopper",
    aliases=("H200",),
    memory_bytes=141e9,
    memory_bytes_per_s=4.8e12,
    dense_flop_per_s={},
    sparse_flop_per_s={},
    scale_up_size=8,
    scale_up_bytes_per_s=450e9,
    scale_up_topology=Topology.SWITCH,
    scale_out_bytes_per_s=50e9,
    accelerators_per_node=8,
    nodes_per_rack=None,
    purchase_unit=PurchaseUnit.NODE,
    board_w=700.0,
    server_w=1275.0,
    all_in_w=1730.0,
    idle_w=None,
)
PROFILE = OwnershipProfile(
    name="mine",
    title="Mine",
    source="test",
    observed_on="2026-11-23",
    lots=(OwnedLot(accelerator="h200_sxm", capex=Capex(undivided=31_000.0)),),
    cost_of_capital=0.10,
    life_years=4.0,
    colocation_usd_per_kw_month=100.0,
    maintenance_fraction_per_year=0.02,
    load_factor=0.8,
)
(LOT,) = PROFILE.lots
SITE = Site(
    name="texas", title="Texas", pue=1.1, usd_per_kwh=0.066, carbon_g_per_kwh=None, source="test", observed_on="2023"
)


@pytest.mark.parametrize(
    ("usd_per_hour", "tokens_per_s", "expected"),
    [(2.652, 6000.0, 0.1228), (1.41, 93.3, 4.198), (1.41, 90.0, 4.352), (1.41, 93.4, 4.193), (2.652, 5880.0, 0.1253)],
)
def test_usd_per_million_tokens(usd_per_hour, tokens_per_s, expected):
    assert usd_per_million_tokens(usd_per_hour, tokens_per_s) == pytest.approx(expected, abs=5e-4)


def test_no_tokens_cost_infinitely_much():
    assert usd_per_million_tokens(1.0, np.array([0.0, 1e6 / 3600]))[0] == np.inf
    assert usd_per_million_tokens(1.0, 0.0) == np.inf


@pytest.mark.parametrize(
    ("tokens_per_s", "watts", "expected"),
    [(5789.6, 2100.0, 2_756_947), (4791.6, 2170.0, 2_208_100), (725.2, 1790.0, 405_137), (93.4, 1730.0, 54_000)],
)
def test_tokens_per_s_per_mw(tokens_per_s, watts, expected):
    assert tokens_per_s_per_mw(tokens_per_s, watts) == pytest.approx(expected, rel=1e-3)


def test_pflops_per_usd():
    assert pflops_per_usd(3.958e15, 1.41) == pytest.approx(2.8, abs=0.05)  # H200, FP8 with sparsity
    assert pflops_per_usd(15e15, 2.652) == pytest.approx(5.66, abs=0.01)  # GB300, FP4 dense; published as 5.6


def test_capital_recovery_factor():
    assert capital_recovery_factor(0.10, 4.0) == pytest.approx(0.315471, abs=1e-6)
    assert capital_recovery_factor(0.0, 4.0) == 0.25
    assert capital_recovery_factor(1e-9, 4.0) == pytest.approx(0.25, rel=1e-8)
    np.testing.assert_allclose(capital_recovery_factor(np.array([0.0, 0.1]), 4.0), [0.25, 0.315471], atol=1e-6)


@given(rate=st.floats(0.0, 0.5), years=st.floats(0.5, 30.0))
def test_payments_are_worth_the_sum_that_they_pay_back(rate, years):
    payment = capital_recovery_factor(rate, years)
    worth = payment * years if rate < 1e-15 else -payment * np.expm1(-years * np.log1p(rate)) / rate
    assert worth == pytest.approx(1.0, rel=1e-9)
    assert payment >= 1 / years * (1 - 1e-12)


@given(residual=st.floats(0.0, 0.9))
def test_a_residual_value_saves_what_it_is_worth_today(residual):
    full = capital_usd_per_hour(31_000.0, cost_of_capital=0.1, life_years=4.0)
    less = capital_usd_per_hour(31_000.0, cost_of_capital=0.1, life_years=4.0, residual_fraction=residual)
    assert less == pytest.approx(full * (1 - residual / 1.1**4), rel=1e-12)


def test_the_parts_in_numbers():
    assert capital_usd_per_hour(31_000.0, cost_of_capital=0.1, life_years=4.0) == pytest.approx(1.1164, abs=1e-4)
    assert facility_usd_per_hour(1000.0, usd_per_kw_month=163.44) == pytest.approx(163.44 / 730)
    assert energy_usd_per_hour(1000.0, load_factor=0.8, pue=1.1, usd_per_kwh=0.066) == pytest.approx(0.05808)
    assert maintenance_usd_per_hour(8760.0, fraction_per_year=0.05) == pytest.approx(0.05)
    assert shell_usd_per_kw_month(12_000.0, cost_of_capital=0.0, life_years=20.0) == pytest.approx(50.0)


def test_critical_power_is_never_below_the_server():
    assert critical_w(H200, 1.1) == pytest.approx(1730 / 1.1)
    assert critical_w(H200, 2.0) == 1275.0
    assert critical_w(dataclasses.replace(H200, server_w=None), 2.0) == pytest.approx(865.0)


def test_ownership_cost_adds_up():
    cost = ownership_cost(PROFILE, LOT, H200, SITE)
    assert cost.parts[CostPart.CAPITAL] == pytest.approx(1.1164, abs=1e-4)
    assert cost.parts[CostPart.FACILITY] == pytest.approx(1.73 / 1.15 * 100 / 730)
    assert cost.parts[CostPart.ENERGY] == pytest.approx(1.73 / 1.15 * 1.1 * 0.8 * 0.066)
    assert cost.parts[CostPart.MAINTENANCE] == pytest.approx(31_000 * 0.02 / 8760)
    assert cost.parts[CostPart.IDLE] == 0.0
    assert cost.usd_per_accelerator_hour == math.fsum(cost.parts.values())
    half = ownership_cost(dataclasses.replace(PROFILE, utilisation=0.5), LOT, H200, SITE)
    assert half.usd_per_accelerator_hour == pytest.approx(2 * cost.usd_per_accelerator_hour)
    assert half.parts[CostPart.IDLE] == pytest.approx(cost.usd_per_accelerator_hour)


@pytest.mark.parametrize(
    ("profile", "accelerator", "site", "said"),
    [
        (PROFILE, dataclasses.replace(H200, all_in_w=None), SITE, ("h200_sxm", "all_in_w")),
        (dataclasses.replace(PROFILE, life_years=None), H200, SITE, ("mine", "life_years")),
        (dataclasses.replace(PROFILE, colocation_usd_per_kw_month=None), H200, SITE, ("mine", "build_usd_per_kw")),
        (PROFILE, H200, dataclasses.replace(SITE, usd_per_kwh=None), ("texas", "usd_per_kwh")),
        (dataclasses.replace(PROFILE, cost_of_capital=None), H200, SITE, ("mine", "cost_of_capital")),
    ],
)
def test_a_missing_figure_is_named(profile, accelerator, site, said):
    with pytest.raises(InputError) as caught:
        ownership_cost(profile, LOT, accelerator, site)
    assert all(word in str(caught.value) for word in said)
    assert "\n" not in str(caught.value)
