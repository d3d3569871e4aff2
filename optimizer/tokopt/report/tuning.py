"""A tuning as a report: what to change, what that does, how sure it is, and what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.tuning import Aim, ItemTuning, Sure, TunedSettings, Tuning, TuningTrial
from tokopt.report.blocks import bullets, columns, counted, pairs, section
from tokopt.report.figures import milliseconds, number, plural, share, signed_share, usd

MOST_SHOWN = 8  # trials of a front
BAR = 24
SETTINGS = {  # field -> what it is called
    "concurrency_per_replica": "running cap of a replica",
    "chunk_tokens": "prefill chunk, tokens",
    "speculation_depth": "draft tokens a step",
    "prefill_workers": "prefill workers of a replica",
    "decode_workers": "decode workers of a replica",
    "router": "router",
    "kv_offload": "prefixes go on to",
    "accelerator": "accelerator",
}
AIMS = {
    Aim.COST: "$ per M output tokens",
    Aim.GOODPUT: "goodput",
    Aim.P99: "worst p99 over its limit",
    Aim.ENERGY: "J per output token",
}


def tuning_report(found: Tuning) -> RenderableType:
    """Return the whole report."""
    parts: list[RenderableType] = [_answer(found)]
    if found.notes or found.stopped_early:
        known = [*found.notes, *([f"the search ended early: {found.stopped_early}"] if found.stopped_early else [])]
        parts.append(section("To be known", bullets(known)))
    for item in found.items:
        parts += _item(item, found)
    parts.append(section("Assumptions", bullets(found.assumptions)))
    parts.append(section("Where the numbers come from", _provenance(found)))
    return Group(*parts)


def _answer(found: Tuning) -> RenderableType:
    """Return one sentence with the answer."""
    before, after = found.usd_per_million_output_tokens_before, found.usd_per_million_output_tokens
    if not found.improved:
        text = Text.assemble(("The plan's own settings stay: nothing better was found", "bold"))
        return text.append(
            f". Simulated, they cost {usd(before)} per M output tokens at the highest rate that keeps the limits "
            f"(planned: {usd(found.usd_per_million_output_tokens_planned)})."
        )
    text = Text.assemble((f"{usd(after)} per M output tokens", "bold green"))
    text.append(f" with tuned settings, {usd(before)} with the planned ones: both simulated, at the highest rate that ")
    text.append(f"keeps the limits. {share(after and before / after - 1.0)} more tokens for the same money.")
    return text


# --- one item ---


def _item(item: ItemTuning, found: Tuning) -> Iterator[RenderableType]:
    many = len(found.items) > 1
    of = f"Item {item.item}, {item.accelerator}: " if many else ""
    aim = found.settings.objectives[0]
    if item.improved:
        yield section(f"{of}{'what' if many else 'What'} to change", _changes(item))
    yield section(f"{of}{'in' if many else 'In'} simulation", _tested(item), Text(_sure(item, aim), style="dim"))
    front = [trial for trial in item.trials if trial.front]
    if len(front) > 1:
        shown = sorted(front, key=lambda trial: trial.values.get(aim.value, 0.0))[:MOST_SHOWN]
        more = f"and {len(front) - len(shown)} more: --json shows them" if len(front) > len(shown) else ""
        rest = [Text(more)] if more else []
        table = _front(shown, item, found.settings.objectives)
        yield section(f"{of}{'nothing' if many else 'Nothing'} tried is better in all", table, *rest)
    if item.importance:
        yield section(f"{of}{'which' if many else 'Which'} knobs matter for {aim.value}", _importance(item))
    yield section(f"{of}{'what' if many else 'What'} was tried", _tried(item))
    if item.rejected:
        yield section(f"{of}{'better' if many else 'Better'} in the search, not for sure", bullets(item.rejected))


def _changes(item: ItemTuning) -> RenderableType:
    old, new = item.planned.settings, item.tuned.settings
    rows = [
        (name, _word(getattr(old, field)), _word(getattr(new, field)))
        for field, name in SETTINGS.items()
        if getattr(old, field) != getattr(new, field)
    ]
    return columns(("", "planned", "tuned"), rows)


def _word(value: object) -> str:
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _tested(item: ItemTuning) -> RenderableType:
    """Return what both settings did, beside each other."""
    old, new = item.planned, item.tuned
    rows: list[tuple[str, str, str]] = [
        ("req/s a replica within limits", *_both(old.requests_per_s, new.requests_per_s, _number)),
        ("the same over the planned rate", *_both(old.load, new.load, share)),
        (AIMS[Aim.COST], *_both(old.usd_per_million_output_tokens, new.usd_per_million_output_tokens, usd)),
        ("goodput at the planned rate", *_both(old.goodput, new.goodput, share)),
        ("p99 TTFT there, ms", *_both(old.ttft_p99_ms, new.ttft_p99_ms, milliseconds)),
        ("p99 TPOT there, ms", *_both(old.tpot_p99_ms, new.tpot_p99_ms, milliseconds)),
    ]
    if old.joules_per_output_token is not None or new.joules_per_output_token is not None:
        rows.append((AIMS[Aim.ENERGY], *_both(old.joules_per_output_token, new.joules_per_output_token, _number)))
    rows.append(
        ("closed-form model: req/s within limits", number(old.model_requests_per_s), number(new.model_requests_per_s))
    )
    if item.units_needed is not None:
        rows.append(("units that the demand needs", f"{item.units_needed[0]:,}", f"{item.units_needed[1]:,}"))
    if not item.improved:
        return columns(("", "planned"), [row[:2] for row in rows])
    return columns(("", "planned", "tuned"), rows)


def _both(old: Sure | None, new: Sure | None, said: object) -> tuple[str, str]:
    return _figure(old, said), _figure(new, said)


def _figure(value: Sure | None, said: object) -> str:
    """Return a figure with half of its interval; overloaded where there is none."""
    if value is None:
        return "overloaded"
    assert callable(said)
    return said(value.value) if not value.plus_minus else f"{said(value.value)} ± {said(value.plus_minus)}"


def _number(value: float) -> str:
    return number(value, 4)


def _sure(item: ItemTuning, aim: Aim) -> str:
    """Return how sure the gain is."""
    if not item.improved:
        return "± is half of the 95 % interval of independent replications"
    around = "" if item.gain.plus_minus is None else f" ± {share(item.gain.plus_minus)}"
    what = {Aim.COST: "more within the limits", Aim.GOODPUT: "of goodput", Aim.P99: "lower", Aim.ENERGY: "less"}[aim]
    value = item.gain.value if aim in (Aim.COST, Aim.GOODPUT) else -item.gain.value
    return (
        f"{signed_share(value)}{around} {what}, at {item.confidence:.1%} confidence, on requests that no trial has "
        "seen; ± above is half of the 95 % interval"
    )


def _front(trials: Sequence[TuningTrial], item: ItemTuning, aims: Sequence[Aim]) -> RenderableType:
    changing = [
        field
        for field in SETTINGS
        if len({getattr(trial.settings, field) for trial in item.trials if trial.settings is not None}) > 1
    ]
    headings = ("trial", *(AIMS[aim] for aim in aims), *(SETTINGS[field].split(",")[0] for field in changing))
    rows = [
        (
            f"{trial.number:,}",
            *(_aimed(trial, aim) for aim in aims),
            *(_setting(trial.settings, field) for field in changing),
        )
        for trial in trials
    ]
    return columns(headings, rows)


def _setting(settings: TunedSettings | None, field: str) -> str:
    return "" if settings is None else _word(getattr(settings, field))


def _aimed(trial: TuningTrial, aim: Aim) -> str:
    value = trial.values.get(aim.value)
    if value is None:
        return "not known"
    return usd(value) if aim is Aim.COST else share(value) if aim is Aim.GOODPUT else number(value)


def _importance(item: ItemTuning) -> RenderableType:
    rows = [
        (each.knob, share(each.share), Text("█" * max(round(each.share * BAR), 1), style="cyan"))
        for each in item.importance
    ]
    return columns(("", "share", ""), rows, left=(0, 2), whole=(2,))


def _tried(item: ItemTuning) -> RenderableType:
    looked = sum(trial.requests for trial in item.trials)
    counts = f"{item.complete:,} complete, {item.pruned:,} stopped early, {item.failed:,} failed; "
    counts += f"{looked:,} requests simulated"
    rows: list[tuple[str, RenderableType]] = [
        ("set-up", f"{item.setup}, {plural(item.replicas, 'replica')} on {item.offer}"),
        ("trials", counts),
    ]
    said = [f"{count:,} × {why}" for why, count in item.refused.items()]
    if item.repeats:
        said.append(f"{item.repeats:,} × tried before")
    if said:
        rows.append(("proposals not tried", "; ".join(said)))
    size = f"all {item.settings_possible:,}" if item.exhausted else f"{item.settings_possible:,}"
    rows.append(("settings", f"{size} of {plural(len(item.knobs), 'knob')}"))
    for knob in item.knobs:
        rows.append((knob.name, f"{_listed(knob.values)}; planned: {knob.planned}. {knob.sets}"))
    return pairs(rows)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) if len(values) <= 9 else f"{', '.join(values[:3])} … {values[-1]} ({len(values)} values)"


def _provenance(found: Tuning) -> RenderableType:
    study, of = found.study, found.provenance
    seeds = ", ".join(str(list(worker.seed)) for worker in study.workers)
    reasons: dict[str, int] = {}
    for item in found.items:
        for trial in item.trials:
            if trial.state.value == "failed":
                reasons[trial.reason] = reasons.get(trial.reason, 0) + 1
    rows: list[tuple[str, RenderableType]] = [
        ("tokopt", f"{of.tokopt_version}, Optuna {of.optuna_version}, sampler {found.settings.sampler}"),
        ("catalog", f"{of.catalog_version}, calibration {of.calibration}"),
        ("study", f"{study.location}, {study.name}{' (went on)' if study.resumed else ''}"),
        (
            "seeds",
            f"simulations of trials {study.search_seeds[0]}, of tests {study.test_seeds[0]}; samplers {seeds}",
        ),
    ]
    if reasons:
        rows.append(("failed trials", "; ".join(counted(reasons))))
    return pairs(rows)
