"""How a plan was verified in simulation: what was found in each round, and what was cut for it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from tokopt.domain.plans import Plan
from tokopt.domain.simulations import SimulatedClass, Verdict
from tokopt.domain.verifying import Verification, VerificationRound, VerifiedItem
from tokopt.report.blocks import bullets, columns, section
from tokopt.report.figures import milliseconds, number, share, usd

HEADINGS = ("round", "set-up", "per M out", "req/s each", "limit, ms", "planned", "simulated", "")
PRECISE = 4  # digits of costs that are compared


def verification_section(plan: Plan) -> Iterator[RenderableType]:
    """Yield what simulation found of a plan, nothing where it was not simulated."""
    found = plan.verification
    if found is None:
        return
    rows = [row for n, each in enumerate(found.rounds) for row in _rows(n + 1, each)]
    yield section(
        "Simulated before it was recommended",
        _answer(found),
        Text(""),
        columns(HEADINGS, rows, left=(0, 1, 4, 7), whole=(4, 7)),
        Text(""),
        bullets(_said(plan, found)),
    )


def _answer(found: Verification) -> Text:
    if not found.classes:
        return Text.assemble(("No plan is left", "bold red"), f": {found.note}")
    word, style = ("Holds", "bold green") if found.holds else ("Does not hold", "bold red")
    kept = f"; goodput {share(found.goodput)}" if found.goodput is not None else ""
    each = "; ".join(line for line in map(_class_line, found.classes) if line)
    return Text.assemble((word, style), f" in simulation{kept}: {each}")


def _class_line(each: SimulatedClass) -> str:
    parts = []
    for name, limit in each.limits_ms.items():
        simulated = getattr(each, f"{name}_ms")
        if simulated is None:
            continue
        statistic = each.statistic if each.statistic in type(simulated).model_fields else "p90"
        sure = simulated.plus_minus.get(statistic)
        around = "" if sure is None else f" ± {milliseconds(sure)}"
        value = milliseconds(getattr(simulated, statistic))
        parts.append(f"{statistic} {name.upper()} {value}{around} of {milliseconds(limit)} ms")
    return f"{each.name}: {', '.join(parts)}" if parts else f"{each.name}: overloaded"


def _rows(number_of: int, each: VerificationRound) -> Iterator[tuple[RenderableType, ...]]:
    price = each.usd_per_million_output_tokens
    for place, item in enumerate(each.items):
        for row, name in enumerate(item.limits_ms):
            first = place == row == 0
            yield (
                str(number_of) if first else "",
                f"{item.accelerator} {item.mode.value}" if row == 0 else "",
                ("" if price is None else f"${number(price, PRECISE)}") if first else "",
                number(item.requests_per_s, PRECISE) if row == 0 else "",
                f"{item.statistic} {name.upper()} {milliseconds(item.limits_ms[name])}",
                milliseconds(item.planned_ms[name]),
                _simulated(item, name),
                _verdict(item) if row == 0 else "",
            )


def _simulated(item: VerifiedItem, name: str) -> str:
    value = item.simulated_ms.get(name)
    if value is None:
        return "overloaded"
    return f"{milliseconds(value)} ± {milliseconds(item.plus_minus_ms.get(name, 0.0))}"


def _verdict(item: VerifiedItem) -> Text:
    if item.verdict is Verdict.KEPT:
        return Text("kept", style="green")
    if item.factor == 0.0:
        return Text("not used", style="red")
    return Text(f"cut to {item.factor:.0%}", style="yellow")


def _said(plan: Plan, found: Verification) -> list[str]:
    lines = [found.note]
    first, last = found.rounds[0], found.rounds[-1]
    before, after = first.usd_per_million_output_tokens, last.usd_per_million_output_tokens
    if len(found.rounds) > 1 and before and after:
        rise = "costs" if after >= before else "saves"
        lines.append(
            f"keeping the limits in simulation {rise} {share(abs(after / before - 1.0))}: {usd(before)} to "
            f"{usd(after)} per M output tokens"
        )
    kinds = [cut for cut in plan.request.capacity_cuts if cut.deployment is None]
    lines += [
        f"{cut.accelerator} {cut.mode.value} set-ups that were not simulated are given {cut.factor:.1%} of what the "
        f"queueing model says, for {cut.of_class}"
        for cut in kinds
    ]
    lines += [
        f"set-ups for {name} were searched for "
        + ", ".join(f"{k.value.upper()} {v:.0%} of its limit" for k, v in margins.items())
        for name, margins in plan.request.limit_margins.items()
    ]
    asked = found.settings
    when = " in the period with the highest load, and in no other" if plan.request.periods else ""
    lines.append(
        f"each set-up by itself at its planned rate, then the whole fleet{when}: {asked.replications} replications of "
        f"{asked.requests:,} requests, seed {asked.seed}; ± is half the 95 % confidence interval"
    )
    return lines
