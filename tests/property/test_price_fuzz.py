"""No content of a price file gives anything but prices, counted rejections, or an error of one line."""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "catalog"))

import tokopt
from price_files import ACCELERATORS, FOCUS, GPUHUNT, SKYPILOT, charge, hunt, read, sky
from tokopt.catalog.price_formats import own, rules
from tokopt.domain.offers import Market, PriceList
from tokopt.errors import TokoptError
from tokopt.report.prices import price_csv

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HEADERS = (SKYPILOT, GPUHUNT, FOCUS, ",".join(own.COLUMNS))
COLUMNS = sorted({name for header in HEADERS for name in header.split(",")})
CELLS = st.one_of(
    st.sampled_from(
        [
            "",
            "H100",
            "A100",
            "tpu-v6e-8",
            "8",
            "0",
            "-1",
            "1e400",
            "nan",
            "24",
            "700.0",
            "0.5",
            "USD",
            "EUR",
            "spot",
            "Hours",
            "Standard",
            "Usage",
            "aws",
            "us-east-1",
            "2026-09-01",
            "2026",
            "True",
            '{"InstanceType":"p5.48xlarge"}',
            "{'Gpus': [",
            "9" * 40,
            "1,5",
            "p5.48xlarge",
            "a3-highgpu-8g",
        ]
    ),
    st.text(max_size=12),
    st.floats().map(str),
    st.integers().map(str),
)
FILES = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """Columns of one format or of several, and rows that may be longer or shorter."""
    header = draw(st.one_of(st.sampled_from(HEADERS).map(lambda h: h.split(",")), st.lists(st.sampled_from(COLUMNS))))
    width = st.integers(max(len(header) - 1, 0), len(header) + 1)
    rows = draw(st.lists(width.flatmap(lambda n: st.lists(CELLS, min_size=n, max_size=n)), max_size=6))
    return draw(st.permutations(header)), rows


def attempted(path: Path, **options: Any) -> PriceList | str:
    """Read a file; return what it has, or the line that says why it is of no use."""
    try:
        return read(path, **options)
    except TokoptError as error:
        return str(error)


def outcome(path: Path) -> PriceList | str:
    """Read a file strictly and leniently, and check what comes out of it."""
    said, found = attempted(path), attempted(path, strict=False, rates={"EUR": 1.1}, most_listed=None)
    for line in (said, found):
        assert not isinstance(line, str) or (line and "\n" not in line), line
    if isinstance(found, str):
        return found
    for offer in found.offers:
        assert offer.accelerator in ACCELERATORS and offer.accelerator_count >= 1
        assert math.isfinite(offer.usd_per_hour) and offer.usd_per_hour > 0 and offer.market in Market
    assert sum(found.rejected_counts.values()) >= len(found.rejected)
    assert all(row.reason and row.line >= 1 for row in found.rejected)
    return said


@FILES
@given(table=tables(), separator=st.sampled_from(",;\t"), encoding=st.sampled_from(["utf-8", "utf-8-sig", "latin-1"]))
def test_no_table_gives_a_traceback(tmp_path: Path, table, separator, encoding) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    writer.writerow(table[0])
    writer.writerows(table[1])
    path = tmp_path / "aws.csv"
    path.write_bytes(out.getvalue().encode(encoding, errors="replace"))
    outcome(path)


@FILES
@given(content=st.binary(max_size=200))
@example(content=b'accelerator,usd_per_accelerator_hour\n"H100\n",2\n')
@example(content=b"\xff\xfea\x00")
@example(content=b"PAR1")
@example(content=b",,,\n,,,\n")
@example(content=b"accelerator,usd_per_accelerator_hour\r\r\nH100,2\r")
def test_no_bytes_give_a_traceback(tmp_path: Path, content: bytes) -> None:
    for name in ("x.csv", "x.parquet"):
        (tmp_path / name).write_bytes(content)
        outcome(tmp_path / name)


@FILES
@given(table=tables(), number=st.sampled_from([pl.Float64, pl.Int64, pl.String, pl.Boolean, pl.Date, pl.Binary]))
def test_no_parquet_gives_a_traceback(tmp_path: Path, table, number) -> None:
    names = list(dict.fromkeys(table[0]))
    rows = [(row + [""] * len(names))[: len(names)] for row in table[1]]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    if names:
        frame = frame.with_columns(pl.lit(None, dtype=number).alias(names[-1]))
    frame.write_parquet(tmp_path / "aws.parquet")
    outcome(tmp_path / "aws.parquet")


@FILES
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["H100", "L4", "B200"]),
            st.integers(1, 16),
            st.floats(0.5, 100.0),
            st.sampled_from([m.value for m in Market if m is not Market.OWNED]),
            st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z")), min_size=1, max_size=8),
            st.one_of(st.none(), st.integers(0, 50)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_own_lists_come_back_as_they_went_out(tmp_path: Path, rows) -> None:
    path, again = tmp_path / "first.csv", tmp_path / "again.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["provider", "accelerator", "accelerator_count", "usd_per_accelerator_hour", "market", "region",
                         "available_units", "as_of"])  # fmt: skip
        writer.writerows(
            [("acme", name, n, repr(usd), market, region, "" if units is None else units, "2026-09-01")
             for name, n, usd, market, region, units in rows]
        )  # fmt: skip
    found = tokopt.show_prices("h100_sxm,l4,b200_sxm", prices=[str(path)])
    again.write_text(price_csv(found), encoding="utf-8")
    back = tokopt.show_prices("h100_sxm,l4,b200_sxm", prices=[str(again)])
    assert back.lines == found.lines and back.spread == found.spread


def brute_force_far_below(prices: list[tuple[str, float]]) -> list[bool]:
    """Whether each (region, price) is under half the median over other regions' lowest prices, written plainly."""
    lowest: dict[str, float] = {}
    for region, price in prices:
        lowest[region] = min(price, lowest.get(region, price))
    found = []
    for region, price in prices:
        others = sorted(value for name, value in lowest.items() if name != region)
        half = len(others) // 2
        median = (others[half] if len(others) % 2 else (others[half - 1] + others[half]) / 2) if others else 0.0
        found.append(len(others) >= 2 and price < median / 2)
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefg"), st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.5, 9.0, 10.0])),
        min_size=1,
        max_size=12,
    )
)
def test_the_median_rule_agrees_with_its_definition(prices: list[tuple[str, float]]) -> None:
    frame = pl.DataFrame(
        {
            "region": [region for region, _ in prices],
            "usd_per_hour": [price for _, price in prices],
            **{name: ["x"] * len(prices) for name in ("provider", "instance_type", "accelerator", "market")},
            "count": [8] * len(prices),
        }
    )
    assert rules.far_below(frame)["far"].to_list() == brute_force_far_below(prices)


def test_the_formats_that_are_fuzzed_are_read(tmp_path: Path) -> None:
    for header, row in ((SKYPILOT, sky()), (GPUHUNT, hunt()), (FOCUS, charge())):
        path = tmp_path / "aws.csv"
        path.write_text(f"{header}\n{row}\n", encoding="utf-8")
        assert isinstance(outcome(path), PriceList)
