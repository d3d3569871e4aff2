"""The answer of a plan in one sentence, and its headline figures with their ranges, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tokopt.domain.plans import Plan, Status
from tokopt.domain.reporting import BoardReport, Certainty, HeadlineFigure
from tokopt.domain.workloads import Sla
from tokopt.report.figures import number, power, rate, share, spread, usd, usd_range
from tokopt.report.plan import proof_text

MANY = 3  # kinds of machines or requests that the sentence names
NAMES = {
    "usd_per_million_output_tokens": "per million output tokens",
    "usd_per_million_total_tokens": "per million tokens in and out",
    "usd_per_hour": "cost an hour",
    "profit_usd_per_hour": "profit an hour",
    "output_tokens_per_s": "output",
    "total_tokens_per_s": "tokens in and out",
    "requests_per_s": "requests",
    "power_kw": "power",
    "tokens_per_s_per_mw": "output per megawatt",
    "carbon_kg_per_hour": "carbon",
}
MONEY = {name for name in NAMES if name.startswith(("usd", "profit"))}
RATES = ("output_tokens_per_s", "total_tokens_per_s", "tokens_per_s_per_mw")
WITHOUT = {
    Certainty.GIVEN: "as asked",
    Certainty.FOLLOWS: "no range: it follows from what is bought",
    Certainty.NO_RANGE: "no range is known",
}


def answer_sentence(report: BoardReport) -> str:
    """Return what to buy, for whom, at what cost, with what proof: one sentence."""
    plan = report.plan
    task = _task(plan, report.titles)
    if plan.status is Status.INFEASIBLE:
        nearest = "; ".join(
            f"{n.constraint} {n.nearest} instead of {n.requested}" for n in plan.nearest_feasible[:MANY]
        )
        would = f"; what would do, each alone: {nearest}" if nearest else ""
        return f"No fleet serves {task} within the limits: that is proven{would}."
    cost = plan.usd_per_million_output_tokens
    said = f"{_machines(plan, report.titles)} serve {task}"
    if cost is not None:
        known = plan.interval.get("usd_per_million_output_tokens")
        around = f" (80 % range {usd_range(known)})" if known else ""
        said += f" at {usd(cost)} per million output tokens{around}"
    facts = []
    if plan.output_tokens_per_s is not None:
        facts.append(f"{rate(plan.output_tokens_per_s, 'tok/s')} of output")
    if plan.usd_per_hour is not None:
        facts.append(f"for {usd(plan.usd_per_hour)} an hour")
    if plan.power_kw is not None:
        limit = "" if plan.power_limit_kw is None else f" of {power(plan.power_limit_kw)}"
        facts.append(f"on {power(plan.power_kw)}{limit}")
    if facts:
        said += f": {' '.join(facts)}"
    if not plan.request.classes:
        said += _kept(plan.request.sla)
    return f"{said}; {_proof(plan)}."


def _task(plan: Plan, titles: Mapping[str, str]) -> str:
    request = plan.request
    if request.classes:
        names = [each.name for each in request.classes]
        more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
        return f"{len(names)} kinds of requests ({', '.join(names[:MANY])}{more})"
    return f"{titles.get(request.llm, request.llm)} for the {request.workload.name} workload"


def _machines(plan: Plan, titles: Mapping[str, str]) -> str:
    counts: dict[tuple[str, str], int] = {}
    for item in plan.fleet:
        terms = item.provider if item.market == item.provider else f"{item.provider}, {item.market.replace('_', ' ')}"
        for part in item.bought:
            key = titles.get(part.accelerator, part.accelerator), terms
            counts[key] = counts.get(key, 0) + part.gpus
    ranked = sorted(counts.items(), key=lambda pair: -pair[1])
    words = [f"{gpus:,} {name} ({terms})" for (name, terms), gpus in ranked[:MANY]]
    left = sum(gpus for _, gpus in ranked[MANY:])
    return " and ".join([*words, *([f"{left:,} others"] if left else [])]) or "No machines"


def _kept(sla: Sla) -> str:
    limits = (("a token", sla.tpot_ms), ("the first token", sla.ttft_ms), ("the whole request", sla.e2e_ms))
    kept = [f"{_time(value)} for {name}" for name, value in limits if value is not None]
    return f", within {' and '.join(kept)} at {sla.statistic.value}" if kept else ""


def _time(ms: float) -> str:
    return f"{number(ms / 1e3)} s" if ms >= 1e3 else f"{ms:g} ms"


def _proof(plan: Plan) -> str:
    if plan.status is Status.OPTIMAL:
        return f"no fleet over the same set-ups is better, proven ({proof_text(plan)})"
    gap = "" if plan.gap is None else f": the best possible is at most {share(plan.gap)} better"
    return f"the search was cut short{gap}"


def headline_rows(report: BoardReport) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and 80 % range of each headline figure; in place of a range, why there is none."""
    for figure in report.headline:
        yield NAMES[figure.name], figure_text(figure.name, figure.value), range_text(figure)


def figure_text(name: str, value: float) -> str:
    """Return a headline figure with its unit."""
    if name in MONEY:
        per = "" if "million" in name else "/h"
        return f"{'−' if value < 0 else ''}{usd(abs(value))}{per}"
    if name in RATES:
        return rate(value, "tok/s")
    if name == "power_kw":
        return power(value)
    return f"{number(value, 4)} {'kg/h' if name.startswith('carbon') else 'req/s'}"


def range_text(figure: HeadlineFigure) -> str:
    """Return the range of a headline figure, or why there is none."""
    known = figure.interval
    if known is None:
        return WITHOUT[figure.certainty]
    if figure.name in RATES:
        return spread(known, "tok/s")
    if figure.name in MONEY and known.low >= 0.0:
        return usd_range(known)
    return f"{figure_text(figure.name, known.low)} to {figure_text(figure.name, known.high)}"
