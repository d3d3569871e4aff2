"""`tokopt prices`: reports, one JSON document, a price list to keep, and one clear line for bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tokopt
from tokopt.cli import app
from tokopt.domain.plans import Plan
from tokopt.domain.pricing import PriceCheck, PriceTable

HEADER = "provider,region,instance_type,accelerator,accelerator_count,market,price_per_hour,currency,as_of"
ROWS = (
    "acme,east,m8,h200,8,on_demand,24,USD,2026-09-01",
    "acme,west,m8,h200,8,on_demand,28,USD,2026-08-01",
    "acme,east,m8,h200,8,spot,30,USD,2026-09-01",
    "beta,east,n8,h100,8,on_demand,16,USD,",
    "acme,east,x,h900,8,on_demand,24,USD,2026-09-01",
    "acme,east,y,h200,8,on_demand,0,USD,2026-09-01",
    "acme,east,z,h200,8,on_demand,0.0,USD,2026-09-01",
)


def run(*arguments: str, columns: int = 100) -> Result:
    return CliRunner().invoke(app, ["prices", *arguments], env={"COLUMNS": str(columns)})


def answer(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.csv"
    path.write_text("\n".join([HEADER, *ROWS]) + "\n", encoding="utf-8")
    return str(path)


def test_check_json_contract(mine: str) -> None:
    found = PriceCheck.model_validate(answer("check", mine))
    assert (found.rows, found.offers, found.rejected) == (7, 4, 3)
    assert found.rejected_by_reason == {
        "price is no price: it must be above zero": 2,
        "accelerator 'h900' is not in the catalog": 1,
    }
    assert found.accelerators == {"h100_sxm": 1, "h200_sxm": 3}
    assert (found.oldest, found.newest, found.undated) == ("2026-08-01", "2026-09-01", 1)
    assert found.flagged == {"spot price is not below on-demand": 1}
    assert [row.line for row in found.rejected_rows] == [6, 7, 8]
    assert [file.format for file in found.files] == ["tokopt"]
    assert sum(found.accelerators.values()) == found.offers


def test_check_report_says_what_was_read_and_what_was_not(mine: str) -> None:
    said = run("check", mine).output
    for words in ("4 offers in 7 rows", "3 rows rejected", "h900", "2 × price is no price", f"{mine}:6", "2026-08-01"):
        assert re.sub(r"\s+", "", words) in re.sub(r"\s+", "", said), words


def test_list_names_every_rejected_row(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = [f"acme,r{n},m,h900,8,on_demand,24,USD," for n in range(150)]
    path.write_text("\n".join([HEADER, ROWS[0], *rows]) + "\n", encoding="utf-8")
    assert len(answer("check", str(path))["rejected_rows"]) == 3
    assert [r["line"] for r in answer("check", str(path), "--list")["rejected_rows"]] == list(range(3, 153))
    assert "many.csv:152" in run("check", str(path), "--list").output.replace("\n", "")


def test_check_takes_embedded_lists_and_directories(mine: str, tmp_path: Path) -> None:
    assert answer("check", "aws", "ownership-hyperscaler", str(tmp_path))["offers"] > 100
    os.chdir(tmp_path)
    assert len(answer("check", "mine.csv", "--quiet")["files"]) == 1


def test_a_list_without_one_usable_price_has_exit_status_2(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"{HEADER}\n{ROWS[5]}\n", encoding="utf-8")
    result = run("check", str(path), "--json")
    assert result.exit_code == 2 and json.loads(result.stdout)["rejected"] == 1
    assert result.stderr == f"tokopt: error: {path}: no price that can be used; rows: 1, rejected: 1\n"


def test_a_list_of_nothing_but_a_header_is_told_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "header.csv"
    path.write_text(f"{HEADER}\n", encoding="utf-8")
    result = run("check", str(path))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "rows: 0" in result.stderr


def test_other_currencies_need_a_rate(tmp_path: Path) -> None:
    path = tmp_path / "eur.csv"
    path.write_text(f"{HEADER}\n{ROWS[0].replace('USD', 'EUR')}\n", encoding="utf-8")
    result = run("show", "--gpu", "h200", "--prices", str(path))
    assert result.exit_code == 2
    assert re.search(r"eur\.csv: line 2: currency EUR needs a rate: --rate EUR=", result.stderr)
    found = PriceTable.model_validate(answer("show", "--gpu", "h200", "--prices", str(path), "--rate", "EUR=1.25"))
    assert found.lines[0].usd_per_hour == 30.0 and found.rates == {"EUR": 1.25}
    report = run("show", "--gpu", "h200", "--prices", str(path), "--rate", "eur=1.25").output
    assert "1 EUR = 1.25 USD" in report
    assert "1 EUR = 1.25 USD" in run("check", str(path), "--rate", "EUR=1.25").output


@pytest.mark.parametrize(
    ("rate", "said"),
    [("EUR", "not a number"), ("EURO=1", "no currency"), ("EUR=0", "above zero"), ("EUR=x", "not a number"),
     ("EUR=1,EUR=2", "twice"), ("USD=2", "that rate is 1"), ("EUR=inf", "above zero")],
)  # fmt: skip
def test_rates_that_are_none(mine: str, rate: str, said: str) -> None:
    result = run("check", mine, "--rate", rate)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_show_json_contract_and_order(mine: str) -> None:
    found = PriceTable.model_validate(answer("show", "--gpu", "h200", "--prices", mine))
    assert [line.usd_per_gpu_hour for line in found.lines] == [3.0, 3.5, 3.75]
    assert found.prices_as_of == "2026-08-01 to 2026-09-01"
    assert {(s.provider, s.market): (s.offers, s.lowest, s.median, s.highest) for s in found.spread} == {
        ("acme", "on_demand"): (2, 3.0, 3.25, 3.5),
        ("acme", "spot"): (1, 3.75, 3.75, 3.75),
    }
    assert [line.flags for line in found.lines] == [(), (), ("spot price is not below on-demand",)]


def test_show_narrows_by_market_and_region(mine: str) -> None:
    one = answer("show", "--gpu", "h200", "--prices", mine, "--market", "on_demand", "--region", "west")
    assert [line["region"] for line in one["lines"]] == ["west"]
    both = answer("show", "--gpu", "h200,h100", "--prices", mine)
    assert {line["accelerator"] for line in both["lines"]} == {"h200_sxm", "h100_sxm"}


def test_the_plot_has_a_row_a_provider_with_letters_at_the_prices(mine: str) -> None:
    said = run("show", "--gpu", "h200", "--prices", mine).output
    rows = {line.partition("│")[0].strip(): line.partition("│")[2] for line in said.splitlines() if "│" in line}
    assert set(rows) == {"acme on demand", "acme spot"}
    assert rows["acme on demand"].count("o") == 2 and rows["acme on demand"].index("o") < rows["acme on demand"].index(
        "M"
    )
    assert rows["acme spot"].rindex("M") > rows["acme on demand"].rindex("o")  # 3.75 stands right of 3.50
    assert "M median" in said and "│" not in run("show", "--gpu", "h200", "--prices", mine, "--no-plot").output


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_reports_fit_the_terminal(columns: int) -> None:
    said = run("show", "--gpu", "h200", columns=columns).output
    assert all(len(line) <= columns for line in said.splitlines())


def test_most_and_all(mine: str) -> None:
    assert "the 1 cheapest of 3" in run("show", "--gpu", "h200", "--prices", mine, "--most", "1").output
    assert "Offers (all)" in run("show", "--gpu", "h200", "--prices", mine, "--all").output


def test_offers_are_written_as_a_list_that_is_read_again(mine: str, tmp_path: Path) -> None:
    target = tmp_path / "kept.csv"
    result = run("show", "--gpu", "h200", "--prices", mine, "--csv", str(target), "--json")
    found = json.loads(result.stdout)
    assert answer("show", "--gpu", "h200", "--prices", str(target))["lines"] == found["lines"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show",), "--gpu h200"),
        (("show", "--gpu", "h900"), "unknown accelerator 'h900'"),
        (("show", "--gpu", "h200", "--prices", "awz"), "unknown price list 'awz'; did you mean aws"),
        (("show", "--gpu", "h200", "--market", "lease"), "unknown market 'lease'"),
        (("show", "--gpu", "h200", "--region", "nowhere"), "no price of h200_sxm in all (regions nowhere)"),
        (("show", "--gpu", "mi250"), "no price of mi250"),
        (("show", "--gpu", "h200", "--prices", "none.csv"), "none.csv: cannot be read: No such file"),
        (("show", "--gpu", "h200", "--most", "0"), "--most"),
        (("show", "--gpu", "h200", "--csv", "/nowhere/x.csv"), "there is no directory"),
        (("check",), "FILE"),
        (("check", "none.parquet"), "none.parquet: cannot be read"),
        (("check", "aws", "--market", "spot"), "no such option"),
        (("chekc",), "did you mean check?"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_plans_take_every_format_and_say_the_dates_of_what_they_use(tmp_path: Path) -> None:
    header = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice"
    vms = tmp_path / "acme" / "vms.csv"
    vms.parent.mkdir()
    vms.write_text(f"{header}\nm8,H100,8,96,1000,24,east,,\n", encoding="utf-8")
    mine = tmp_path / "mine.csv"
    mine.write_text(f"{HEADER}\nbeta,west,n8,H200,8,on_demand,20,EUR,2026-09-01\n", encoding="utf-8")
    command = [sys.executable, "-m", "tokopt", "plan", "--model", "qwen3-8b", "--workload", "chat", "--power", "200kW",
               "--prices", f"{vms},{mine}", "--rate", "EUR=1.1"]  # fmt: skip
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    plan = Plan.model_validate_json(done.stdout)
    assert plan.request.rates == {"EUR": 1.1} and plan.provenance.used_prices_as_of in ("", "2026-09-01")
    assert {item.provider for item in plan.fleet} <= {"acme", "beta"}
    assert not tokopt.check(plan)
    report = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for item in plan.fleet:
        assert f"as of {item.price_as_of or 'not known'}" in " ".join(report.split())
    assert "1 EUR = 1.1 USD" in " ".join(report.split())


def test_a_plan_from_the_snapshot_says_its_dates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tokopt", "plan", "--model", "qwen3-8b", "--workload", "chat", "--power", "200kW"]
    done = subprocess.run(
        [*command, "--prices", "all", "--gpu", "h200"], capture_output=True, text=True, timeout=120, check=True
    )
    assert re.search(r"all as of 2025 to 2026-\d\d-\d\d; the offers used: 20\d\d", " ".join(done.stdout.split()))
