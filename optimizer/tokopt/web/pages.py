"""The page and what belongs to it: files of the package, read once; no name from a request is ever a path."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def static_files() -> dict[str, tuple[bytes, str]]:
    """Return content and media type of each file, by name."""
    folder = files("tokopt.web") / "static"
    return {
        each.name: (each.read_bytes(), TYPES[ending])
        for each in folder.iterdir()
        if (ending := each.name.rpartition(".")[2]) in TYPES
    }
