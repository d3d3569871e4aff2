"""`tokopt report` and `tokopt plan --html` as they are typed: what is printed, what is written, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tokopt.cli import app

TOKOPT = [sys.executable, "-m", "tokopt"]
LIMIT_S = 240.0  # after which something hangs
QWEN = ("--model", "qwen3-8b", "--workload", "chat", "--sla", "30ms", "--power", "50kW")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "100"})
    return result.exit_code, result.stdout, result.stderr


def needs_the_extra() -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")


def test_the_page_stands_next_to_the_plan_unless_something_else_is_asked_for(
    chat_plan_file: str, tmp_path: Path
) -> None:
    needs_the_extra()
    plan = tmp_path / "ours.json"
    plan.write_bytes(Path(chat_plan_file).read_bytes())
    code, text, error = run("report", str(plan), "--quick")
    assert code == 0 and text and error == f"report written to {tmp_path / 'ours.html'}\n"
    assert (tmp_path / "ours.html").read_text().lower().startswith("<!doctype html>")


def test_the_report_is_text_where_that_is_asked_for(chat_plan_file: str) -> None:
    done = subprocess.run(
        [*TOKOPT, "report", chat_plan_file, "--quick", "--text"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    words = " ".join(done.stdout.split())
    assert words.startswith("24 NVIDIA H100 80GB SXM (owned) serve Qwen3 8B for the chat workload at $0.0")
    for said in ("80 % range", "Speed against throughput", "cooling and distribution", "Not in this report", "p99"):
        assert said in words


def test_plan_writes_page_pictures_and_itself(tmp_path: Path) -> None:
    needs_the_extra()
    html, plots, out = tmp_path / "report.html", tmp_path / "pictures", tmp_path / "plan.json"
    files = ("--html", str(html), "--plots", str(plots), "--plot-format", "svg", "--out", str(out))
    code, text, error = run("plan", *QWEN, "--gpu", "h100_sxm", "--quick", "--jobs", "1", *files)
    assert code == 0 and text.startswith("Optimal plan for qwen3-8b")
    pictures = [plots / f"{name}.svg" for name in ("frontier", "cost", "power")]
    assert error.splitlines() == [
        f"plan written to {out}",
        f"report written to {html}",
        *(f"picture written to {picture}" for picture in pictures),
    ]
    assert html.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    again = tmp_path / "again.html"
    code, text, error = run("report", str(out), "--quick", "--html", str(again))
    assert code == 0 and error == f"report written to {again}\n"
    assert (
        text.startswith("24 NVIDIA") and "Speed against throughput" not in text
    )  # a sentence: the rest is in the file
    assert again.read_bytes() == html.read_bytes()


def test_json_is_the_record(chat_plan_file: str) -> None:
    code, text, _ = run("report", chat_plan_file, "--parts", "cost,power", "--json")
    found = json.loads(text)
    assert code == 0 and found["plan"] == json.loads(Path(chat_plan_file).read_text(encoding="utf-8"))
    assert found["cost"]["lines"][0]["usd_per_gpu_hour"] == 1.3
    assert set(found["left_out"]) == {"frontier", "explanation", "price_lists"}


def test_json_of_a_plan_stays_one_document_beside_a_page(tmp_path: Path) -> None:
    needs_the_extra()
    html = tmp_path / "report.html"
    code, text, _ = run("plan", *QWEN, "--gpu", "h100_sxm", "--quick", "--html", str(html), "--json")
    assert code == 0 and json.loads(text)["status"] == "optimal" and html.stat().st_size > 100_000


def test_an_infeasible_plan_has_its_report_and_its_status(tmp_path: Path) -> None:
    needs_the_extra()
    html = tmp_path / "report.html"
    code, text, _ = run("plan", *QWEN[:4], "--sla", "tpot=0.1ms", "--demand", "5req/s", "--gpu", "h100_sxm",
                        "--quick", "--html", str(html))  # fmt: skip
    assert code == 3 and text.startswith("No plan for qwen3-8b")
    page = html.read_text(encoding="utf-8")
    assert "No fleet serves Qwen3 8B" in page and "nearest feasible" in page


def test_hostile_names_of_files_stay_names(tmp_path: Path) -> None:
    """A price file, a workload and a model overlay whose names and titles are markup."""
    needs_the_extra()
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()
    prices = folder / "script>.csv"
    prices.write_text(
        "provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour\n"
        "<img src=x onerror=alert(2)>,<b>north</b>,h100x8,h100_sxm,8,on_demand,16.0\n"
    )
    workloads = tmp_path / "workloads.yaml"
    workloads.write_text(
        "workloads:\n  '<script>alert(3)</script>':\n    model: qwen3-8b\n    workload: chat\n    demand: 20req/s\n"
        "    sla: 30ms\n"
    )
    overlay = tmp_path / "overlay" / "llms"
    overlay.mkdir(parents=True)
    shipped = Path(__file__).parents[2] / "catalogs" / "llms" / "qwen3-8b.yaml"
    lines = shipped.read_text(encoding="utf-8").splitlines()
    titled = ["title: '<script>alert(4)</script>'" if line.startswith("title:") else line for line in lines]
    (overlay / "qwen3-8b.yaml").write_text("\n".join(titled) + "\n", encoding="utf-8")
    html = tmp_path / "report.html"
    code, _, error = run(
        "plan", "--workloads", str(workloads), "--prices", str(prices), "--catalog", str(tmp_path / "overlay"),
        "--html", str(html), "--quick",
    )  # fmt: skip
    assert code == 0, error
    page = html.read_text(encoding="utf-8")
    assert page.count("<script") == 2 and "<img" not in page and "<b>" not in page
    for number in (1, 2, 3):
        assert f"alert({number})" in page
    single = tmp_path / "single.html"
    code, _, error = run("plan", *QWEN, "--gpu", "h100_sxm", "--catalog", str(tmp_path / "overlay"), "--quick",
                         "--html", str(single))  # fmt: skip
    page = single.read_text(encoding="utf-8")
    assert code == 0 and page.count("<script") == 2 and "&lt;script&gt;alert(4)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--html", "{tmp}"), "--html {tmp}: is a directory"),
        (("--html", "{tmp}/no/report.html"), "there is no directory {tmp}/no"),
        (("--plots", "{plan}"), "--plots {plan}: cannot be made"),
        (("--plot-format", "gif"), "'gif' is not one of 'png', 'svg'"),
        (("--parts", "weather"), "parts: 'weather' is not one of frontier, cost, power, explanation, price_lists"),
    ],
    ids=["folder", "nowhere", "file", "form", "part"],
)
def test_what_is_wrong_is_one_line(options: tuple[str, ...], said: str, chat_plan_file: str, tmp_path: Path) -> None:
    needs_the_extra()
    places = {"tmp": str(tmp_path), "plan": chat_plan_file}
    code, text, error = run("report", chat_plan_file, *(word.format(**places) for word in options))
    assert code == 2 and not text
    assert said.format(**places) in error and len(error.strip().splitlines()) == 1


def test_no_plan_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{}")
    code, text, error = run("report", str(file), "--text")
    assert code == 2 and not text and error.startswith(f"tokopt: error: {file}: not a plan") and error.count("\n") == 1


def test_without_the_extra_it_says_what_to_install(chat_plan_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, text, error = run("report", chat_plan_file, "--html", "report.html")
    assert code == 2 and not text
    assert error == "tokopt: error: an HTML report needs the extra 'report': pip install 'tokopt[report]'\n"
