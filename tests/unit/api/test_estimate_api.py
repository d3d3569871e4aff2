"""`estimate`: the contract of the design, defaults, refusals, and loads that agree with each other."""

import json
import math

import pytest

import tokopt
from tokopt import InputError
from tokopt.api.space import search_space
from tokopt.domain.workloads import Sla, Workload

FIXED = Workload(name="fixed", input_tokens=1000, output_tokens=200)


@pytest.fixture(scope="module")
def ask(catalog):
    def estimate(**changes):
        asked = {"model": "llama-3.1-8b", "gpu": "h100_sxm", "workload": FIXED, "catalog": catalog, **changes}
        if "concurrency" not in asked and "rate" not in asked:
            asked["concurrency"] = 16
        return tokopt.estimate(**asked)

    return estimate


def test_contract(ask) -> None:
    """The fields of design §2, in JSON."""
    said = json.loads(ask().model_dump_json())
    for name in (
        "tokens_per_s_per_user",
        "output_tokens_per_s_per_gpu",
        "total_tokens_per_s_per_gpu",
        "running_batch",
        "bottleneck",
        "fits",
        "extrapolated",
        "provenance",
        "interval",
    ):
        assert name in said
    for latency in ("ttft_ms", "tpot_ms", "e2e_ms"):
        assert set(said[latency]) == {"mean", "p50", "p90", "p99"}
    assert set(said["memory_gib"]) == {"weights", "kv", "other", "free"}
    assert set(said["power_kw"]) == {"drawn", "rated", "provisioned"}
    assert said["fits"] is True
    assert said["interval"]


def test_figures_agree_with_each_other(ask) -> None:
    for load in ({"concurrency": 16}, {"rate": "3req/s"}):
        e = ask(tp=2, **load)
        assert e.accelerators == 2
        assert e.tokens_per_s_per_user == pytest.approx(1e3 / e.tpot_ms.mean)
        assert e.output_tokens_per_s_per_gpu == pytest.approx(e.requests_per_s * 200 / 2)
        assert e.total_tokens_per_s_per_gpu == pytest.approx(e.requests_per_s * 1200 / 2)
        assert e.e2e_ms.mean == pytest.approx(e.ttft_ms.mean + 199 * e.tpot_ms.mean)
        assert sum(e.bottleneck_shares.values()) == pytest.approx(1.0)
        assert e.bottleneck == max(e.bottleneck_shares, key=e.bottleneck_shares.get)
        m = e.memory_gib
        assert m.weights + m.kv + m.other + m.free == pytest.approx(79.6474609375)
        assert m.free >= 0
        assert 0 < e.power_kw.drawn < e.power_kw.rated < e.power_kw.provisioned
        for name, figure in (
            ("output_tokens_per_s_per_gpu", e.output_tokens_per_s_per_gpu),
            ("total_tokens_per_s_per_gpu", e.total_tokens_per_s_per_gpu),
            ("tpot_ms", e.tpot_ms.mean),
            ("ttft_ms", e.ttft_ms.mean),
        ):
            assert e.interval[name].low < figure < e.interval[name].high


def test_weights_of_the_memory_report(ask) -> None:
    assert ask(precision="bf16").memory_gib.weights == pytest.approx(8_030_261_248 * 2 / 2**30, rel=1e-5)
    assert ask(precision="bf16", tp=4).memory_gib.weights == pytest.approx(8_030_261_248 * 2 / 4 / 2**30, rel=1e-5)


def test_defaults(ask, catalog) -> None:
    d = ask().deployment
    assert (d.framework, d.precision, d.kv_precision) == ("vllm", "bf16", "bf16")
    assert (d.mode, d.layout.tp, d.chunk_tokens, d.speculation_depth) == ("agg", 1, 8192, 0)
    assert ask(precision="fp8").deployment.kv_precision == "fp8"
    chat = tokopt.estimate(model="llama-3.1-8b", gpu="h100", concurrency=1, catalog=catalog)
    assert (chat.workload, chat.input_tokens, chat.output_tokens) == ("chat", 1024, 1024)


