"""Defaults of a command, with what they mean and why they are that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.report.blocks import columns


def defaults_report(command: str, rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return a table of defaults; what was given instead stands beside it."""
    given = any(row["given"] is not None for row in rows)
    heads = ["option", "default", *(["given"] if given else []), "what it is, and why"]
    table = []
    for row in rows:
        said = Text(row["means"])
        if row["why"]:
            said.append(f" {row['why'][:1].upper()}{row['why'][1:]}.", style="dim")
        instead = [Text(row["given"] or "", style="bold")] if given else []
        table.append((Text(row["option"], style="bold"), Text(row["default"]), *instead, said))
    title = Text.assemble(("Defaults of ", "bold"), (command, "bold"), ": what is taken where nothing is said")
    return Group(title, Text(""), columns(heads, table, left=range(len(heads))))
