"""A deployment's names, resolved to records and sustained rates."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator, Framework, FrameworkSupport, Precision
from tokopt.domain.calibration import Constants
from tokopt.domain.deployments import Layout, Pool
from tokopt.domain.estimates import EstimateProvenance, OperatorDatabase
from tokopt.domain.features import ON_BY_DEFAULT, Feature
from tokopt.domain.host_times import slower
from tokopt.domain.llms import Llm
from tokopt.domain.speculators import OWN_MODULES, Domain, Speculator
from tokopt.errors import InputError
from tokopt.perf.arithmetic import LlmArithmetic, llm_arithmetic
from tokopt.perf.constants import acceptance_chances, constants_for, weakest_origin
from tokopt.perf.host import exposed, exposes, host_times
from tokopt.perf.machine import Machine, machine
from tokopt.perf.speculation import accepted_tokens, draft_chances
from tokopt.version import __version__

TOGETHER = "agg"  # role of a worker that prefills and decodes
MOST_WORKERS = 1_000_000  # of a pool
HEAD_PADDING = "head_padding"  # feature of a framework that pads attention heads to a multiple of the degree


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Everything that the model needs of a deployment besides its layout."""

    llm: Llm
    accelerator: Accelerator
    framework: Framework
    precision: Precision
    kv_precision: str
    constants: Constants
    machine: Machine
    model: LlmArithmetic
    speculator: Speculator | None  # None: the modules that the checkpoint ships
    chances: tuple[float, ...]
    without: tuple[Feature, ...] = ()  # what the framework has on by default there, and is switched off
    prefill: Resolved | None = None  # the same on the accelerator of a prefill pool that is on another one

    @property
    def cuts_prompts(self) -> bool:
        """Whether prompts are prefilled in chunks, where they are prefilled."""
        end = self.prefill or self
        support = end.framework.support[end.accelerator.hardware]
        return Feature.CHUNKED_PREFILL in support.features and Feature.CHUNKED_PREFILL not in end.without

    @property
    def ends(self) -> tuple[Resolved, ...]:
        """What decodes and, where that is another accelerator, what prefills."""
        return (self,) if self.prefill is None else (self, self.prefill)

    @property
    def sending(self) -> Machine | None:
        """The rates of a prefill pool that is on another accelerator."""
        return None if self.prefill is None else self.prefill.machine

    def machine_with(self, constants: Constants) -> Machine:
        """Return the sustained rates under other constants."""
        return machine(self.accelerator, self.framework, self.precision, constants)

    def in_traffic(self, spread: float) -> Resolved:
        """Return the same where experts are asked for with a spread of popularity."""
        if not spread:
            return self
        prefill = None if self.prefill is None else self.prefill.in_traffic(spread)
        return replace(self, machine=replace(self.machine, popularity_spread=spread), prefill=prefill)

    def accepted(self, depth: int) -> float:
        """Return the tokens that a step yields at a speculation depth."""
        return float(accepted_tokens(self.chances, np.array([depth]))[0])


