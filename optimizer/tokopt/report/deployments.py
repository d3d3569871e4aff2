"""How a deployment is written in a report: `10 × (tp1 pp4) + 1 × (tp1 dp16 ep16)`, and what the letters mean."""

from __future__ import annotations

from collections.abc import Iterable

from tokopt.domain.deployments import Deployment, Layout, Pool

MEANINGS = {
    "agg": "prefill and decode on the same GPUs",
    "disagg": "a prefill pool + a decode pool",
    "tp": "tensor parallel",
    "pp": "pipeline parallel",
    "ep": "GPUs that experts are spread over",
    "dp": "attention data parallel",
    "cp": "prefill context parallel: a prompt's tokens split over GPUs",
    "dcp": "decode context parallel: a cache's tokens split over GPUs",
    "redundant_experts": "further copies of experts, a layer",
    "two_batch_overlap": "steps run as two halves, one exchanging while the other computes",
}
WORDS = {"redundant_experts": "copies", "two_batch_overlap": "two-batch"}


def layout_text(layout: Layout) -> str:
    """Return a layout; degrees of one are left out, but for `tp`."""
    degrees = ((name, getattr(layout, name)) for name in ("tp", "pp", "dp", "ep", "cp", "dcp"))
    words = [f"{name}{value}" for name, value in degrees if value > 1 or name == "tp"]
    if layout.redundant_experts:
        words.append(f"+{layout.redundant_experts} copies")
    return " ".join([*words, *(["two-batch"] if layout.two_batch_overlap else [])])


def pool_text(pool: Pool) -> str:
    """Return a pool: workers times layout, and the accelerator where it states one."""
    where = f" {pool.accelerator}" if pool.accelerator else ""
    return f"{pool.workers}×({layout_text(pool.layout)}){where}"


def shape_text(deployment: Deployment) -> str:
    """Return the layout of a whole replica, prefill pool first where it has two."""
    if deployment.layout is not None:
        return f"agg {layout_text(deployment.layout)}"
    assert deployment.prefill is not None and deployment.decode is not None
    return f"disagg {pool_text(deployment.prefill)} + {pool_text(deployment.decode)}"


def accelerators_text(deployment: Deployment) -> str:
    """Return the accelerator of a deployment, or both where the pools are on different ones: what prefills first."""
    return (
        f"{deployment.prefill_accelerator} + {deployment.accelerator}" if deployment.mixed else deployment.accelerator
    )


def machines_text(deployment: Deployment, accelerators: int | None = None) -> str:
    """Return the accelerators of a replica: `16 × h200_sxm`, or of both pools where they are on different ones."""
    if deployment.mixed and deployment.prefill is not None and deployment.decode is not None:
        first = f"{deployment.prefill.accelerators} × {deployment.prefill_accelerator} (prefill)"
        return f"{first} + {deployment.decode.accelerators} × {deployment.accelerator} (decode)"
    return f"{accelerators or deployment.accelerators} × {deployment.accelerator}"


def short_text(deployment: Deployment) -> str:
    """Return a deployment in one line for a table: layout, precisions, framework, speculation."""
    weights, cache = deployment.precision, deployment.kv_precision
    words = [shape_text(deployment), weights if weights == cache else f"{weights}/{cache}", deployment.framework]
    if deployment.speculation_depth:
        words.append(f"{deployment.speculator or 'MTP'} {deployment.speculation_depth}")
    return ", ".join(words)


def letters_used(deployments: Iterable[Deployment]) -> str:
    """Return what the words and letters in the layouts of deployments mean."""
    used: set[str] = set()
    for deployment in deployments:
        used |= {deployment.mode.value, "tp"}
        pools = (deployment.prefill, deployment.decode)
        for layout in (deployment.layout, *(pool.layout for pool in pools if pool)):
            if layout is not None:
                used |= {name for name in MEANINGS if getattr(layout, name, 1) > (name not in WORDS)}
    return ", ".join(f"{WORDS.get(name, name)} = {meaning}" for name, meaning in MEANINGS.items() if name in used)


def full_text(deployment: Deployment) -> str:
    """Return everything that sets a deployment up, in a line: what is not said is as the framework has it."""
    words = [
        machines_text(deployment),
        shape_text(deployment),
        f"weights {deployment.precision}",
        f"KV cache {deployment.kv_precision}",
        deployment.framework,
    ]
    if deployment.speculation_depth:
        words.append(f"{deployment.speculator or 'MTP'} of depth {deployment.speculation_depth}")
    words.append(f"prefill chunks of {deployment.chunk_tokens:,} tokens")
    if deployment.max_running_requests is not None:
        words.append(f"at most {deployment.max_running_requests:,} running")
    caching = deployment.caching
    if caching is not None:
        words.append(f"prefix caches in {caching.offload.value} memory, routed {caching.router.value}")
    if deployment.without:
        words.append(f"without {', '.join(feature.value for feature in deployment.without)}")
    return ", ".join(words)