def test_the_running_cap_holds(ask) -> None:
    e = ask(concurrency=64, max_running=8)
    assert e.running_cap == 8
    assert e.running_batch <= 8
    assert e.requests_per_s < ask(concurrency=64).requests_per_s
    assert e.ttft_ms.mean > ask(concurrency=8, max_running=8).ttft_ms.mean


def test_littles_law_as_users_see_it(ask) -> None:
    for concurrency in (1, 8, 64):
        e = ask(concurrency=concurrency)
        assert e.requests_per_s * e.e2e_ms.mean / 1e3 == pytest.approx(concurrency, rel=1e-3)


@pytest.mark.parametrize(
    "where", [{}, {"tp": 4}, {"prefill": "1xtp1", "decode": "1xtp1"}], ids=["agg", "tp4", "disagg"]
)
def test_open_and_closed_loads_agree_when_hardly_loaded(ask, where) -> None:
    """One request at a time, or now and then one: the same latencies."""
    closed, still = ask(concurrency=1, **where), ask(rate="0.0001req/s", **where)
    assert still.tpot_ms.mean == pytest.approx(closed.tpot_ms.mean, rel=0.05)
    assert still.ttft_ms.mean == pytest.approx(closed.ttft_ms.mean, rel=0.25)
    # What runs in a decode pool is past its first token.
    inside = still.e2e_ms.mean - (still.ttft_ms.mean if "decode" in where else 0.0)
    assert still.running_batch == pytest.approx(0.0001 * inside / 1e3, rel=0.1)


def test_open_and_closed_loads_agree_at_the_same_throughput(ask) -> None:
    closed = ask(concurrency=24)
    opened = ask(rate=f"{closed.requests_per_s}req/s")
    assert opened.tpot_ms.mean == pytest.approx(closed.tpot_ms.mean, rel=0.1)
    assert opened.running_batch == pytest.approx(24, rel=0.15)


def test_overload_is_answered_as_overload(ask) -> None:
    edge = ask(rate="1req/s").saturation_requests_per_s
    for over in (edge * 1.0001, edge * 50):
        e = ask(rate=f"{over}req/s")
        assert (e.fits, e.overloaded) == (True, True)
        assert "overloaded" in e.reason
        assert (e.ttft_ms, e.tpot_ms, e.e2e_ms, e.tokens_per_s_per_user) == (None, None, None, None)
        assert e.requests_per_s == pytest.approx(edge)
    near = ask(rate=f"{edge * 0.97}req/s")
    assert not near.overloaded
    assert "queues hardly settle" in near.reason
    assert not ask(rate=f"{edge * 0.9}req/s").reason


def test_not_fitting_is_answered_with_a_reason(ask) -> None:
    e = ask(model="llama-3.1-405b", precision="bf16")
    assert (e.fits, e.overloaded) == (False, False)
    assert e.reason.startswith("does not fit")
    assert (e.ttft_ms, e.output_tokens_per_s_per_gpu, e.bottleneck) == (None, None, None)
    assert e.memory_gib.free < 0
    assert e.interval == {}
    json.loads(e.model_dump_json())


def test_the_pool_that_does_not_fit_is_the_one_reported(ask) -> None:
    """141 GB of weights do not fit one H100 of the prefill pool; the decode pool of eight is fine."""
    e = ask(model="llama-3.1-70b", precision="bf16", prefill="1xtp1", decode="1xtp8")
    assert not e.fits
    assert e.memory_gib.free < 0
    assert e.memory_gib.weights > 79.6


