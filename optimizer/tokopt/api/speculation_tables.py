"""`speculation_table`: the best number of draft tokens for each batch, and where speculation loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import ON_BY_DEFAULT, Feature
from tokopt.domain.speculation import SpeculationCell, SpeculationRow, SpeculationTable
from tokopt.domain.speculators import OWN_MODULES
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.describe import memory_slots, steady_at
from tokopt.units import MS

from .describing import described, step_budget
from .pools import asked_pools, gpus_of
from .requests import disabled_features, resolve_workload
from .resolved import Resolved, estimate_provenance, named, resolve
from .space import check_context
from .speculating import acceptance_said
from .switched_off import switched_off_said

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DEEPEST_OWN = 3  # draft tokens by a checkpoint's own modules


def speculation_table(
    *,
    model: str,
    gpu: str | None = None,
    speculator: str | None = None,
    framework: str | None = None,
    precision: str | None = None,
    kv_precision: str | None = None,
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    dp: int = 1,
    cp: int = 1,
    dcp: int = 1,
    prefill: str | None = None,
    decode: str | None = None,
    chunk_tokens: int = 8192,
    workload: str | Workload = "chat",
    isl: float | None = None,
    osl: float | None = None,
    prefix_share: float | None = None,
    disable: str | Sequence[str] | None = None,
    batches: Sequence[int] = BATCHES,
    catalog: str | Catalog | None = None,
) -> SpeculationTable:
    """Return throughput and time per output token by batch and draft tokens a step, with the best depth of each batch.

    Figures are means in a steady state with a fixed number of decoding sequences, of one worker that also prefills
    their successors, or of one decode worker where two pools are given. What does not fit in memory is worked out all
    the same, and said not to fit.

    Args:
        model: Name, alias or path of a Hugging Face config.json.
        gpu: Accelerator.
        speculator: What drafts, by name; None = the modules that the checkpoint ships, else the first that the catalog
            recommends for the model.
        framework: Serving framework; None = the catalog's first that runs there.
        precision: Of the weights; None = the checkpoint's own.
        kv_precision: Of the cache; None = what the precision asks for.
        tp: Tensor-parallel degree; `pp`, `ep`, `dp` (attention data parallel) likewise.
        pp: Pipeline-parallel degree.
        ep: Expert-parallel degree.
        dp: Attention-data-parallel degree.
        cp: Prefill-context-parallel degree.
        dcp: Decode-context-parallel degree.
        prefill: Prefill pool of a disaggregated deployment, like `2xtp4`; goes with `decode`.
        decode: Decode pool.
        chunk_tokens: Token budget of a prefill chunk.
        workload: Name or record; `isl`, `osl` and `prefix_share` replace single figures. Its domain picks acceptance.
        isl: Mean input tokens.
        osl: Mean output tokens.
        prefix_share: Share of input tokens found in the prefix cache.
        disable: What engines have on by default, to do without, as in `estimate`.
        batches: Decoding sequences of a worker, one row each.
        catalog: A catalog or an overlay directory.

    Raises:
        InputError: A request that cannot be understood, or a model that nothing drafts for.
    """
    if not batches or min(batches) < 1:
        raise InputError("batches: numbers from 1 are needed")
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    llm = named(loaded, model)
    shape = resolve_workload(loaded, workload, input_tokens=isl, output_tokens=osl, prefix_share=prefix_share)
    check_context(llm, shape)
    drafts = speculator or _default(loaded, llm.name, llm.mtp_layers, shape)
    pools = asked_pools(prefill, decode)
    main, prompts_on = gpus_of(loaded, gpu, pools)
    ask: dict[str, Any] = {"gpu": main, "prefill_gpu": prompts_on, "framework": framework, "precision": precision}
    ask["kv_precision"], ask["disabled"] = kv_precision, disabled_features(disable, ON_BY_DEFAULT)
    resolved = resolve(loaded, llm=llm, speculator=drafts, domain=shape.domain, **ask)
    own = resolved.speculator
    if own is None and not llm.mtp_layers:
        raise InputError(f"{llm.name} ships no multi-token prediction: name another --speculator")
    deepest = own.deepest if own else DEEPEST_OWN
    budget = step_budget(resolved, shape, chunk_tokens)
    plain = described(resolved, (tp, pp, ep, dp, cp, dcp), pools, 0, budget, None)
    rows = tuple(_row(resolved, plain, shape, batch, deepest) for batch in sorted(set(batches)))
    gaining = [row.batch for row in rows if any(cell.gain > 1.0 for cell in row.cells[1:])]
    from_here = [row.batch for row in rows if not gaining or row.batch > max(gaining)]
    return SpeculationTable(
        deployment=plain,
        speculator=own.name if own else OWN_MODULES,
        method=own.method.value if own else Feature.MTP.value,
        workload=shape.name,
        domain=None if shape.domain is None else shape.domain.value,
        input_tokens=shape.input_tokens,
        output_tokens=shape.output_tokens,
        rows=rows,
        loses_from=from_here[0] if from_here else None,
        assumptions=(
            f"{shape.input_tokens:,.0f} tokens in, {shape.output_tokens:,.0f} out on average; a batch is what one "
            "worker decodes at a time, in a steady state",
            *(acceptance_said(own, shape.domain) if own else _own_said(loaded, llm.name)),
            *switched_off_said(loaded, [plain]),
        ),
        provenance=estimate_provenance(loaded, resolved),
    )


def _default(catalog: Catalog, llm_name: str, modules: int, shape: Workload) -> str:
    if modules:
        return OWN_MODULES
    known = catalog.speculators_for(llm_name, shape.domain)
    if not known:
        raise InputError(
            f"nothing in the catalog is recommended to draft for {llm_name}; name a --speculator "
            "(tokopt catalog list speculators)"
        )
    return known[0].name


def _own_said(catalog: Catalog, llm_name: str) -> list[str]:
    known = llm_name in catalog.calibration.acceptance
    origin = "published for the first token" if known else "an assumption"
    return [f"multi-token prediction: acceptance is {origin}; the domain of the texts makes no difference"]


def _row(resolved: Resolved, plain: Deployment, shape: Workload, batch: int, deepest: int) -> SpeculationRow:
    cells: list[SpeculationCell] = []
    layout, _ = decode_layout(plain)
    agg = plain.mode is ServingMode.AGG
    for depth in range(deepest + 1):
        accepted = resolved.accepted(depth)
        worker = decode_worker(plain.model_copy(update={"speculation_depth": depth}), accepted)
        state = steady_at(resolved.model, resolved.machine, worker, shape, running=float(batch), prefill=agg)
        rate = float(np.squeeze(state.requests_per_s)) * shape.output_tokens / layout.accelerators
        held = memory_slots(resolved.model, resolved.machine, worker, shape, prefill=agg)
        cells.append(
            SpeculationCell(
                depth=depth,
                tokens_per_step=accepted,
                tpot_ms=float(np.squeeze(state.tpot_s)) / MS,
                output_tokens_per_s_per_gpu=rate,
                gain=rate / cells[0].output_tokens_per_s_per_gpu if cells else 1.0,
                fits=float(np.squeeze(state.in_service)) <= held,
            )
        )
    fitting = [cell for cell in cells if cell.fits]
    best = max(fitting, key=lambda cell: cell.output_tokens_per_s_per_gpu, default=None)
    return SpeculationRow(
        batch=batch,
        cells=tuple(cells),
        best_depth=None if best is None else best.depth,
        loses=tuple(cell.depth for cell in cells[1:] if cell.gain < 1.0),
    )
