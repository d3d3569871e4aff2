"""`--sla`, `--demand` and lists of names: every form of the design, and each kind of bad text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt import Sla
from tokopt.api.requests import limits_of, names, parse_demand, parse_sla, resolve_workload, with_default_ttft
from tokopt.domain.workloads import Statistic, Workload
from tokopt.errors import InputError


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("50ms", {"tpot_ms": 50.0}, False),
        ("0.05s", {"tpot_ms": 50.0}, False),
        ("tpot=40ms", {"tpot_ms": 40.0}, False),
        ("tpot=40ms,ttft=1s,p99", {"tpot_ms": 40.0, "ttft_ms": 1000.0}, True),
        ("p90, tpot = 40ms , ttft = 1.5s", {"tpot_ms": 40.0, "ttft_ms": 1500.0, "statistic": "p90"}, True),
        ("50ms,ttft=2s,mean", {"tpot_ms": 50.0, "ttft_ms": 2000.0, "statistic": "mean"}, True),
        ("ttft=500ms", {"ttft_ms": 500.0}, True),
        ("e2e=20s,p50", {"e2e_ms": 20_000.0, "statistic": "p50"}, True),
        ("tok/s/user=20", {"tpot_ms": 50.0}, False),
        ("tok/s/user=20tok/s,ttft=3s", {"tpot_ms": 50.0, "ttft_ms": 3000.0}, True),
        ("50ms,ttft=none", {"tpot_ms": 50.0, "ttft_ms": None}, True),
        ("p95", {"statistic": "p95"}, False),
        ("50ms,p75", {"tpot_ms": 50.0, "statistic": "p75"}, False),
    ],
)
def test_every_form(text: str, expected: dict[str, object], said: bool) -> None:
    sla, said_first_token = parse_sla(text)
    assert sla == Sla(**expected) or sla.model_dump() == pytest.approx(Sla(**expected).model_dump())
    assert said_first_token is said


def test_a_bare_limit_is_tpot_at_p99() -> None:
    sla, _ = parse_sla("50ms")
    assert (sla.tpot_ms, sla.statistic) == (pytest.approx(50.0), Statistic.P99)
    assert (sla.ttft_ms, sla.e2e_ms) == (None, None)


def test_a_record_is_taken_as_it_is() -> None:
    sla = Sla(tpot_ms=33.0)
    assert parse_sla(sla)[0] is sla


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "--sla"),
        ("50", "unit is missing"),
        ("fast", "--sla"),
        ("50ms,", "--sla"),
        (",", "--sla"),
        ("50MW", "50ms"),
        ("0ms", "above zero"),
        ("-5ms", "above zero"),
        ("tpot=", "--sla tpot"),
        ("tpot=50", "unit is missing"),
        ("=50ms", "not a limit"),
        ("latency=50ms", "not a limit"),
        ("tpot=50ms,tpot=40ms", "twice"),
        ("50ms,tpot=40ms", "twice"),
        ("tok/s/user=20,50ms", "twice"),
        ("50ms,p99,p50", "two statistics"),
        ("50ms,p42", "--sla"),
        ("tok/s/user=0", "above zero"),
        ("tok/s/user=-3", "above zero"),
        ("tok/s/user=nan", "above zero"),
        ("tok/s/user=inf", "above zero"),
        ("tok/s/user=many", "tok/s/user=20"),
        ("ttft=infs", "--sla ttft"),
        ("tpot=50ms ttft=1s", "--sla"),
    ],
)
def test_bad_text_is_refused_in_one_line(text: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        parse_sla(text)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(alphabet="tpofe2=,ms0159n /usrk", max_size=20))
def test_any_text_is_answered_or_refused(text: str) -> None:
    try:
        sla, refusal = parse_sla(text)[0], ""
    except InputError as error:
        sla, refusal = Sla(), str(error)
    assert len(refusal.splitlines()) <= 1
    for limit in (sla.tpot_ms, sla.ttft_ms, sla.e2e_ms):
        assert limit is None or (limit > 0 and math.isfinite(limit))


CHAT = Workload(name="w", input_tokens=1000, output_tokens=500)


def test_a_limit_on_the_first_token_is_added_only_where_none_was_said() -> None:
    sla, added = with_default_ttft(*parse_sla("50ms"), CHAT)
    assert added
    assert sla.ttft_ms == pytest.approx(3000.0)  # 2 s and 1 ms a token
    for text in ("50ms,ttft=none", "e2e=5s", "50ms,ttft=1s"):
        before, said = parse_sla(text)
        assert with_default_ttft(before, said, CHAT) == (before, False)


def test_limits_in_seconds() -> None:
    limits = limits_of(Sla(tpot_ms=50, statistic=Statistic.P90))
    assert (limits.tpot_s, limits.ttft_s, limits.e2e_s, limits.statistic) == (0.05, math.inf, math.inf, "p90")


@pytest.mark.parametrize(
    ("text", "rate"), [("400req/s", 400.0), ("2ktok/s", 4.0), ("2Mtok/s", 4000.0), ("0.5 req/s", 0.5)]
)
def test_demand(text: str, rate: float) -> None:
    assert parse_demand(text, 500.0) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["400", "400rps", "", "-1req/s", "0tok/s", "many tok/s", "10MW", 400])
def test_bad_demand(text: str | float) -> None:
    with pytest.raises(InputError) as error:
        parse_demand(text, 500.0)
    assert "\n" not in str(error.value)
    assert "tok/s" in str(error.value)


def test_names() -> None:
    assert names(None) == ()
    assert names("") == ()
    assert names("aws, gcp ,,lambda") == ("aws", "gcp", "lambda")
    assert names(["aws", " gcp "]) == ("aws", "gcp")


def test_single_figures_replace_those_of_a_workload(catalog) -> None:
    base = catalog.workload("chat")
    changed = resolve_workload(catalog, "chat", input_tokens=77, prefix_share=0.5)
    assert (changed.input_tokens, changed.output_tokens, changed.prefix_share) == (77, base.output_tokens, 0.5)
    assert (changed.input_cv, changed.output_cv, changed.arrival_cv2) == (
        base.input_cv,
        base.output_cv,
        base.arrival_cv2,
    )
    assert changed.name != base.name
    assert resolve_workload(catalog, "chat").name == base.name


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": 0},
        {"input_tokens": math.nan},
        {"output_tokens": -3},
        {"output_tokens": math.inf},
        {"prefix_share": 1.2},
        {"prefix_share": -0.1},
        {"prefix_share": math.nan},
    ],
)
def test_impossible_figures(catalog, change: dict[str, float]) -> None:
    with pytest.raises(InputError):
        resolve_workload(catalog, "chat", **change)