def test_one_long_request_that_does_not_fit_says_so(ask) -> None:
    """The weights fit; the cache of one request does not."""
    e = ask(gpu="l4", precision="bf16", isl=100_000, osl=1000)
    assert not e.fits
    assert "cache" in e.reason


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"tp": 3}, "does not divide"),
        ({"tp": 16}, "wider than the scale-up domain of 8"),
        ({"tp": 0}, "start at 1"),
        ({"pp": -1}, "start at 1"),
        ({"pp": 33}, "more than the 32 layers"),
        ({"ep": 2, "dp": 2}, "has no experts"),
        ({"ep": 2}, "does not divide tp x dp"),
        ({"mtp": 1}, "no multi-token prediction"),
        ({"mtp": -1}, "start at 0"),
        ({"depth": 2}, "--depth needs --speculator"),
        ({"mtp": 1, "speculator": "ngram"}, "stands for"),
        ({"speculator": "eagle3-llama-3.1-8b", "depth": 8}, "beyond 7"),
        ({"speculator": "eagle3-qwen3-8b"}, "what does: eagle3-llama-3.1-8b, ngram"),
        ({"speculator": "eagle3-llama-3.1-8b", "pp": 2}, "one pipeline stage"),
        ({"speculator": "ngram", "gpu": "mi300x"}, "not documented to draft by ngram"),
        ({"chunk_tokens": 0}, "start at 1"),
        ({"max_running": 0}, "start at 1"),
        ({"prefill": "1xtp1"}, "go together"),
        ({"decode": "1xtp1"}, "go together"),
        ({"prefill": "1xtp1", "decode": "1xtp1", "tp": 2}, "leave them out"),
        ({"prefill": "two", "decode": "1xtp1"}, "not a pool"),
        ({"prefill": "0xtp1", "decode": "1xtp1"}, "start at 1"),
        ({"prefill": "1xtp1tp2", "decode": "1xtp1"}, "twice"),
        ({"prefill": "1xtp3", "decode": "1xtp1"}, "does not divide"),
        ({"prefill": "", "decode": "1xtp1"}, "not a pool"),
        ({"concurrency": 0}, "at least 1"),
        ({"concurrency": math.nan}, "not possible"),
        ({"concurrency": math.inf}, "not possible"),
        ({"concurrency": None}, "give the load once"),
        ({"concurrency": 4, "rate": "1req/s"}, "give the load once"),
        ({"rate": "8"}, "unit is missing"),
        ({"rate": "0req/s"}, "above zero"),
        ({"isl": 0}, "input length"),
        ({"osl": math.nan}, "output length"),
        ({"prefix_share": 2}, "prefix share"),
        ({"model": "gpt-9"}, "unknown"),
        ({"gpu": "h900"}, "unknown"),
        ({"framework": "triton"}, "unknown"),
        ({"precision": "fp3"}, "unknown"),
        ({"kv_precision": "fp3"}, "unknown"),
        ({"gpu": "a10g", "precision": "fp8"}, "does not serve fp8"),
        ({"kv_precision": "nvfp4"}, "cache"),
        ({"workload": "nap"}, "unknown"),
        ({"model": "/nowhere/config.json"}, "config.json"),
        ({"isl": 200_000}, "131,072"),  # the model's context
    ],
)
def test_bad_requests_are_refused_in_one_line(ask, change, hint: str) -> None:
    with pytest.raises(InputError) as error:
        ask(**change)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


def test_heads_are_padded_where_the_framework_does_it(ask) -> None:
    """Neuron software ran Llama-3.1-8B's 32 heads on the 24 cores of an inf2.48xlarge; others need a divisor."""
    assert ask(gpu="inferentia2", framework="transformers-neuronx", tp=24).fits
    with pytest.raises(InputError, match="tp=6 does not divide the 32 attention heads"):
        ask(tp=6)


@pytest.mark.parametrize("model", ["openai/gpt-oss-120b", "gpt-oss-20b"])
def test_a_precision_that_a_model_is_not_published_in_means_its_own(ask, model: str) -> None:
    """Measurements call gpt-oss's MXFP4 weights NVFP4; the answer is that of MXFP4, on Hopper too."""
    asked = {"model": model, "gpu": "h200_sxm", "framework": "tensorrt-llm", "tp": 2}
    meant, said = ask(**asked, precision="mxfp4"), ask(**asked, precision="nvfp4")
    assert said.deployment.precision == "mxfp4"
    assert said == meant


