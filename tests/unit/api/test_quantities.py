"""Quantities as people write them, and as tokopt writes them back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.errors import InputError
from tokopt.units import MONEY, POWER, REQUEST_RATE, TIME, TOKEN_RATE, QuantityKind, format_si, parse_quantity

KINDS = {"power": POWER, "time": TIME, "requests": REQUEST_RATE, "tokens": TOKEN_RATE, "money": MONEY}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("10MW", POWER, 10e6),
        ("500kW", POWER, 500e3),
        ("0.5GW", POWER, 0.5e9),
        ("750W", POWER, 750.0),
        ("10 MW", POWER, 10e6),
        ("1e3 W", POWER, 1e3),
        ("1,500req/s", REQUEST_RATE, 1500.0),
        ("50ms", TIME, 0.05),
        ("1.5s", TIME, 1.5),
        ("250us", TIME, 250e-6),
        ("250µs", TIME, 250e-6),
        ("400req/s", REQUEST_RATE, 400.0),
        ("2kreq/s", REQUEST_RATE, 2000.0),
        ("8 req/s", REQUEST_RATE, 8.0),
        ("0.25req/s", REQUEST_RATE, 0.25),
        ("2Mtok/s", TOKEN_RATE, 2e6),
        ("3.5ktok/s", TOKEN_RATE, 3500.0),
        ("$0.5", MONEY, 0.5),
        ("$12", MONEY, 12.0),
        ("3 USD", MONEY, 3.0),
        ("  50ms  ", TIME, 0.05),
    ],
)
def test_what_people_write(text: str, kind: QuantityKind, value: float) -> None:
    assert parse_quantity(text, kind, what="--x") == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("10", POWER),
        ("10M", POWER),
        ("50", TIME),
        ("50m", TIME),
        ("400", REQUEST_RATE),
        ("2M", TOKEN_RATE),
        ("0.5", MONEY),
        (10, POWER),
        (50.0, TIME),
    ],
)
def test_a_missing_unit_is_an_error_that_shows_the_right_form(text: str | float, kind: QuantityKind) -> None:
    with pytest.raises(InputError) as error:
        parse_quantity(text, kind, what="--x")  # type: ignore[arg-type]
    said = str(error.value)
    assert said.startswith("--x: ")
    assert "unit is missing" in said
    assert kind.example in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", POWER),
        ("   ", TIME),
        ("MW", POWER),
        ("ten MW", POWER),
        ("10MW!", POWER),
        ("10mw", POWER),
        ("10MWh", POWER),
        ("50ms", POWER),
        ("10MW", TIME),
        ("5min", TIME),
        ("50 ms s", TIME),
        ("400rps", REQUEST_RATE),
        ("400tok/s", REQUEST_RATE),
        ("2Mreq/s", TOKEN_RATE),
        ("€5", MONEY),
        ("nan W", POWER),
        ("inf s", TIME),
        ("-10MW", POWER),
        ("0MW", POWER),
        ("0ms", TIME),
        ("-1ms", TIME),
        ("1e999W", POWER),
        ("--", TIME),
        ("1,5MW", POWER),
        ("x = 10MW", POWER),
        ("50ms ttft=1s", TIME),
        ("5MW 10MW", POWER),
        ("None", TIME),
    ],
)
def test_what_is_no_quantity(text: str, kind: QuantityKind) -> None:
    with pytest.raises(InputError) as error:
        parse_quantity(text, kind, what="--x")
    assert str(error.value).startswith("--x: ")
    assert kind.example in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("10mW", POWER), ("50Ms", TIME), ("50ks", TIME), ("400mreq/s", REQUEST_RATE)],
)
def test_a_prefix_that_nobody_means_is_refused(text: str, kind: QuantityKind) -> None:
    """Each kind lists its prefixes: `10mW` is a slip for 10MW, nine orders of magnitude away."""
    assert text.strip("$0123456789")[0] not in kind.prefixes
    with pytest.raises(InputError):
        parse_quantity(text, kind, what="--x")


def test_zero_and_below_where_they_are_allowed() -> None:
    assert parse_quantity("0W", POWER, what="--x", positive=False) == 0.0
    assert parse_quantity("-5W", POWER, what="--x", positive=False) == -5.0


@given(st.text(max_size=12))
def test_any_text_is_answered_or_refused_in_one_line(text: str) -> None:
    for kind in KINDS.values():
        try:
            value, refusal = parse_quantity(text, kind, what="--x"), ""
        except InputError as error:
            value, refusal = 1.0, str(error)
        assert math.isfinite(value) and value > 0
        assert len(refusal.splitlines()) <= 1


@given(st.floats(1e-3, 1e6), st.sampled_from(["kW", "MW", "W", "GW"]))
def test_numbers_survive_the_writing(number: float, unit: str) -> None:
    factor = {"W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9}[unit]
    assert parse_quantity(f"{number!r}{unit}", POWER, what="--x") == pytest.approx(number * factor, rel=1e-9)


def test_reading_leaves_quantiphy_as_it_was() -> None:
    from quantiphy import Quantity

    before = Quantity.get_pref("input_sf")
    parse_quantity("10MW", POWER, what="--x")
    assert Quantity.get_pref("input_sf") == before


@pytest.mark.parametrize(
    ("value", "unit", "digits", "text"),
    [
        (2.76e6, "tok/s", 3, "2.76 Mtok/s"),
        (1e7, "W", 3, "10.0 MW"),
        (123_456.0, "W", 4, "123.5 kW"),
        (950.0, "W", 3, "950 W"),
        (0.05, "s", 3, "50.0 ms"),
        (2.5e-5, "s", 3, "25.0 µs"),
        (0.0, "W", 3, "0 W"),
        (-2.5e6, "W", 3, "-2.50 MW"),
        (5e12, "W", 3, "5,000 GW"),
        (math.inf, "s", 3, "inf s"),
        (999.7, "W", 3, "1.00 kW"),
        (9.9996, "W", 3, "10.0 W"),
    ],
)
def test_format_si(value: float, unit: str, digits: int, text: str) -> None:
    assert format_si(value, unit, digits) == text


@given(st.floats(1e-5, 9e11))
def test_written_values_read_back(value: float) -> None:
    text = format_si(value, "W", 4).replace(",", "").replace(" ", "")
    number, prefix = float(text.rstrip("WGMkmµ")), text.lstrip("0123456789.").removesuffix("W")
    scale = {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0, "m": 1e-3, "µ": 1e-6}[prefix]
    assert number * scale == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_more_than_can_be_meant_is_an_error(kind: QuantityKind) -> None:
    unit = kind.units[-1]
    assert parse_quantity(f"{kind.most:g} {unit}", kind, what="--x") == kind.most
    with pytest.raises(InputError, match=r"^--x: .* is more than .*; is the unit right\?$"):
        parse_quantity(f"{kind.most * 1.01:g} {unit}", kind, what="--x")
