"""Figures as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.domain.estimates import Interval
from tokopt.report import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4647, "$0.465"), (0.0516, "$0.0516"), (12.3, "$12.30"), (5541.12, "$5,541"), (0, "$0.00"), (99.999, "$100.00")],
)
def test_money(value: float, text: str) -> None:
    assert figures.usd(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (0.012345, "0.0123"), (93.3, "93.3"), (0, "0"), (999.9, "1,000")]
)
def test_numbers(value: float, text: str) -> None:
    assert figures.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(3312141.6, "3.31 Mtok/s"), (75.02, "75.0 tok/s"), (0.42, "0.420 tok/s"), (1195, "1.20 ktok/s")]
)
def test_rates(value: float, text: str) -> None:
    assert figures.rate(value, "tok/s") == text.replace("1.20", "1.20" if value >= 1195 else "1.19")


@pytest.mark.parametrize(("kw", "text"), [(10000, "10 MW"), (9921.6, "9.922 MW"), (0.1, "100 W"), (1.275, "1.275 kW")])
def test_power_without_zeros_at_its_end(kw: float, text: str) -> None:
    assert figures.power(kw) == text


@pytest.mark.parametrize(("value", "text"), [(0.934, "93 %"), (0.05, "5 %"), (0.0012, "0.12 %"), (0, "0 %")])
def test_shares(value: float, text: str) -> None:
    assert figures.share(value) == text


def test_signed_shares() -> None:
    assert figures.signed_share(0.32) == "+32 %"
    assert figures.signed_share(-0.83) == "-83 %"


def test_counts_with_nouns() -> None:
    assert figures.plural(1, "node") == "1 node"
    assert figures.plural(468, "node") == "468 nodes"


def test_ranges() -> None:
    assert figures.usd_range(Interval(low=0.3164, high=0.6826)) == "$0.316 to $0.683"
    assert figures.spread(Interval(low=813.4, high=1754.9), "tok/s") == "813 tok/s to 1.75 ktok/s"


@given(st.floats(min_value=1e-9, max_value=1e15))
def test_numbers_keep_their_value(value: float) -> None:
    assert float(figures.number(value).replace(",", "")) == pytest.approx(value, rel=6e-3)
