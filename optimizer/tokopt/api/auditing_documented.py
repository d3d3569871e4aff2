"""What the vendor documents of a model's life, and which of the catalog's models fit a platform."""

from __future__ import annotations

from dataclasses import replace

from tokopt.domain.auditing import ArchitectureAnswer, LifeCycleAnswer, StageAnswer
from tokopt.domain.llms import AttentionKind, Llm
from tokopt.domain.platforms import Stage, platform_of
from tokopt.domain.workloads import Workload
from tokopt.search import SearchSpace, holds

from .auditing_bench import Bench

SHORT = Workload(name="one short request", input_tokens=1024.0, output_tokens=256.0)
EXPERTS = "experts"
TITLES = {
    AttentionKind.FULL.value: "full attention (MHA, GQA, MQA)",
    AttentionKind.WINDOW.value: "sliding windows or chunks",
    AttentionKind.LATENT.value: "latent attention (MLA)",
    AttentionKind.LATENT_SPARSE.value: "sparse latent attention (DSA)",
    AttentionKind.LINEAR.value: "linear attention",
    EXPERTS: "mixture of experts",
}


def life_cycle(bench: Bench) -> LifeCycleAnswer:
    """Return the stages that the catalog's row about the accelerator documents; what it leaves out stays unknown."""
    platform = platform_of(bench.accelerator, bench.asked.catalog.platforms.values())
    if platform is None:
        stages = tuple(StageAnswer(stage=stage.value, documented="", source="") for stage in Stage)
        return LifeCycleAnswer(platform="", stages=stages, listed_models="", note="", sources=())
    known = platform.stages
    answers = tuple(
        StageAnswer(
            stage=stage.value,
            documented=known[stage].words if stage in known else "",
            source=known[stage].source if stage in known else "",
        )
        for stage in Stage
    )
    listed = platform.listed_models
    keys = [*(answer.source for answer in answers if answer.source), *([listed.source] if listed else [])]
    return LifeCycleAnswer(
        platform=platform.title,
        stages=answers,
        listed_models=listed.words if listed else "",
        note=platform.note,
        sources=tuple(dict.fromkeys(keys)),
    )


def architectures(bench: Bench) -> tuple[ArchitectureAnswer, ...]:
    """Return the catalog's models by kind of architecture: those that fit one replica there, and the others."""
    table = bench.asked.catalog.llms
    space = bench.space()
    fits = {name: _fits(bench, space, llm) for name, llm in table.items()}
    kinds = {name: _kinds(llm) for name, llm in table.items()}
    answers = []
    for kind, title in TITLES.items():
        members = [name for name in table if kind in kinds[name]]
        answers.append(
            ArchitectureAnswer(
                architecture=kind,
                title=title,
                models=tuple(name for name in members if fits[name]),
                too_large=tuple(name for name in members if not fits[name]),
            )
        )
    return tuple(answer for answer in answers if answer.models or answer.too_large)


def _fits(bench: Bench, space: SearchSpace, llm: Llm) -> bool:
    key = "fits", bench.accelerator.name, bench.frameworks, llm.name
    if key not in bench.asked.known:
        bench.asked.known[key] = holds(bench.accelerator, replace(space, llm=llm, workload=SHORT))
    return bool(bench.asked.known[key])


def _kinds(llm: Llm) -> set[str]:
    kinds = {group.attention.kind.value for group in llm.layers}
    return kinds | ({EXPERTS} if any(group.feed_forward.experts for group in llm.layers) else set())