def test_plans_choose_among_recommended_frameworks_unless_told(catalog) -> None:
    asked = {
        "llm": catalog.llm("llama-3.1-8b"),
        "workload": FIXED,
        "sla": Sla(),
        "precisions": (),
        "kv_precisions": (),
        "modes": (),
    }
    chosen = search_space(catalog, frameworks=(), **asked).frameworks
    assert [f.name for f in chosen] == [f.name for f in catalog.frameworks.values() if f.recommended]
    assert search_space(catalog, frameworks=("mii",), **asked).frameworks == (catalog.frameworks["deepspeed"],)


def test_experts_limit_expert_parallelism(ask) -> None:
    with pytest.raises(InputError, match="more than the 128 experts"):
        ask(model="qwen3-30b-a3b", dp=256, ep=256)


def test_speculation_of_a_model_that_ships_it(ask) -> None:
    plain, drafted = (ask(model="deepseek-r1", gpu="h200_sxm", tp=8, mtp=m, concurrency=4) for m in (0, 1))
    assert drafted.tpot_ms.mean < plain.tpot_ms.mean
    assert any("1.85 tokens a step" in a for a in drafted.assumptions)


def test_pools_as_written(ask) -> None:
    e = ask(model="qwen3-30b-a3b", prefill="2xtp2", decode="3xdp2ep2", concurrency=12)
    d = e.deployment
    assert (d.mode, d.prefill.workers, d.prefill.layout.tp) == ("disagg", 2, 2)
    assert (d.decode.workers, d.decode.layout.dp, d.decode.layout.ep) == (3, 2, 2)
    assert e.accelerators == 10
    assert ask(prefill="tp2", decode="1xTP1").deployment.prefill.workers == 1


@pytest.mark.parametrize("concurrency", [1, 20, 400])
def test_two_pools_keep_littles_law(ask, concurrency: int) -> None:
    e = ask(prefill="1xtp1", decode="1xtp1", concurrency=concurrency)
    assert e.requests_per_s * e.e2e_ms.mean / 1e3 == pytest.approx(concurrency, rel=1e-6)
    assert e.requests_per_s <= e.saturation_requests_per_s * (1 + 1e-6)


@pytest.mark.parametrize("load", [{"concurrency": 1}, {"concurrency": 3000}, {"rate": "0.01req/s"}])
@pytest.mark.parametrize("gpu", ["h100_sxm", "mi300x", "gb300_nvl72", "l40s", "tpu_v6e", "gaudi3"])
def test_answers_are_finite_positive_and_ordered(ask, gpu: str, load) -> None:
    e = ask(gpu=gpu, workload="chat", **load)
    assert e.fits
    for latency in (e.ttft_ms, e.tpot_ms, e.e2e_ms):
        assert 0 < latency.p50 <= latency.p90 <= latency.p99 < math.inf
        assert 0 < latency.mean < math.inf


def test_every_default_combination_is_answered_or_refused(catalog) -> None:
    """Whatever the catalog lists: no defect, only answers and one-line refusals."""
    refusals = []
    for gpu in catalog.accelerators:
        for model in ("llama-3.1-8b", "gpt-oss-20b", "deepseek-r1", "kimi-k2-thinking", "qwen3.5-397b-a17b"):
            for framework in (None, *catalog.frameworks):
                asked = {"model": model, "gpu": gpu, "framework": framework, "workload": FIXED, "concurrency": 4}
                try:
                    e = tokopt.estimate(**asked, catalog=catalog)
                except InputError as refused:
                    refusals.append(str(refused))
                else:
                    assert e.fits == (e.ttft_ms is not None)
    assert refusals
    assert not any("\n" in text for text in refusals)


def test_the_same_question_has_the_same_answer(ask) -> None:
    assert ask().model_dump_json() == ask().model_dump_json()