def resolve(
    catalog: Catalog,
    *,
    llm: Llm,
    gpu: str,
    framework: str | None,
    precision: str | None,
    kv_precision: str | None,
    speculator: str | None = None,
    domain: Domain | None = None,
    disabled: Collection[Feature] = (),
    prefill_gpu: str | None = None,
    robust: float = 0.0,
) -> Resolved:
    """Return the records and rates of a deployment; what is not named is chosen and can be read off the result.

    Defaults: the first framework of the catalog that runs there, the checkpoint's own precision, and the cache that the
    precision asks for where the framework has it; drafts by the modules that the checkpoint ships. `domain` is what
    texts are about; `disabled` is what to do without where the framework has it. A prefill pool on another accelerator,
    `prefill_gpu`, runs the same: weights are read by both, and caches move from one to the other as they are. Under
    `robust` all is slower by that share than the catalog's constants say.

    Raises:
        InputError: An unknown name, or a combination that the catalog says is not supported.
    """
    accelerator = catalog.accelerator(gpu)
    other = accelerator if prefill_gpu is None else catalog.accelerator(prefill_gpu)
    both = [accelerator] if other.name == accelerator.name else [accelerator, other]
    chosen, supports = _framework(catalog, framework, both)
    where = " and ".join(each.name for each in both)
    weights = catalog.precision(precision or llm.native_precision)
    weights = catalog.precisions[llm.precision_aliases.get(weights.name, weights.name)]
    served = [p for p in supports[0].precisions if all(p in support.precisions for support in supports)]
    if precision is None and weights.name not in served:
        own = next((p for p in served if p in (*llm.precisions, "bf16")), None)
        if own is None:
            raise InputError(f"{chosen.name} serves {llm.name} in no precision on both {where}")
        weights = catalog.precisions[own]
    if weights.name not in served:
        lists = ", ".join(served) or "nothing on both"
        raise InputError(f"{chosen.name} does not serve {weights.name} on {where}; it serves {lists}")
    cache = catalog.kv_precision(kv_precision).name if kv_precision else weights.default_kv_precision
    caches = [kv for kv in supports[0].kv_precisions if all(kv in support.kv_precisions for support in supports)]
    if cache not in caches:
        if kv_precision or not caches:
            has = ", ".join(caches) or "none in common"
            raise InputError(f"{chosen.name} has no {cache} cache on {where}; it has {has}")
        cache = caches[0]
    drafts = _speculator(catalog, speculator, llm, chosen, supports[0])
    model = llm_arithmetic(llm, weights, catalog.kv_precisions[cache].bits, drafts)

    def on(each: Accelerator, prefill: Resolved | None = None) -> Resolved:
        constants = constants_for(catalog.calibration.slower(robust), each, chosen, weights, llm.name)
        has = chosen.support[each.hardware].features
        without = tuple(f for f in ON_BY_DEFAULT if f in disabled and f in has)
        rates = machine(each, chosen, weights, constants)
        return Resolved(
            llm=llm,
            accelerator=each,
            framework=chosen,
            precision=weights,
            kv_precision=cache,
            constants=constants,
            machine=exposed(rates, without, host_times(slower(catalog.host_times, robust)))
            if exposes(without)
            else rates,
            model=model,
            speculator=drafts,
            chances=draft_chances(drafts, domain) if drafts else acceptance_chances(catalog.calibration, llm.name),
            without=without,
            prefill=prefill,
        )

    return on(accelerator, _linked(accelerator, on(other)) if len(both) > 1 else None)


def _framework(
    catalog: Catalog, name: str | None, accelerators: Sequence[Accelerator]
) -> tuple[Framework, list[FrameworkSupport]]:
    """Return the framework of a name, or the first that runs on all of some accelerators, and what it supports there.

    Raises:
        InputError: It does not run on one of them, or none does.
    """
    runs = [f for f in catalog.frameworks.values() if all(a.hardware in f.support for a in accelerators)]
    where = " and ".join(each.name for each in accelerators)
    if name is None and not runs:
        raise InputError(f"no framework in the catalog runs on {where}")
    chosen = catalog.framework(name) if name else runs[0]
    for accelerator in accelerators:
        if accelerator.hardware not in chosen.support:
            names = ", ".join(f.name for f in runs) or "none"
            beside = "" if len(accelerators) == 1 else f" on {where}"
            raise InputError(f"{chosen.name} does not run on {accelerator.name}; frameworks that do{beside}: {names}")
    return chosen, [chosen.support[each.hardware] for each in accelerators]


def _linked(decode: Accelerator, prefill: Resolved) -> Resolved:
    """Return a prefill side whose caches can get to another accelerator.

    Raises:
        InputError: The catalog has no bandwidth between nodes for one of the two.
    """
    for each in (prefill.accelerator, decode):
        if not each.scale_out_bytes_per_s:
            raise InputError(
                f"pools on {prefill.accelerator.name} and {decode.name} exchange caches over links between nodes, and "
                f"the catalog has no scale-out bandwidth for {each.name}"
            )
    return prefill


