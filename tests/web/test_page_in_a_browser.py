"""The page in headless Chromium: as people use it, at two widths, by keyboard alone, in the dark, on paper."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from served_pages import Served, served

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
SMALL = "#model=qwen3-8b&workload=chat&tpot=50&power=30+kW&prices=ownership-hyperscaler&gpus=h100_sxm,h200_sxm"
DESKTOP, PHONE = (1280, 900), (390, 844)
ANSWERED = '#results[aria-busy="false"]'
WITHIN_MS = 60_000
PRICES = "accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,16\n"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "vocab_size": 32000,
    "max_position_embeddings": 16384,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures go: a folder that is kept where TOKOPT_SCREENSHOTS names one."""
    folder = Path(os.environ.get("TOKOPT_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visit:
    """A page that was opened, and what went wrong on it."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int], **context: Any) -> None:
        settings = {"viewport": {"width": size[0], "height": size[1]}, "accept_downloads": True} | context
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WITHIN_MS)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("request", self._request)
        self.own = re.match(r"http://[^/]+", address)[0]  # type: ignore[index]
        self.page.goto(address)
        self.page.wait_for_selector("#answer:not([hidden])")
        self.answered()

    def _console(self, message: Any) -> None:
        expected = "status of 422" in message.text or "status of 404" in message.text
        if message.type in ("error", "warning") and not expected:
            self.faults.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.own, "blob:")):
            self.faults.append(f"asked elsewhere: {request.url}")

    def answered(self) -> str:
        """Wait for the answer; return what is said of it."""
        self.page.wait_for_selector(ANSWERED)
        return str(self.page.inner_text("#status"))

    def fits(self) -> bool:
        """Whether nothing reaches beyond the right edge."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    def shoot(self, folder: Path, name: str) -> None:
        self.page.screenshot(path=str(folder / f"{name}.png"), full_page=True)


@pytest.fixture
def visit(browser: Any, server: Served) -> Iterator[Any]:
    """Open the page at a link; whatever went wrong on it fails the test."""
    opened: list[Visit] = []

    def go(link: str = SMALL, size: tuple[int, int] = DESKTOP, **context: Any) -> Visit:
        opened.append(Visit(browser, server.link + link, size, **context))
        return opened[-1]

    yield go
    for each in opened:
        each.context.close()
        assert not each.faults


def test_a_planner_moves_sliders_and_compares(visit: Any, screenshots: Path) -> None:
    there = visit()
    page = there.page
    assert "per million output tokens" in page.inner_text("#sentence")
    assert page.locator("#headline > div").count() >= 6 and "80 %" in page.inner_text("#headline")
    assert page.locator("#fleet-body tbody tr").count() >= 1
    assert page.inner_text("#why-body").strip()
    there.shoot(screenshots, "desktop")

    page.click("#pin")
    there.answered()
    star = page.locator("#chart .plan-mark:not(.pinned-mark)")
    before, line = star.first.get_attribute("transform"), page.get_attribute("#chart .limit", "d")
    page.focus("#tpot-slider")
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    there.answered()
    assert page.input_value("#tpot") == "14"
    assert page.get_attribute("#chart .limit", "d") != line
    assert star.first.get_attribute("transform") != before
    page.wait_for_selector("#comparison table")
    assert "%" in page.inner_text("#comparison-body") and "sla" in page.inner_text("#comparison-body")
    assert page.locator("#chart .pinned-mark").count() >= 1
    there.shoot(screenshots, "comparison")
    page.click("#swap")
    there.answered()
    assert page.input_value("#tpot") == "50"
    page.click("#unpin")
    there.answered()
    assert page.is_hidden("#comparison")
    assert there.fits()


def test_a_link_reproduces_the_view(visit: Any) -> None:
    there = visit()
    page = there.page
    page.fill("#power", "60 kW")
    page.select_option("#objective", "throughput")
    there.answered()
    page.click("#pin")
    there.answered()
    page.fill("#tpot", "25")
    there.answered()
    page.wait_for_selector("#comparison table")
    assert "within 25 ms" in page.inner_text("#comparison-body")
    again = visit("#" + page.url.partition("#")[2])
    again.page.wait_for_selector("#comparison table")
    for place in ("#sentence", "#headline", "#comparison-body", "#fleet-body"):
        assert again.page.inner_text(place) == page.inner_text(place)
    assert again.page.input_value("#objective") == "throughput"


def test_the_keyboard_alone_does(visit: Any) -> None:
    there = visit()
    page = there.page
    seen = []
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('class') || ''"))
        if "mark" in seen[-1]:
            break
    wanted = {"model", "workload", "tpot-slider", "tpot", "power-slider", "power", "objective", "choose-file", "pin"}
    assert wanted <= set(seen), seen
    assert "plan-mark" in seen[-1]
    first = page.inner_text("#point")
    assert first.startswith("the plan: ") and "replicas" in first
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    other = page.inner_text("#point")
    assert other != first and "tokens/s a user" in other
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == other
    page.focus("#power-slider")
    page.keyboard.press("ArrowRight")
    assert there.answered().startswith("Answered in")
    assert page.input_value("#power") == "50 kW"
    assert page.evaluate("document.activeElement.id") == "power-slider"


def test_every_field_has_a_name_for_screen_readers(visit: Any) -> None:
    page = visit().page
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    bare = page.evaluate(
        """[...document.querySelectorAll('input, select, button')]
             .filter((each) => !(each.labels?.length || each.getAttribute('aria-label') || each.textContent.trim()))
             .map((each) => each.outerHTML)"""
    )
    assert not bare
    assert page.get_attribute("#status", "aria-live") == "polite" and page.get_attribute("#fault", "role") == "alert"
    assert page.get_attribute("#tpot-slider", "aria-valuetext") == "50 milliseconds"
    assert page.get_attribute("html", "lang") == "en"


def test_errors_stand_at_their_field_and_nothing_typed_is_lost(visit: Any, screenshots: Path) -> None:
    there = visit()
    page = there.page
    sentence = page.inner_text("#sentence")
    page.fill("#power", "lots")
    there.answered()
    assert "not a power" in page.inner_text("#error-power")
    assert page.get_attribute("#power", "aria-invalid") == "true"
    assert page.get_attribute("#power", "aria-describedby") == "error-power"
    assert page.input_value("#power") == "lots" and page.inner_text("#sentence") == sentence
    there.shoot(screenshots, "error")
    page.fill("#power", "<img src=x onerror=alert(1)>")
    there.answered()
    assert page.locator("#error-power img").count() == 0
    page.fill("#power", "40kW")
    assert there.answered().startswith("Answered")
    assert page.locator(".error").count() == 0
    page.fill("#tpot", "0.1")
    there.answered()
    assert "No fleet serves" in page.inner_text("#sentence") and "Nearest" in page.inner_text("#why-body")


def test_files_can_be_brought_and_taken(visit: Any, tmp_path: Path, screenshots: Path) -> None:
    there = visit()
    page = there.page
    (tmp_path / "mine.csv").write_text(PRICES)
    page.set_input_files("#file", str(tmp_path / "mine.csv"))
    page.wait_for_selector("#uploads li")
    there.answered()
    assert "mine.csv" in page.inner_text("#uploads") and page.is_checked("input[value^='upload-']")
    assert "drop them in" in page.inner_text("#link-note")
    drop(page, "config.json", json.dumps(CONFIG))
    page.wait_for_selector("#uploads li:nth-child(2)")
    there.answered()
    assert "config.json serve" in page.inner_text("#sentence").replace(" for", "") or "config.json" in page.inner_text(
        "#sentence"
    )
    drop(page, "wrong.csv", "a,b\n1,2\n")
    page.wait_for_selector("#error-upload")
    assert "wrong.csv: not a price list" in page.inner_text("#error-upload")
    there.shoot(screenshots, "uploads")
    for what, name, begin in (("plan", "plan.json", b"{"), ("export", "vllm.zip", b"PK")):
        with page.expect_download() as download:
            page.click(f'[data-take="{what}"]')
        assert download.value.suggested_filename == name
        assert Path(download.value.path()).read_bytes().startswith(begin)
    assert "--prices mine.csv" in page.text_content("#command-line")


def test_the_report_can_be_taken(visit: Any) -> None:
    pytest.importorskip("jinja2")
    page = visit().page
    with page.expect_download() as download:
        page.click('[data-take="report"]')
    assert b"<!DOCTYPE html>" in Path(download.value.path()).read_bytes()[:100]


def drop(page: Any, name: str, content: str) -> None:
    """Drop a file onto the page, as from a folder."""
    data = page.evaluate_handle(
        """([name, content]) => {
             const data = new DataTransfer();
             data.items.add(new File([content], name));
             return data;
           }""",
        [name, content],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})


def test_a_phone_shows_all_of_it(visit: Any, screenshots: Path) -> None:
    there = visit(size=PHONE, has_touch=True, is_mobile=True)
    page = there.page
    assert there.fits()
    chart = page.locator("#chart svg").bounding_box()
    assert 300 <= chart["width"] <= 390
    page.click("summary:has-text('More limits')")
    page.click("#pin")
    page.fill("#tpot", "20")
    there.answered()
    page.wait_for_selector("#comparison table")
    assert "within 20 ms" in page.inner_text("#sentence") and "within 50 ms" in page.inner_text("#comparison-body")
    assert there.fits()
    there.shoot(screenshots, "phone")


def test_the_dark_and_paper(visit: Any, screenshots: Path) -> None:
    there = visit(color_scheme="dark")
    page = there.page
    colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    ink, paper = page.evaluate(colours)
    assert sum(map(int, re.findall(r"\d+", ink))) > 600 > 200 > sum(map(int, re.findall(r"\d+", paper)))
    there.shoot(screenshots, "dark")
    page.emulate_media(media="print")
    assert page.is_hidden("#question") and page.is_visible("#sentence")
    assert sum(map(int, re.findall(r"\d+", page.evaluate(colours)[0]))) == 0
    there.shoot(screenshots, "print")


def test_a_link_with_a_token_opens_the_page_and_does_not_stay_in_the_address(browser: Any) -> None:
    with served("--token", "0123456789abcdefXYZ", "--max-solves", "1") as found:
        there = Visit(browser, found.link + SMALL, DESKTOP)
        assert "token" not in there.page.url
        assert there.context.cookies()[0]["httpOnly"]
        there.page.fill("#power", "40 kW")
        assert there.answered().startswith("Answered")
        there.page.reload()
        assert there.answered() and there.page.input_value("#power") == "40 kW"
        there.context.close()
        assert not there.faults


def test_the_api_is_listed(visit: Any, server: Served, screenshots: Path) -> None:
    page = visit().page
    page.click("text=JSON API")
    page.wait_for_selector("text=POST /api/v1/plan")
    page.screenshot(path=str(screenshots / "api.png"))
