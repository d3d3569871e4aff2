"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tokopt
from tokopt.api.resolved import Resolved, resolve
from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Simulation
from tokopt.perf.machine import Machine


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The embedded catalog, read once."""
    return tokopt.load_catalog()


@pytest.fixture(scope="session")
def resolved(catalog: Catalog) -> Callable[..., Resolved]:
    """Resolve names as the API does: `resolved("llama-3.1-8b", "h100_sxm", "bf16", "bf16")`."""

    def find(
        model: str, gpu: str, precision: str | None = None, kv: str | None = None, framework: str | None = None
    ) -> Resolved:
        return resolve(
            catalog, llm=catalog.llm(model), gpu=gpu, framework=framework, precision=precision, kv_precision=kv
        )

    return find


@pytest.fixture(scope="session")
def chat_plan() -> Plan:
    """A small plan of one class, that takes a moment to make."""
    return tokopt.plan(model="qwen3-8b", gpus="h100_sxm", workload="chat", power="50kW", sla="30ms")


@pytest.fixture(scope="session")
def chat_plan_file(chat_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same as a file."""
    path: Path = tmp_path_factory.mktemp("plans") / "chat.json"
    path.write_text(chat_plan.model_dump_json(), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def simulation(chat_plan: Plan) -> Simulation:
    """A short simulation of it, below its planned load."""
    return tokopt.simulate(chat_plan, load=0.7, requests=200, replications=2)


@pytest.fixture(scope="session")
def ideal() -> Machine:
    """A machine of round numbers, so that reference values follow on paper and no calibration moves them."""
    return Machine(
        memory_bytes=80e9,
        usable_memory_bytes=70e9,
        reserved_output=0.0,
        weight_bytes_per_s=2e12,
        expert_bytes_per_s=1.6e12,
        kv_bytes_per_s=1e12,
        projection_flop_per_s=4e14,
        latent_projection_flop_per_s=5e14,
        dense_flop_per_s=6e14,
        expert_flop_per_s=3e14,
        head_flop_per_s=2e14,
        attention_flop_per_s=1e14,
        prefill_attention_flop_per_s=2.5e14,
        scale_up_size=8,
        scale_up_mesh=0.0,
        scale_up_bytes_per_s=4e11,
        scale_out_bytes_per_s=5e10,
        scale_up_latency_s=1e-5,
        latency_growth=0.2,
        exchange_latency_s=2e-5,
        scale_out_latency_s=3e-5,
        activation_passes=10.0,
        layer_overhead_s=5e-5,
        expert_layer_overhead_s=3e-5,
        linear_layer_overhead_s=2e-5,
        sparse_layer_overhead_s=4e-5,
        step_overhead_s=1e-3,
        sequence_overhead_s=1e-5,
        request_overhead_s=0.1,
        expert_imbalance=1.2,
        rank_imbalance=0.3,
        pipeline_bubble=0.2,
        mixing=0.7,
        slowdown=1.0,
        wave_share=0.5,
        prefill_wave_share=0.2,
        prefill_pool_efficiency=0.8,
        handover_s=0.05,
        memory_bound_power_share=0.4,
        compute_bound_power_share=0.9,
        host_power_share=0.5,
    )
