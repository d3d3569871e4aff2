"""Pages of the documentation site that are made when it is built: the command line from its help, files of the root."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

import tokopt

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {  # page of the site -> file of the checkout
    "reference/changelog.md": ROOT / "CHANGELOG.md",
    "reference/contributing.md": ROOT / "CONTRIBUTING.md",
    "reference/price_sources.md": ROOT / "catalogs" / "prices" / "README.md",
}


def on_config(config: Any) -> Any:
    """Have the anchors that the pages have where they are read in the checkout."""
    config.mdx_configs["toc"]["slugify"] = slug
    return config


def slug(text: str, separator: str) -> str:
    """Return the anchor of a heading as forges make it: lower case, without signs, blanks as separators."""
    return re.sub(r"[^\w\- ]", "", html.unescape(text).strip().lower()).replace(" ", separator)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    for name, path in ELSEWHERE.items():
        files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference/cli.md", content=command_line()))
    files.append(File.generated(config, "reference/python.md", content=functions()))
    files.append(File.generated(config, "reference/records.md", content=records()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at files of the checkout to where they are on the site."""
    here = page.file.src_uri
    depth = here.count("/")
    for name, path in ELSEWHERE.items():
        written = path.relative_to(ROOT).as_posix()
        target = "../" * depth + name
        markdown = markdown.replace(f"](../{written}", f"]({target}")
    if here in ELSEWHERE:
        folder = ELSEWHERE[here].parent.relative_to(ROOT).as_posix().removeprefix(".")
        markdown = _moved(markdown, folder)
    return markdown


def _moved(markdown: str, folder: str) -> str:
    """Return a page of another folder with its links to documentation as they are from `reference/`."""
    up = "../" * (folder.count("/") + 1) if folder else ""
    for name, path in ELSEWHERE.items():
        if path.parent.relative_to(ROOT).as_posix().removeprefix(".") == folder:
            markdown = markdown.replace(f"]({path.name})", f"]({Path(name).name})")
    return markdown.replace(f"]({up}docs/", "](../").replace(f"]({up}README.md)", "](../index.md)")


def functions() -> str:
    """Return the page of public functions, in the order of their names, `plan` first with what it takes."""
    names = sorted((name for name in tokopt.__all__ if name[0].islower()), key=lambda name: (name != "plan", name))
    parts = ["# Python\n", "`import tokopt` is the whole product; the command line is a thin shell over it.\n"]
    for name in names:
        parts.append(f"::: {_home(name)}.{name}\n")
        if name == "plan":
            parts.append("`make_request` has what `plan` takes:\n\n::: tokopt.api.asking.make_request\n")
    return "\n".join(parts)


def records() -> str:
    """Return the page of public records and errors."""
    said = "Requests and answers are frozen pydantic models with units in their names; `model_dump_json()` is `--json`."
    names = sorted(name for name in tokopt.__all__ if name[0].isupper())
    return "\n".join(["# Records\n", f"{said}\n", *(f"::: {_home(name)}.{name}\n" for name in names)])


def _home(name: str) -> str:
    return str(getattr(tokopt, name).__module__)


def command_line() -> str:
    """Return the help of every command, from the commands themselves."""
    from tokopt.cli import app

    parts = [
        "# Command line\n",
        "Every command takes `--json`, which prints one JSON document and nothing else. Exit status: 0 answered, 2 bad "
        "input (one line that says what is allowed), 3 proven infeasible, 1 a defect in tokopt.\n",
    ]
    parts += _commands(app, "tokopt", click.Context(app, info_name="tokopt", max_content_width=100, terminal_width=100))
    return "\n".join(parts)


def _commands(group: click.Group, path: str, context: click.Context) -> list[str]:
    found = []
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        own = click.Context(command, info_name=name, parent=context, max_content_width=100, terminal_width=100)
        if isinstance(command, click.Group):
            found += _commands(command, f"{path} {name}", own)
        else:
            found.append(f"## {path} {name}\n\n```text\n{command.get_help(own)}\n```\n")
    return found
