"""What `doctor` found, line by line."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.checkup import Checkup, Health
from tokopt.report.blocks import columns

MARKS = {
    Health.FINE: ("ok", "green"),
    Health.MISSING: ("-", "dim"),
    Health.CARE: ("!", "bold yellow"),
    Health.FAULT: ("FAULT", "bold red"),
}


def checkup_report(found: Checkup) -> RenderableType:
    """Return the findings, with what to do about them."""
    rows = []
    for each in found.findings:
        mark, style = MARKS[each.health]
        said = Text(each.found)
        if each.mend:
            said.append(f"\n→ {each.mend}", style="bold" if each.health is Health.FAULT else "")
        rows.append((Text(mark, style=style), Text(each.what, style="bold"), said))
    faults = sum(each.health is Health.FAULT for each in found.findings)
    end = (
        Text("tokopt works here", style="bold green") if found.works else Text(f"at fault: {faults}", style="bold red")
    )
    return Group(columns(("", "", ""), rows, left=(0, 1, 2)), Text(""), end)
