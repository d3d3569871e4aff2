"""An audit as one page: a verdict, a table of questions with a column a platform, and what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.auditing import (
    Audit,
    BehaviourAnswer,
    ExchangeReach,
    FeatureAnswer,
    Gain,
    MissingAnswer,
    PlatformAudit,
    PrecisionAnswer,
)
from tokopt.report.blocks import bullets, columns, pairs, section
from tokopt.report.deployments import letters_used, shape_text, short_text
from tokopt.report.figures import UNKNOWN, number, plural, share, short, signed_share, times, usd, usd_range
from tokopt.units import format_si

Answer = Callable[[PlatformAudit], str]
Question = tuple[str, Answer]
MODEL, PUBLISHED, DOCUMENTED = " [m]", " [p]", " [d]"
STAGES = {"training": "training", "post_training": "post-training", "inference": "inference"}
BRIEFLY = {  # conditions of gains, shorter; the first one goes without saying
    "within the limits": "",
    "at low batch: the fastest for one user": "for a single user",
    "at saturation, whatever the latency": "at saturation",
}
SLIGHT = 5e-4  # of a relative difference; less is said to be none
MODELS_NAMED = 4  # that do not fit, in a cell


def audit_report(found: Audit) -> RenderableType:
    """Return the whole page."""
    subject = f"Audit for {found.model}, {found.workload} workload"
    about = f": {found.input_tokens:,.0f} tokens in, {found.output_tokens:,.0f} out; limits: {found.limits}"
    parts: list[RenderableType] = [Text.assemble((subject, "bold"), about), *_verdicts(found)]
    for title, questions in _sections(found):
        heads = ("", *(platform.accelerator for platform in found.platforms))
        rows: list[Sequence[RenderableType]] = [
            (label, *(Text(answer(p)) for p in found.platforms)) for label, answer in questions
        ]
        parts.append(section(title, columns(heads, rows, left=range(len(heads)))))
    notes = [f"{p.accelerator}: {note}" for p in found.platforms for note in p.notes]
    if notes:
        parts.append(section("To be known", bullets(notes)))
    parts.append(section("Assumptions", bullets(_assumed(found))))
    parts.append(section("Where the numbers come from", _provenance(found)))
    return Group(*parts)


# --- verdict ---


def _verdicts(found: Audit) -> Iterator[RenderableType]:
    for platform in found.platforms:
        yield Text("")
        yield Text.assemble((platform.title, "bold green" if platform.serves else "bold red"), f" {verdict(platform)}")
    costs = {p.accelerator: c for p in found.platforms if (c := _usd(p)) is not None}
    if len(costs) > 1:
        first, *others = sorted(costs, key=lambda name: costs[name])
        more = ", ".join(f"{times(costs[name] / costs[first])} that on {name}" for name in others)
        yield Text("")
        yield Text(f"Cheapest is {first}; a token costs {more}.")


def verdict(platform: PlatformAudit) -> str:
    """Return the answer in one sentence."""
    if not platform.serves or platform.cost is None:
        return f"does not serve it: {platform.why_not}."
    cost, best = platform.cost, platform.cost.best
    if best.why_not:
        said = [f"runs it, but not within the limits ({best.why_not})"]
    elif best.usd_per_million_output_tokens is None:
        said = [f"serves it at {number(best.output_tokens_per_s_per_gpu or 0.0)} tok/s a GPU (no price is known)"]
    else:
        around = f" ({usd_range(cost.interval)})" if cost.interval else ""
        said = [f"serves it at {usd(best.usd_per_million_output_tokens)} per M output tokens{around}"]
    if best.tokens_per_s_per_mw is not None:
        said[0] += f" and {short(best.tokens_per_s_per_mw)} tok/s per MW"
    exchange = platform.exchange
    if exchange is not None and exchange.inside is not None:
        verb = "carries" if exchange.inside.binds_from is None else "binds in"
        said.append(f"one scale-up domain {verb} the all-to-alls")
    worth = [(g, f.title) for f in platform.features if (g := _first(f)) is not None and g > SLIGHT]
    if worth:
        most, title = max(worth)
        said.append(f"what is worth most is {title}: {signed_share(most)} without it")
    lacks = ", ".join(missing.title for missing in platform.missing)
    said.append(f"it lacks {lacks}" if lacks else "it lacks nothing that others in the catalog have")
    return "; ".join(said) + "."


def _usd(platform: PlatformAudit) -> float | None:
    return None if platform.cost is None else platform.cost.best.usd_per_million_output_tokens


def _first(feature: FeatureAnswer) -> float | None:
    return feature.gains[0].worth if feature.gains and feature.feature != "prefix_caching" else None


# --- questions ---


def _sections(found: Audit) -> Iterator[tuple[str, Sequence[Question]]]:
    """Yield the questions by subject; those that no platform has an answer to are left out."""
    if found.answered:
        yield "What does a token cost, and what power does it take?", _cost_questions(found)
        yield "Does the interconnect carry the all-to-alls?", _exchange_questions(found)
        names = dict.fromkeys(p.precision for platform in found.platforms for p in platform.precisions)
        yield "Which precisions, at what gain and accuracy?", [(f"{n}{MODEL}", _precision(n)) for n in names]
        titles = {f.feature: f.title for platform in found.platforms for f in platform.features}
        features = [(f"{title}{MODEL}", _feature(name)) for name, title in titles.items()]
        yield "Which features, and how much dearer is a token without each?", features
        yield "At the ends: one user, all together, long inputs", _behaviour_questions(found)
    yield "Which stages of a model's life, and which architectures?", _documented_questions(found)
    if any(platform.missing for platform in found.platforms):
        yield "What is lacking, and how much dearer does that make a token?", _missing_questions(found)


def _served(answer: Answer) -> Answer:
    return lambda platform: answer(platform) if platform.serves else "not served"


def _cost_questions(found: Audit) -> list[Question]:
    def output(p: PlatformAudit) -> str:
        assert p.cost is not None
        if p.cost.best.why_not:
            return f"not within the limits: {p.cost.best.why_not}"
        value, around = p.cost.best.usd_per_million_output_tokens, p.cost.interval
        if value is None:
            return f"no price in {', '.join(found.provenance.price_lists)}" if p.cost.price_note else UNKNOWN
        return f"{usd(value)}" + (f" (80 %: {usd_range(around)})" if around else "")

    def figure(name: str, write: Callable[[float], str]) -> Answer:
        def answer(p: PlatformAudit) -> str:
            assert p.cost is not None
            value = getattr(p.cost.best, name)
            return UNKNOWN if value is None else write(value)

        return _served(answer)

    def power(p: PlatformAudit) -> str:
        kw = p.cost.utility_kw_per_gpu if p.cost is not None else None
        return UNKNOWN if kw is None else f"{kw:.4g} kW"

    def price(p: PlatformAudit) -> str:
        value = p.cost.usd_per_gpu_hour if p.cost is not None else None
        return UNKNOWN if value is None else usd(value)

    def setup(p: PlatformAudit) -> str:
        best = p.cost.best.deployment if p.cost is not None else None
        return "none" if best is None else short_text(best)

    def published(p: PlatformAudit) -> str:
        lines = p.cost.published if p.cost is not None else ()
        said = [f"{usd(c.usd_per_million_tokens)} per M {_tokens(c.token_basis)} ({c.operating_point})" for c in lines]
        return "; ".join(said) or "nothing in the catalog"

    questions = [
        (f"$ per M output tokens{MODEL}", _served(output)),
        (f"$ per M, in and out{MODEL}", figure("usd_per_million_total_tokens", usd)),
        (f"output tok/s per GPU{MODEL}", figure("output_tokens_per_s_per_gpu", number)),
        (f"output tok/s per MW{MODEL}", figure("tokens_per_s_per_mw", short)),
        (f"utility power per GPU{DOCUMENTED}", _served(power)),
        (f"price of a GPU-hour{DOCUMENTED}", _served(price)),
        (f"by the set-up{MODEL}", _served(setup)),
    ]
    if any(p.cost is not None and p.cost.published for p in found.platforms):
        questions.append((f"published{PUBLISHED}", _served(published)))
    return questions


def _tokens(basis: str) -> str:
    return "in and out" if basis == "total" else basis


def _exchange_questions(found: Audit) -> list[Question]:
    def reach(name: str) -> Answer:
        def answer(p: PlatformAudit) -> str:
            if p.exchange is None or not p.exchange.applies:
                return f"does not apply: {p.exchange.why_not}" if p.exchange is not None else UNKNOWN
            found = getattr(p.exchange, name)
            return getattr(p.exchange, f"{name}_why_not") if found is None else _reach(found)

        return _served(answer)

    def links(p: PlatformAudit) -> str:
        if p.exchange is None:
            return UNKNOWN
        out = p.exchange.scale_out_gb_per_s
        beyond = UNKNOWN if out is None else f"{out:g} GB/s"
        return f"{p.exchange.scale_up_gb_per_s:g} GB/s among {p.exchange.scale_up_size}, {beyond} beyond, one way a GPU"

    if not any(p.exchange is not None and p.exchange.applies for p in found.platforms):
        return [(f"all-to-alls{MODEL}", reach("inside")), (f"links{DOCUMENTED}", _served(links))]
    return [
        (f"in one domain{MODEL}", reach("inside")),
        (f"across two domains{MODEL}", reach("across")),
        (f"links{DOCUMENTED}", _served(links)),
    ]


def _reach(found: ExchangeReach) -> str:
    said = [f"ep{found.expert_parallel}: {found.answer}", f"headroom at least {times(found.least_headroom)}"]
    if found.share_within_limit is not None and found.within_limit_at is not None:
        most = plural(round(found.within_limit_at), "request")
        said.append(f"{share(found.share_within_limit)} at {most} a GPU, the most within the TPOT limit")
    far = f", {format_si(found.bytes_out_of_domain, 'B')} out of the domain" if found.bytes_out_of_domain else ""
    said.append(f"{format_si(found.bytes_per_token_and_layer, 'B')} a token and layer{far}")
    return "; ".join(said)


def _precision(name: str) -> Answer:
    def answer(p: PlatformAudit) -> str:
        found = next((each for each in p.precisions if each.precision == name), None)
        return "not served there" if found is None else _precision_words(found)

    return _served(answer)


def _precision_words(found: PrecisionAnswer) -> str:
    case = found.case
    if case.usd_per_million_output_tokens is not None:
        said = [f"{usd(case.usd_per_million_output_tokens)} per M output"]
    elif case.output_tokens_per_s_per_gpu is not None:
        said = [f"{number(case.output_tokens_per_s_per_gpu)} tok/s per GPU"]
    else:
        said = [case.why_not]
    if found.saving is not None:
        cheaper = "cheaper" if found.saving > 0 else "dearer"
        said[0] += f", {share(abs(found.saving))} {cheaper} than the widest"
    said.append(f"stored only, multiplied in {found.multiplies_in}" if found.dequantised else "native arithmetic")
    if found.native:
        said.append("the checkpoint's own")
    else:
        kept = found.quality_loss
        said.append("accuracy kept: unknown" if kept is None else f"keeps {(1 - kept) * 100:.4g} % of the score")
    return "; ".join(said)


def _feature(name: str) -> Answer:
    def answer(p: PlatformAudit) -> str:
        found = next((each for each in p.features if each.feature == name), None)
        if found is None:
            return UNKNOWN
        if not found.applies:
            return f"does not apply: {found.note}"
        if not found.supported:
            return "not supported"
        return f"yes: {'; '.join(map(gain_words, found.gains))}"

    return _served(answer)


def gain_words(gain: Gain) -> str:
    """Return what something is worth, in a few words: the cost without it, or the speed with it."""
    if gain.worth is None:
        found = (
            UNKNOWN if not gain.why_not else f"nothing meets them {'with' if gain.with_it is None else 'without'} it"
        )
    elif abs(gain.worth) < SLIGHT:
        found = "no gain"
    else:
        found = signed_share(gain.worth) if gain.figure.startswith("usd") else f"{times(1.0 + gain.worth)} as fast"
    condition = BRIEFLY.get(gain.condition, gain.condition)
    return f"{found} {condition}".rstrip()


def _behaviour_questions(found: Audit) -> list[Question]:
    def of(write: Callable[[BehaviourAnswer], str]) -> Answer:
        return _served(lambda p: UNKNOWN if p.behaviour is None else write(p.behaviour))

    def cost(value: float | None) -> str:
        return "" if value is None else f", {usd(value)} per M output"

    def fastest(b: BehaviourAnswer) -> str:
        speed = f"{number(b.fastest_tokens_per_s_per_user)} tok/s/user"
        return f"{speed}{cost(b.fastest_usd_per_million_output_tokens)}"

    def most(b: BehaviourAnswer) -> str:
        speed = f"{number(b.most_output_tokens_per_s_per_gpu)} tok/s per GPU"
        return (
            f"{speed}{cost(b.most_usd_per_million_output_tokens)}, at {number(b.most_tokens_per_s_per_user)} tok/s/user"
        )

    def longest(b: BehaviourAnswer) -> str:
        end = "the model ends there" if b.longest_input_by_model else "memory ends there"
        took = f"TTFT {b.longest_input_ttft_ms / 1e3:,.1f} s alone on {shape_text(b.longest)}"
        return f"{b.longest_input_tokens:,} tokens ({end}), {took}"

    def at(tokens: int) -> Answer:
        def answer(b: BehaviourAnswer) -> str:
            found = next((each for each in b.long_inputs if each.input_tokens == tokens), None)
            if found is None or found.case.why_not:
                return f"not within the limits: {found.case.why_not}" if found is not None else UNKNOWN
            case, ttft = found.case, found.ttft_ms
            price = case.usd_per_million_output_tokens
            speed = f"{number(case.output_tokens_per_s_per_gpu or 0.0)} tok/s per GPU"
            said = speed if price is None else f"{usd(price)} per M output"
            return said if ttft is None else f"{said}, TTFT {ttft / 1e3:,.1f} s"

        return of(answer)

    lengths = dict.fromkeys(
        each.input_tokens for p in found.platforms if p.behaviour is not None for each in p.behaviour.long_inputs
    )
    return [
        (f"the fastest for one user{MODEL}", of(fastest)),
        (f"the most per GPU{MODEL}", of(most)),
        (f"the longest input{MODEL}", of(longest)),
        *((f"{tokens:,} tokens in{MODEL}", at(tokens)) for tokens in lengths),
    ]


def _documented_questions(found: Audit) -> list[Question]:
    def stage(name: str) -> Answer:
        def answer(p: PlatformAudit) -> str:
            return next((s.documented for s in p.life_cycle.stages if s.stage == name), "") or "not documented here"

        return answer

    def kinds(p: PlatformAudit) -> str:
        said = [f"{a.title} {len(a.models)} of {len(a.models) + len(a.too_large)}" for a in p.architectures]
        lost = list(dict.fromkeys(name for a in p.architectures for name in a.too_large))
        if not said:
            return UNKNOWN
        if not lost:
            return "all models of the catalog fit"
        more = f" and {len(lost) - MODELS_NAMED} more" if len(lost) > MODELS_NAMED else ""
        return f"{'; '.join(said)}; not: {', '.join(lost[:MODELS_NAMED])}{more}"

    questions: list[Question] = [(f"{title}{DOCUMENTED}", stage(name)) for name, title in STAGES.items()]
    if any(p.life_cycle.listed_models for p in found.platforms):
        listed: Question = (f"models listed{DOCUMENTED}", lambda p: p.life_cycle.listed_models or "no list here")
        questions.append(listed)
    return [*questions, (f"architectures{MODEL}", kinds)]


def _missing_questions(found: Audit) -> list[Question]:
    titles = {m.name: m.title for platform in found.platforms for m in platform.missing}

    def lacking(name: str) -> Answer:
        def answer(p: PlatformAudit) -> str:
            found = next((m for m in p.missing if m.name == name), None)
            if found is None:
                return "has it" if p.frameworks else UNKNOWN
            return _lack(found) if p.serves else "lacking"

        return answer

    return [(f"{title}{MODEL}", lacking(name)) for name, title in titles.items()]


def _lack(found: MissingAnswer) -> str:
    if found.gain is None or found.gain.worth is None:
        return f"lacking; cost {UNKNOWN}" + (f" ({found.note})" if found.note else "")
    where = found.measured + (f", {found.measured_on}" if found.measured.startswith("on") else "")
    return f"lacking: {gain_words(found.gain)} ({where})"


# --- what it rests on ---


def _assumed(found: Audit) -> Iterable[str]:
    yield "basis: [m] tokopt's model and price lists, [p] published by others, [d] documented or a catalog fact"
    yield from found.assumptions
    for platform in found.platforms:
        if platform.cost is not None and platform.cost.extrapolated:
            yield f"{platform.accelerator}: predictions rest on constants that were not fitted to such set-ups"
    used = [d for p in found.platforms if p.cost is not None and (d := p.cost.best.deployment) is not None]
    if used:
        yield f"in set-ups: {letters_used(used)}"


def _provenance(found: Audit) -> RenderableType:
    made = found.provenance
    rows = [
        ("tokopt", f"{made.tokopt_version}, catalog {made.catalog_version}, calibration {made.calibration}"),
        ("prices", f"{', '.join(made.price_lists)} as of {made.prices_as_of or UNKNOWN}"),
        *((s.key, f"{s.title} ({s.publisher}, read {s.retrieved_on})") for s in found.sources),
    ]
    return pairs(rows)
