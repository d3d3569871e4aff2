"""The page in a browser: nothing sticks out at any width, paper has everything, marks say what they are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

import tokopt
from tokopt.domain.plans import Plan

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMIT_S = 120.0  # after which something hangs
WIDTHS = (1280, 390)
# Laid out in a frame, because a window of a browser does not get as narrow as a phone.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><title>frame</title>
<iframe id="page" width="{wide}" height="900" srcdoc="{page}"></iframe><pre id="found"></pre>
<script>
const frame = document.getElementById("page");
frame.addEventListener("load", () => {{
  const at = frame.contentDocument, root = at.scrollingElement, wide = root.clientWidth;
  const wider = Array.from(at.querySelectorAll("body *")).filter((each) => !each.closest(".scroll, .chart") &&
    each.id !== "tip" && each.getBoundingClientRect().right > wide + 1).map((each) => each.outerHTML.slice(0, 80));
  const mark = at.querySelector("[data-mark]");
  const tip = at.getElementById("tip");
  const before = tip.hidden;
  mark.dispatchEvent(new FocusEvent("focus"));
  const focused = tip.textContent;
  mark.dispatchEvent(new KeyboardEvent("keydown", {{ key: "ArrowRight" }}));
  const next = tip.textContent;
  mark.dispatchEvent(new KeyboardEvent("keydown", {{ key: "Escape" }}));
  const hidden = tip.hidden;
  const point = mark.querySelector("use");
  point.dispatchEvent(new MouseEvent("mouseenter"));
  const box = tip.getBoundingClientRect();
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.scrollWidth, room: wide, wider, before, focused, next, hidden, hovered: tip.textContent,
    inside: box.left >= 0 && box.right <= wide && box.top >= 0,
    names: Array.from(at.querySelectorAll("svg")).map((each) => each.getAttribute("aria-label") || ""),
  }});
}});
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


def chromium(folder: Path, *arguments: str) -> str:
    """Run Chromium without a window, with a profile of its own."""
    assert CHROMIUM is not None
    settings = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}")
    command = [CHROMIUM, *settings, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def page(chat_plan: Plan) -> str:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    return tokopt.report_html(chat_plan, parts="frontier,cost,power,price_lists")


@pytest.mark.parametrize("wide", WIDTHS)
def test_nothing_sticks_out_and_marks_speak(page: str, wide: int, tmp_path: Path) -> None:
    from html import escape

    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(wide=wide, page=escape(page)), encoding="utf-8")
    shown = chromium(tmp_path / "profile", "--virtual-time-budget=5000", "--dump-dom", frame.as_uri())
    text = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert text is not None and text[1], "the page's script did not come to its end"
    found = json.loads(unescape(text[1]))
    assert found["width"] <= found["room"] <= wide and not found["wider"], found["wider"]
    assert found["before"] and found["hidden"] and found["inside"]
    assert "NVIDIA H100 80GB SXM: " in found["focused"] and "tok/s/user" in found["focused"]
    assert found["next"] != found["focused"] and found["hovered"] == found["focused"]
    assert all(found["names"])


def test_paper_has_every_section_and_the_folded_data(page: str, tmp_path: Path) -> None:
    file, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(page, encoding="utf-8")
    chromium(tmp_path / "profile", f"--print-to-pdf={paper}", "--no-pdf-header-footer", file.as_uri())
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    boxes = {
        tuple(round(float(edge)) for edge in box.split()) for box in re.findall(rb"/MediaBox ?\[([^\]]+)\]", content)
    }
    assert boxes == {(0, 0, 595, 842)}  # A4 upright
    reader = shutil.which("pdftotext")
    if reader is None:
        pytest.skip("pdftotext is not installed: the words on paper are not read (apt-get install poppler-utils)")
    words = subprocess.run([reader, "-layout", str(paper), "-"], capture_output=True, text=True, check=True).stdout
    said = " ".join(words.split())
    for title in re.findall(r"<h2>(.*?)</h2>", page):
        assert unescape(title) in said, title
    assert "ownership-neocloud" in said  # of the data behind a chart, which a screen has folded
    assert "swipe" not in said
