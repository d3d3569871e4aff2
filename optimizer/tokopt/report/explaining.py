"""An explanation as text: a waterfall of what was saved by what, and a tornado of what would change the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.explaining import (
    PER_MW,
    USD,
    Baseline,
    ExplainedPlan,
    Explanation,
    Factor,
    Figures,
    Step,
    WhatIf,
    WhatIfCase,
)
from tokopt.report.blocks import bullets, columns, pairs, section
from tokopt.report.figures import plural, short, signed_share, times, usd, usd_range

LEAST_BAR, MOST_BAR = 10, 60
BESIDE_BARS = 28  # columns that a waterfall's figures and gaps take, besides its names
ROOM_FOR_FLEETS = 96  # columns from which on a tornado also names fleets and tokens per MW
HALF = 7  # characters of each side of a tornado's bar
WHOLE, LESS, MORE = "█", "▒", "▓"  # the baseline and the plan; what takes away; what adds
NAMED = 3  # factors in the sentence on top
SLIGHT = 5e-5  # relative differences below it are said to be none


def explanation_report(found: Explanation, *, columns_wide: int) -> RenderableType:
    """Return the whole report."""
    parts: list[RenderableType] = [explanation_answer(found), *warning_section(found)]
    parts += waterfall_bars(found, columns_wide=columns_wide)
    parts += factors_section(found)
    if found.what_if:
        parts += tornado_bars(found, columns_wide=columns_wide)
        parts += _reasons(found.what_if)
    parts += [explanation_assumptions(found), _provenance(found)]
    return Group(*parts)


def warning_section(found: Explanation) -> Iterator[RenderableType]:
    """Yield what to know of an explanation before it is believed."""
    if found.warnings:
        yield section("To be known", bullets(found.warnings))


def waterfall_bars(found: Explanation, *, columns_wide: int) -> Iterator[RenderableType]:
    """Yield the waterfalls as bars of text."""
    longest = max(len(word) for word in (_start(found), *(factor.title for factor in found.factors)))
    wide = max(LEAST_BAR, min(MOST_BAR, columns_wide - BESIDE_BARS - longest))
    yield section("From the baseline to the plan, $ per M output tokens", _waterfall(found, USD, wide))
    if found.baseline.tokens_per_s_per_mw is not None and found.plan.tokens_per_s_per_mw is not None:
        yield section("The same in output tokens/s per MW", _waterfall(found, PER_MW, wide))


def factors_section(found: Explanation) -> Iterator[RenderableType]:
    """Yield what each factor is, and what it does alone."""
    if found.factors:
        yield section("What the factors are", _meanings(found))


def tornado_bars(found: Explanation, *, columns_wide: int) -> Iterator[RenderableType]:
    """Yield the tornado as bars of text."""
    yield section("What if: $ per M output tokens, the widest spread first", _tornado(found, columns_wide))


def what_if_reasons(found: Explanation) -> Iterator[RenderableType]:
    """Yield why some of the cases have no plan."""
    yield from _reasons(found.what_if)


def explanation_assumptions(found: Explanation) -> RenderableType:
    """Return what an explanation takes for granted."""
    return section("Assumptions", bullets(_assumed(found)))


def explanation_answer(found: Explanation) -> Text:
    """Return one sentence with the answer."""
    old, new = found.baseline, found.plan
    text = Text.assemble((f"{new.model}, {new.workload}: {usd(new.usd_per_million_output_tokens)}", "bold green"))
    text.append(f" per M output tokens{_around(new)}")
    if not found.factors:
        return text.append(f" is what a plain {old.title} costs: the plan uses nothing beyond it")
    ratio = old.usd_per_million_output_tokens / new.usd_per_million_output_tokens
    cost = f"{usd(old.usd_per_million_output_tokens)}{_around(old)}"
    text.append(f"; the baseline, on {old.title}, costs {cost}, {times(ratio)} that")
    if old.tokens_per_s_per_mw and new.tokens_per_s_per_mw:
        more = new.tokens_per_s_per_mw / old.tokens_per_s_per_mw
        text.append(f", and the plan makes {times(more)} its tokens per MW")
    saving = [f for f in found.factors if f.usd_per_million_output_tokens.share < 0][:NAMED]
    if saving:
        shares = [f"{f.title} {usd(-f.usd_per_million_output_tokens.share)}" for f in saving]
        text.append(f". What saves most: {', '.join(shares)}")
    return text.append(".")


def _around(end: Baseline | ExplainedPlan) -> str:
    return f" (80 %: {usd_range(end.interval[USD])})" if USD in end.interval else ""


# --- waterfall ---


def _waterfall(found: Explanation, figure: str, wide: int) -> RenderableType:
    """Return a row a bar: the baseline, each factor where the ones before have left off, and the plan."""
    start, end = getattr(found.baseline, figure), getattr(found.plan, figure)
    steps = [(factor, step) for factor in found.factors if (step := _step(factor, figure)) is not None]
    most = max(start, end, *(value for _, step in steps for value in (step.before, step.after)))
    rows: list[tuple[RenderableType, ...]] = [
        (_start(found), _figure(start, figure), "", floating(0.0, start, most, wide, WHOLE))
    ]
    for factor, step in steps:
        better = (step.share < 0) == (figure == USD)
        mark = LESS if step.share < 0 else MORE
        bar = Text(floating(step.before, step.after, most, wide, mark), style="green" if better else "red")
        rows.append((factor.title, _signed(step.share, figure), _ratio(step.times), bar))
    rows.append(("plan", _figure(end, figure), times(end / start), floating(0.0, end, most, wide, WHOLE)))
    return columns(("", "share", "ratio", ""), rows, left=(0, 3))


def _start(found: Explanation) -> str:
    return f"baseline: {found.baseline.accelerator}"


def floating(before: float, after: float, most: float, wide: int, mark: str) -> str:
    """Return a bar of text from one value to another; what is there at all is at least one mark wide."""
    low, high = (round(max(0.0, value) / most * wide) for value in sorted((before, after)))
    length = max(high - low, 1 if before != after else 0)
    return " " * min(low, wide - length) + mark * length


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else times(ratio)


def _step(factor: Factor, figure: str) -> Step | None:
    step: Step | None = getattr(factor, figure)
    return step


def _figure(value: float, figure: str) -> str:
    return usd(value) if figure == USD else short(value)


def _signed(value: float, figure: str) -> str:
    return f"{'-' if value < 0 else '+'}{_figure(abs(value), figure)}"


def _meanings(found: Explanation) -> RenderableType:
    """Return what each factor is, and what it does alone: added to the baseline, and left out of the plan."""
    rows = [
        (f.title, Text(f"{f.baseline} → {f.plan}"), _alone(f.added_alone), _alone(f.left_out)) for f in found.factors
    ]
    return columns(("", "baseline → plan", "alone, $/M", "left out, $/M"), rows, left=(0, 1))


def _alone(figures: Figures | None) -> str:
    return "infeasible" if figures is None else usd(figures.usd_per_million_output_tokens)


# --- tornado ---


def _tornado(found: Explanation, columns_wide: int) -> RenderableType:
    """Return a row a case: what changes, what it then costs, and the fleet where it becomes another one."""
    known = [c.usd_difference for asked in found.what_if for c in asked.cases if c.usd_difference is not None]
    most = max((abs(value) for value in known), default=0.0)
    rows: list[tuple[RenderableType, ...]] = []
    for asked in found.what_if:
        for place, case in enumerate(asked.cases):
            rows.append((asked.title if place == 0 else "", case.change, *_outcome(case, most, found.plan.fleet)))
    heads = ("", "", "$/M", "change", "tok/s/MW", "less ┼ more", "fleet")
    if columns_wide < ROOM_FOR_FLEETS:
        kept = (0, 1, 2, 3, 5)
        return columns([heads[k] for k in kept], [[row[k] for k in kept] for row in rows], left=(0, 4))
    return columns(heads, rows, left=(0, 5, 6), whole=(0, 5))


def _outcome(case: WhatIfCase, most: float, fleet: str) -> tuple[RenderableType, ...]:
    cost, change = case.usd_per_million_output_tokens, case.relative_difference
    if cost is None or change is None:
        return "infeasible", "", "", Text(" " * HALF + "┼" + "×" * HALF, style="red"), ""
    per_mw = "" if case.tokens_per_s_per_mw is None else short(case.tokens_per_s_per_mw)
    said = "0 %" if abs(change) < SLIGHT else signed_share(change)
    kinds = _kinds(case.fleet)
    becomes = "" if kinds == _kinds(fleet) else " + ".join(kinds)
    bar = Text(diverging(case.usd_difference or 0.0, most), style="red" if change > 0 else "green")
    return usd(cost), said, per_mw, bar, becomes


def diverging(value: float, most: float) -> str:
    """Return a bar to the left of a middle for what is cheaper, to the right for what is dearer."""
    length = round(abs(value) / most * HALF) if most else 0
    return f"{LESS * length:>{HALF}}┼" if value < 0 else " " * HALF + "┼" + MORE * length


def _kinds(fleet: str) -> list[str]:
    """Return accelerator and mode of each kind in a fleet, without how many there are and how they are set up."""
    return list(dict.fromkeys(" ".join(kind.split()[1:3]) for kind in fleet.split(" + ")))


def _reasons(asked: Sequence[WhatIf]) -> Iterator[RenderableType]:
    said = [f"{each.title} {c.change}: {c.infeasible}" for each in asked for c in each.cases if c.infeasible]
    if said:
        yield Text("")
        yield bullets(said)


# --- what it rests on ---


def _assumed(found: Explanation) -> list[str]:
    said = [f"baseline: {found.baseline.title}, {found.baseline.why}; its best plan is {found.baseline.fleet}"]
    said += found.assumptions
    if found.infeasible_coalitions:
        said.append(
            f"{found.infeasible_coalitions:,} of the {found.coalitions:,} sets of factors meet the request in no way: "
            "each counts as the dearest with one factor fewer"
        )
    return said


def _provenance(found: Explanation) -> RenderableType:
    made = found.provenance
    asked = sum(len(each.cases) for each in found.what_if)
    rows = [
        ("tokopt", f"{made.tokopt_version}, catalog {made.catalog_version}, calibration {made.calibration}"),
        ("solved", f"{plural(found.coalitions, 'set')} of factors and {plural(asked, 'what-if')}, each a whole plan"),
    ]
    return section("Where the numbers come from", pairs(rows))