def _speculator(
    catalog: Catalog, name: str | None, llm: Llm, framework: Framework, support: FrameworkSupport
) -> Speculator | None:
    """Return the speculator of a name, None for the modules that the checkpoint ships."""
    if name is None or name == OWN_MODULES:
        return None
    found = catalog.speculator(name)
    if not found.drafts_for(llm.name):
        for_it = [OWN_MODULES] if llm.mtp_layers else []
        for_it += [each.name for each in catalog.speculators.values() if each.drafts_for(llm.name)]
        raise InputError(f"{found.name} does not draft for {llm.name}; what does: {', '.join(for_it)}")
    if found.method not in support.features:
        raise InputError(f"{framework.name} is not documented to draft by {found.method} there, as {found.name} does")
    return found


def check_heads(resolved: Resolved, layout: Layout, what: str) -> None:
    """Raise InputError where tensor parallelism cannot split the attention heads."""
    heads = resolved.model.heads
    support = resolved.framework.support[resolved.accelerator.hardware]
    if layout.tp > 1 and heads % layout.tp and HEAD_PADDING not in support.features:
        raise InputError(f"{what}: tp={layout.tp} does not divide the {heads} attention heads")


def check_layout(resolved: Resolved, layout: Layout, what: str, *, role: str = TOGETHER) -> None:
    """Raise InputError, saying what would be possible, where a model or machine cannot be split like that.

    `role` is what the worker does: prefill and decode (`agg`), or one of them.
    """
    model, accelerator = resolved.model, resolved.accelerator
    check_heads(resolved, layout, what)
    _check_drafting(resolved, layout, what)
    _check_context(resolved, layout, what, role)
    if layout.tp > accelerator.scale_up_size:
        raise InputError(f"{what}: tp={layout.tp} is wider than the scale-up domain of {accelerator.scale_up_size}")
    if layout.pp > model.layers:
        raise InputError(f"{what}: pp={layout.pp} is more than the {model.layers} layers")
    stage = layout.tp * layout.dp * layout.cp
    if stage % layout.ep:
        spread = "tp x dp" if layout.cp == 1 else "tp x dp x cp"
        raise InputError(f"{what}: ep={layout.ep} does not divide {spread} = {stage}")
    if model.experts and layout.ep % layout.cp:
        raise InputError(f"{what}: ep={layout.ep} is no multiple of cp={layout.cp}: experts are spread over its ranks")
    if layout.ep > 1 and not model.experts:
        raise InputError(f"{what}: ep={layout.ep}, but {resolved.llm.name} has no experts")
    if layout.ep > max(model.experts, 1):
        raise InputError(f"{what}: ep={layout.ep} is more than the {model.experts} experts")
    if layout.accelerators > accelerator.scale_up_size and not resolved.machine.scale_out_bytes_per_s:
        raise InputError(
            f"{what}: {layout.accelerators} accelerators outgrow the scale-up domain of {accelerator.scale_up_size}, "
            f"and the catalog has no scale-out bandwidth for {accelerator.name}"
        )


def _check_context(resolved: Resolved, layout: Layout, what: str, role: str) -> None:
    """Raise InputError where context parallelism is impossible, or not documented for the framework and model."""
    names = {"cp": Feature.PREFILL_CONTEXT_PARALLEL, "dcp": Feature.DECODE_CONTEXT_PARALLEL}
    for name, feature in names.items():
        degree = getattr(layout, name)
        if degree == 1:
            continue
        if (name, role) in (("cp", "decode"), ("dcp", "prefill")):
            other = "workers that decode" if name == "dcp" else "workers that prefill"
            raise InputError(f"{what}: {name}={degree} is for {other}")
        support, llm = resolved.framework.support[resolved.accelerator.hardware], resolved.llm
        if not support.has(feature, llm, apart=role != TOGETHER):
            framework, limit = resolved.framework.name, support.feature_limits.get(feature)
            there = f"for {llm.name} on {resolved.accelerator.name}"
            if limit is not None and limit.apart and limit.allows(llm, apart=True):
                there += " but in a decode pool of its own (--prefill, --decode)"
            raise InputError(
                f"{what}: {name}={degree}, but {framework} is not documented to have {feature.value} {there}"
            )
    if layout.tp % layout.dcp:
        raise InputError(f"{what}: dcp={layout.dcp} does not divide tp={layout.tp}")
    copies = layout.tp // min(layout.tp, resolved.llm.kv_shards)
    if copies % layout.dcp:
        heads = f"{resolved.llm.kv_shards} key-value head" + "s" * (resolved.llm.kv_shards > 1)
        wrong = f"dcp={layout.dcp} does not divide the {copies} copies that tp={layout.tp} makes"
        if copies == 1:
            wrong = f"dcp={layout.dcp} has nothing to split: tp={layout.tp} makes no copies"
        raise InputError(f"{what}: {wrong} of a cache of {heads}")


