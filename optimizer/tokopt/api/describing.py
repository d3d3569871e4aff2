"""From the options of one deployment to its record."""

from __future__ import annotations

from typing import Any

from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.perf.chunks import whole_prompt_tokens
from tokopt.perf.layouts import DEGREES

from .resolved import Resolved, check_layout


def described(
    resolved: Resolved,
    degrees: tuple[int, int, int, int, int, int],
    asked: tuple[Pool, Pool] | None,
    drafts: int,
    chunk_tokens: int,
    max_running: int | None,
) -> Deployment:
    """Return the deployment that options describe; `degrees` are those of `DEGREES`, of one pool.

    Raises:
        InputError: They do not go together, or not with the model or machine.
    """
    if min(degrees) < 1 or chunk_tokens < 1 or (max_running is not None and max_running < 1):
        raise InputError("degrees, chunk and running cap start at 1")
    _check_drafts(resolved, drafts)
    pools: dict[str, Any] = {}
    if asked is not None:
        if max(degrees) > 1:
            options = ", ".join(f"--{name}" for name in DEGREES)
            raise InputError(f"{options} are of one pool: with --prefill and --decode leave them out")
        # Where both are on one accelerator, it is the deployment's, whether it was named or not.
        for name, pool, end in zip(("prefill", "decode"), asked, resolved.ends[::-1] * 2, strict=False):
            check_layout(end, pool.layout, f"--{name}", role=name)
            own = end.accelerator.name if resolved.prefill is not None else None
            pools[name] = pool.model_copy(update={"accelerator": own})
    else:
        layout = Layout(**dict(zip(DEGREES, degrees, strict=True)))
        check_layout(resolved, layout, "layout")
        pools = {"layout": layout}
    return Deployment(
        accelerator=resolved.accelerator.name,
        framework=resolved.framework.name,
        llm=resolved.llm.name,
        precision=resolved.precision.name,
        kv_precision=resolved.kv_precision,
        mode=ServingMode.DISAGG if asked is not None else ServingMode.AGG,
        speculation_depth=drafts,
        speculator=resolved.speculator.name if resolved.speculator and drafts else None,
        chunk_tokens=chunk_tokens,
        max_running_requests=max_running,
        without=resolved.without,
        **pools,
    )


def step_budget(resolved: Resolved, workload: Workload, chunk_tokens: int) -> int:
    """Return the token budget of a prefill step: as asked, or what whole prompts need where nothing cuts them."""
    if resolved.cuts_prompts:
        return chunk_tokens
    most = resolved.llm.max_context_tokens
    return max(chunk_tokens, whole_prompt_tokens(workload.input_tokens, workload.input_cv, most=most))


def _check_drafts(resolved: Resolved, drafts: int) -> None:
    own = resolved.speculator
    if own is not None and drafts > own.deepest:
        raise InputError(f"--depth: nothing is published for {own.name} beyond {own.deepest} draft tokens a step")
    if own is None and drafts and not resolved.llm.mtp_layers:
        raise InputError(
            f"{resolved.llm.name} ships no multi-token prediction: leave --mtp out, or name a --speculator "
            "(tokopt catalog list speculators)"
        )
