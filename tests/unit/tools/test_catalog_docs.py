"""docs/catalogs.md says what the code checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools" / "build_catalog_docs.py"


def test_the_page_is_what_the_tool_makes(tmp_path: Path) -> None:
    made = tmp_path / "catalogs.md"
    subprocess.run([sys.executable, str(TOOL), str(made)], check=True, timeout=120)
    current = (ROOT / "docs" / "catalogs.md").read_text(encoding="utf-8")
    assert made.read_text(encoding="utf-8") == current, "run: python tools/build_catalog_docs.py docs/catalogs.md"


def test_every_catalog_file_is_on_the_page() -> None:
    page = (ROOT / "docs" / "catalogs.md").read_text(encoding="utf-8")
    for entry in (ROOT / "catalogs").iterdir():
        heading = f"\n## {entry.name}" if entry.is_file() else f"\n## {entry.name}/"
        assert entry.name.startswith("README") or heading in page, entry.name