def _check_drafting(resolved: Resolved, layout: Layout, what: str) -> None:
    drafts = resolved.speculator
    if drafts is None:
        return
    if layout.pp > 1 and not drafts.method.pipelines:
        raise InputError(f"{what}: pp={layout.pp}, but {drafts.name} drafts on one pipeline stage only")
    if layout.dp > 1 and not drafts.method.ranks:
        raise InputError(f"{what}: dp={layout.dp}, but {drafts.name} drafts without attention data parallelism only")
    heads = resolved.model.drafter.heads if resolved.model.drafter else layout.tp
    if heads % layout.tp:
        raise InputError(f"{what}: tp={layout.tp} does not divide the {heads} attention heads of {drafts.name}")


def parse_pool(text: str, what: str) -> Pool:
    """Return a pool written like `2xtp4`, `1xtp1dp8ep8`, `1xtp8cp4`, `tp8` (one worker) or `2xtp4@h100_sxm`.

    Raises:
        InputError: Not understood.
    """
    workers_of, at, accelerator = text.partition("@")
    written = re.fullmatch(r"(?:(\d+)x)?((?:(?:tp|pp|ep|dp|dcp|cp)\d+)+)", workers_of.strip().lower().replace(" ", ""))
    if not written or (at and not accelerator.strip()):
        raise InputError(f"{what}: {text!r} is not a pool; write it like 2xtp4, 1xtp1dp8ep8 or 2xtp4@h100_sxm")
    degrees = re.findall(r"(tp|pp|ep|dp|dcp|cp)(\d+)", written.group(2))
    if len({name for name, _ in degrees}) < len(degrees):
        raise InputError(f"{what}: {text!r} gives a degree twice")
    numbers = {name: int(value) for name, value in degrees}
    workers = int(written.group(1) or 1)
    if workers < 1 or min(numbers.values()) < 1:
        raise InputError(f"{what}: {text!r}: workers and degrees start at 1")
    if workers > MOST_WORKERS:
        raise InputError(f"{what}: {workers:,} workers are too many; at most {MOST_WORKERS:,}")
    return Pool(workers=workers, layout=Layout(**numbers), accelerator=accelerator.strip() or None)


def named(catalog: Catalog, model: str) -> Llm:
    """Return a language model by name, alias or path of a config.json."""
    return catalog.llm(str(Path(model)) if model.endswith(".json") else model)


def estimate_provenance(
    catalog: Catalog, resolved: Resolved, database: OperatorDatabase | None = None
) -> EstimateProvenance:
    """Return where an estimate's numbers come from."""
    constants = resolved.constants
    sources = dict(resolved.accelerator.sources)
    if resolved.prefill is not None:
        prefill = resolved.prefill.accelerator
        sources |= {f"{prefill.name}.{name}": source for name, source in prefill.sources.items()}
    return EstimateProvenance(
        calibration=catalog.calibration.version,
        constants_origin=weakest_origin(o for each in resolved.ends for o in each.constants.origins.values()).value,
        constants={
            name: f"{origin.value}: {constants.sources.get(name, '')}" for name, origin in constants.origins.items()
        },
        accelerator_sources=sources,
        llm_source=resolved.llm.source,
        catalog_version=catalog.version,
        tokopt_version=__version__,
        operator_database=database,
    )
