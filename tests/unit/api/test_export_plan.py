"""Exports of plans: what scripts call, with which flags, and what manifests say."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokopt
from export_scripts import calls, flags, written
from tokopt.api.export_items import HOST_SHARE, serving_item
from tokopt.api.export_points import operating_point
from tokopt.domain.exporting import Export, Placed, ServingItem, Target
from tokopt.domain.plans import Plan
from tokopt.domain.speculators import Method
from tokopt.report.exports import benchmark, dynamo, llm_d, sglang, skypilot, trtllm, vllm

KNOWN = yaml.safe_load((Path(__file__).parents[2] / "reference" / "exports" / "known_flags.yaml").read_text())


@cache
def made(framework: str, **more: str) -> Plan:
    """A small plan with two pools of DeepSeek-R1 on one framework."""
    return tokopt.plan(power="2MW", sla="50ms", frameworks=framework, modes="disagg", **more)


@pytest.fixture(scope="module")
def cloud() -> Plan:
    return tokopt.plan(
        model="llama-3.1-8b", demand="20req/s", workload="chat", sla="tpot=40ms", prices="aws,gcp", frameworks="vllm"
    )


def named(export: Export, name: str) -> str:
    return next(file.content for file in export.files if file.name == name)


def known(tool: str, used: dict[str, Any] | set[str]) -> None:
    names = set(KNOWN[tool]["flags"])
    strange = {flag for flag in used if flag not in names and flag.replace("--no-", "--", 1) not in names}
    assert not strange, f"{tool} {KNOWN[tool]['version']} has no {strange}"


def test_a_vllm_worker_runs_with_what_the_plan_says(chat_plan: Plan, tmp_path: Path) -> None:
    export = tokopt.export_plan(chat_plan, to="vllm")
    item, layout = chat_plan.fleet[0], chat_plan.fleet[0].deployment.layout
    assert layout is not None
    (words,) = calls(written(export.files, tmp_path), "serve.sh", PORT="8123")
    said = flags(words)
    known("vllm", said)
    assert words[:2] == ["vllm", "serve"] and "/" in words[2]
    assert said["--served-model-name"] == item.model
    assert said["--port"] == "8123"
    assert said["--tensor-parallel-size"] == str(layout.tp)
    assert said["--max-num-seqs"] == str(item.concurrency_per_replica)
    assert int(said["--max-num-batched-tokens"] or 0) >= item.deployment.chunk_tokens
    assert said["--gpu-memory-utilization"] == "0.92"
    assert "--enable-prefix-caching" in said and "--enable-chunked-prefill" in said
    assert said["--kv-cache-dtype"] == {"bf16": "bfloat16"}.get(item.kv_precision, item.kv_precision)


def test_drafts_are_those_of_the_plan(chat_plan: Plan, tmp_path: Path) -> None:
    depth = chat_plan.fleet[0].deployment.speculation_depth
    assert depth, "the plan drafts; otherwise nothing is tested here"
    (words,) = calls(written(tokopt.export_plan(chat_plan, to="vllm").files, tmp_path), "serve.sh")
    drafts = json.loads(flags(words)["--speculative-config"] or "")
    assert drafts["num_speculative_tokens"] == depth and drafts["method"] == "eagle3" and "/" in drafts["model"]
    assert set(drafts) <= set(KNOWN["vllm"]["keys"]["--speculative-config"])
    (words,) = calls(written(tokopt.export_plan(chat_plan, to="sglang").files, tmp_path), "serve.sh")
    said = flags(words)
    known("sglang", said)
    assert said["--speculative-algorithm"] == "EAGLE3" and said["--speculative-num-steps"] == str(depth)
    assert said["--speculative-num-draft-tokens"] == str(depth + 1)
    options = yaml.safe_load(named(tokopt.export_plan(chat_plan, to="trtllm"), "serve.yaml"))
    assert options["speculative_config"]["max_draft_len"] == depth


@pytest.mark.parametrize("framework", ["vllm", "sglang"])
def test_two_pools_have_their_workers_transfers_and_a_router(framework: str, tmp_path: Path) -> None:
    plan = made(framework)
    item = plan.fleet[0]
    prefill, decode = item.deployment.prefill, item.deployment.decode
    assert prefill is not None and decode is not None
    folder = written(tokopt.export_plan(plan, to=framework).files, tmp_path)
    for role, pool in (("prefill", prefill), ("decode", decode)):
        (words,) = calls(folder, f"{role}.sh", SIDE_PORT="5601", HEAD_ADDRESS="a", NODE_RANK="0")
        said = flags(words)
        known(framework, said)
        layout = pool.layout
        ranks = decode.workers * decode.layout.dp
        if framework == "vllm":
            transfer = json.loads(said["--kv-transfer-config"] or "")
            assert transfer["kv_connector"] == "NixlConnector"
            assert set(transfer) <= set(KNOWN["vllm"]["keys"]["--kv-transfer-config"])
            assert said["--tensor-parallel-size"] == str(layout.tp)
            assert said.get("--data-parallel-size") == (str(layout.dp) if layout.dp > 1 else None)
            assert ("--enable-expert-parallel" in said) is (layout.ep > 1)
            cap = str(-(-item.concurrency_per_replica // ranks))
            assert said.get("--max-num-seqs") == (cap if role == "decode" else None)
        else:
            assert said["--disaggregation-mode"] == role
            assert said["--tp-size"] == str(layout.tp * layout.dp * layout.cp)
            assert said.get("--attn-dp-size") == (str(layout.dp) if layout.dp > 1 else None)
            assert said.get("--ep-size") == (str(layout.ep) if layout.ep > 1 else None)
            most = int(said.get("--max-running-requests") or 0) * decode.workers
            assert role == "prefill" or item.concurrency_per_replica <= most < item.concurrency_per_replica + ranks
    hosts = nodes_of(item.gpus_per_replica, plan, framework)
    (words,) = calls(folder, "router.sh", HOSTS=" ".join(f"h{n}" for n in range(hosts)))
    known(f"{framework}-router", {word for word in words if word.startswith("--")})
    assert words.count("--prefill") == prefill.workers and words.count("--decode") == decode.workers


def nodes_of(gpus: int, plan: Plan, to: str) -> int:
    """The nodes of a group, as the script of a node states them."""
    script = named(tokopt.export_plan(plan, to=to), "node.sh")
    return max(script.count(";;") - 1, 1)


def test_every_accelerator_of_a_replica_starts_one_worker(tmp_path: Path) -> None:
    plan = made("vllm")
    item = plan.fleet[0]
    script = named(tokopt.export_plan(plan, to="vllm"), "node.sh")
    taken: list[tuple[int, str]] = []
    node = -1
    for line in script.splitlines():
        words = line.split()
        if words and words[0].rstrip(")").isdigit() and words[0].endswith(")"):
            node = int(words[0][:-1])
        if words[:1] == ["start"] and len(words) == 8:
            taken += [(node, device) for device in words[3].split(",")]
    assert len(taken) == len(set(taken)) == item.gpus_per_replica
    ports = [line.split()[4:6] for line in script.splitlines() if line.split()[:1] == ["start"] and "{" not in line]
    assert len({port for port, _ in ports}) == len(ports) == len({side for _, side in ports})


def spread_over_nodes(plan: Plan) -> ServingItem:
    """An item with workers of two nodes: 16 pieces of every layer to prefill, 16 attention ranks to decode."""
    found = serving_item(tokopt.load_catalog(), plan, 1)
    degrees = {"prefill": {"tp": 16, "dp": 1, "ep": 1}, "decode": {"tp": 1, "dp": 16, "ep": 16}}
    workers = tuple(replace(w, workers=1, per_node=8, pp=1, **degrees[w.role.value]) for w in found.workers)
    group = tuple(
        Placed(role=worker.role, number=0, node=2 * n, first=0, worker=worker) for n, worker in enumerate(workers)
    )
    return replace(found, workers=workers, group=group, group_nodes=4, group_replicas=1)


def test_workers_of_several_nodes_find_one_another(tmp_path: Path) -> None:
    item = spread_over_nodes(made("vllm"))
    where = {"NODE_RANK": "1", "HEAD_ADDRESS": "10.0.0.7"}
    folder = written(vllm.render((item,)).files, tmp_path)
    (words,) = calls(folder, "prefill.sh", **where)
    said = flags(words)
    known("vllm", said)
    assert (said["--nnodes"], said["--node-rank"], said["--master-addr"]) == ("2", "1", "10.0.0.7")
    assert "--headless" in words
    (words,) = calls(folder, "decode.sh", **where)
    said = flags(words)
    known("vllm", said)
    assert said["--data-parallel-size"] == "16" and said["--data-parallel-size-local"] == "8"
    assert said["--data-parallel-start-rank"] == "8" and said["--data-parallel-address"] == "10.0.0.7"
    (words,) = calls(folder, "decode.sh", **where | {"NODE_RANK": "0"})
    assert "--headless" not in words and flags(words)["--data-parallel-start-rank"] == "0"
    folder = written(sglang.render((item,)).files, tmp_path)
    (words,) = calls(folder, "decode.sh", **where)
    said = flags(words)
    known("sglang", said)
    assert (said["--nnodes"], said["--node-rank"], said["--dist-init-addr"]) == ("2", "1", "10.0.0.7:20000")
    script = (folder / "node.sh").read_text()
    assert script.count("start decode-0") == script.count("start prefill-0") == 2


PRICES = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour
acme,north,h100x8,h100_sxm,8,on_demand,16.0
acme,north,h200x8,h200_sxm,8,on_demand,20.0
"""


def test_pools_on_two_accelerators_have_nodes_of_their_own(tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text(PRICES, encoding="utf-8")
    asked = {"model": "llama-3.1-70b", "demand": "60req/s", "frameworks": "vllm", "precisions": "fp8"}
    plan = tokopt.plan(prices=str(prices), mixed_pools=True, **asked)
    number = next(n for n, item in enumerate(plan.fleet, 1) if item.deployment.mixed)
    item = serving_item(tokopt.load_catalog(), plan, number)
    on = {placed.node: set[str]() for placed in item.group}
    for placed in item.group:
        on[placed.node].add(placed.worker.accelerator)
    assert all(len(machines) == 1 for machines in on.values()) and len(set.union(*on.values())) == 2
    with pytest.raises(tokopt.InputError, match="acme, which SkyPilot"):
        tokopt.export_plan(plan, to="skypilot", item=number)


def test_what_is_switched_off_is_switched_off_in_the_engine(tmp_path: Path) -> None:
    off = "cuda_graphs,overlap_scheduling,chunked_prefill,prefix_caching"
    plan = tokopt.plan(model="qwen3-8b", gpus="h100_sxm", power="50kW", sla="60ms", workload="chat", disable=off)
    (words,) = calls(written(tokopt.export_plan(plan, to="vllm").files, tmp_path), "serve.sh")
    assert {
        "--enforce-eager",
        "--no-async-scheduling",
        "--no-enable-chunked-prefill",
        "--no-enable-prefix-caching",
    } <= {*words}
    assert int(flags(words)["--max-num-batched-tokens"] or 0) >= int(flags(words)["--max-model-len"] or 0)
    (words,) = calls(written(tokopt.export_plan(plan, to="sglang").files, tmp_path), "serve.sh")
    assert {"--disable-overlap-schedule", "--disable-radix-cache"} <= {*words}
    said = flags(words)
    assert said["--cuda-graph-backend-decode"] == said["--cuda-graph-backend-prefill"] == "disabled"
    assert said["--chunked-prefill-size"] == "-1"
    options = yaml.safe_load(named(tokopt.export_plan(plan, to="trtllm"), "serve.yaml"))
    assert options["disable_overlap_scheduler"] is True and options["enable_chunked_prefill"] is False
    assert options["cuda_graph_config"] is None and options["kv_cache_config"]["enable_block_reuse"] is False


@pytest.mark.parametrize(("tool", "module"), [("vllm", vllm), ("sglang", sglang)])
def test_every_row_of_settings_is_a_flag_of_the_release(tool: str, module: Any) -> None:
    known(tool, {flag for flag, _ in module.SETTINGS})
    assert KNOWN[tool]["version"] == module.VERSION
    assert KNOWN[f"{tool}-router"]["version"] == module.ROUTER_VERSION


def test_versions_are_those_of_the_flags() -> None:
    assert KNOWN["dynamo"]["version"] == dynamo.VERSION and KNOWN["tensorrt-llm"]["version"] == trtllm.VERSION
    assert {tool: KNOWN[tool]["version"] for tool in benchmark.VERSIONS} == benchmark.VERSIONS


def test_trtllm_options_are_known_and_those_of_the_plan() -> None:
    plan = made("tensorrt-llm")
    item = plan.fleet[0]
    export = tokopt.export_plan(plan, to="trtllm")
    allowed = set(KNOWN["tensorrt-llm"]["keys"]["options"])
    for role, pool in (("prefill", item.deployment.prefill), ("decode", item.deployment.decode)):
        assert pool is not None
        options = yaml.safe_load(named(export, f"{role}.yaml"))
        assert set(options) <= allowed
        for key, value in options.items():
            if isinstance(value, dict):
                assert {f"{key}.{inner}" for inner in value} <= allowed
        assert options["tensor_parallel_size"] == pool.layout.tp * pool.layout.dp
        assert options["pipeline_parallel_size"] == pool.layout.pp
        assert options["moe_expert_parallel_size"] == pool.layout.ep
        assert (
            options["moe_expert_parallel_size"] * options["moe_tensor_parallel_size"] == options["tensor_parallel_size"]
        )
        assert options["enable_attention_dp"] is (pool.layout.dp > 1)
        assert options["cache_transceiver_config"]["backend"] == "DEFAULT"


def test_trtllm_writes_the_addresses_of_its_workers(tmp_path: Path) -> None:
    plan = made("tensorrt-llm")
    folder = written(tokopt.export_plan(plan, to="trtllm").files, tmp_path)
    hosts = nodes_of(0, plan, "trtllm")
    (words,) = calls(folder, "router.sh", HOSTS=" ".join(f"h{n}" for n in range(hosts)), TMPDIR=str(tmp_path))
    assert words[:3] == ["trtllm-serve", "disaggregated", "-c"]
    config = yaml.safe_load(Path(words[3]).read_text())
    deployment = plan.fleet[0].deployment
    assert deployment.prefill is not None and deployment.decode is not None
    assert (
        config["context_servers"]["num_instances"]
        == len(config["context_servers"]["urls"])
        == deployment.prefill.workers
    )
    assert config["generation_servers"]["num_instances"] == deployment.decode.workers
    assert all(url.startswith("h") and ":" in url for url in config["generation_servers"]["urls"])


@pytest.mark.parametrize("framework", ["vllm", "sglang", "tensorrt-llm"])
def test_dynamo_has_a_pool_a_role(framework: str) -> None:
    plan = made(framework)
    item = plan.fleet[0]
    documents = list(yaml.safe_load_all(named(tokopt.export_plan(plan, to="dynamo"), "dynamo.yaml")))
    graph = documents[-1]
    keys = KNOWN["dynamo-resource"]["keys"]
    assert graph["kind"] == "DynamoGraphDeployment" and set(graph["spec"]) <= set(keys["spec"])
    components = {each["name"]: each for each in graph["spec"]["components"]}
    assert set(components) == {"Frontend", "Prefill", "Decode"}
    backend = graph["spec"]["backendFramework"]
    for each in components.values():
        assert set(each) <= set(keys["component"]) and each["type"] in keys["types"]
        (main,) = each["podTemplate"]["spec"]["containers"]
        assert main["name"] == "main" and all(isinstance(word, str) for word in main["args"])
        used = {word for word in main["args"] if word.startswith("--")}
        own = set(KNOWN["dynamo"]["flags"])
        engine = {"vllm": "vllm", "sglang": "sglang"}.get(backend)
        assert used <= own | (set(KNOWN[engine]["flags"]) if engine else set())
    assert item.deployment.decode is not None
    assert components["Decode"]["replicas"] == item.deployment.decode.workers * item.replicas
    assert "&id" not in named(tokopt.export_plan(plan, to="dynamo"), "dynamo.yaml")


def test_llm_d_has_servers_and_a_pool_that_selects_them(tmp_path: Path) -> None:
    plan = made("vllm")
    item = plan.fleet[0]
    export = tokopt.export_plan(plan, to="llm-d")
    servers, pool = (yaml.safe_load(named(export, f"{name}.yaml")) for name in ("modelservice", "inferencepool"))
    keys = KNOWN["llm-d-modelservice"]["keys"]
    assert set(servers) <= set(keys["values"]) and set(pool) == set(keys["pool"])
    for role in ("prefill", "decode"):
        assert set(servers[role]) <= set(keys["pods"]) and set(servers[role]["parallelism"]) == set(keys["parallelism"])
        (container,) = servers[role]["containers"]
        known("vllm", {word for word in container["args"] if word.startswith("--")})
    assert item.deployment.prefill is not None
    assert servers["prefill"]["replicas"] == item.deployment.prefill.workers * item.replicas
    labels = pool["inferencePool"]["modelServers"]["matchLabels"]
    assert labels.items() <= servers["modelArtifacts"]["labels"].items()
    picker = yaml.safe_load(next(iter(pool["inferenceExtension"]["pluginsCustomConfig"].values())))
    declared = {plugin["type"] for plugin in picker["plugins"]}
    used = {each["pluginRef"] for profile in picker["schedulingProfiles"] for each in profile["plugins"]}
    assert used <= declared and {p["name"] for p in picker["schedulingProfiles"]} == {"prefill", "decode"}
    first, second, third = calls(written(export.files, tmp_path), "install.sh")
    assert first[:3] == ["helm", "repo", "add"] and second[1] == third[1] == "upgrade"


def test_a_cloud_item_becomes_a_task_with_a_service(cloud: Plan, tmp_path: Path) -> None:
    export = tokopt.export_plan(cloud, to="skypilot", item=1)
    item = cloud.fleet[0]
    task = yaml.safe_load(named(export, "skypilot.yaml"))
    assert task["resources"]["infra"] == f"{item.provider}/{item.region}"
    assert task["resources"]["instance_type"] == item.instance_type
    assert task["resources"]["accelerators"].endswith(f":{item.gpus_per_unit}")
    assert task["resources"].get("use_spot", False) is (item.market == "spot")
    assert task["service"]["replicas"] * task["num_nodes"] == item.units
    assert {"./node.sh", "./router.sh"} <= set(task["run"].split())
    assert {"node.sh", "router.sh", "serve.sh"} <= {file.name for file in export.files}


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("skypilot", "is owned hardware, which SkyPilot does not rent"),
        ("trtlm", "--to: 'trtlm' is not one of vllm, .*did you mean trtllm"),
    ],
)
def test_what_cannot_be_written_is_one_line(chat_plan: Plan, to: str, message: str) -> None:
    with pytest.raises(tokopt.InputError, match=message) as said:
        tokopt.export_plan(chat_plan, to=to)
    assert "\n" not in str(said.value)


def test_an_engine_that_does_not_run_there_is_refused() -> None:
    plan = tokopt.plan(power="1MW", sla="50ms", gpus="mi355x")
    with pytest.raises(tokopt.InputError, match="TensorRT LLM is not known to run on mi355x"):
        tokopt.export_plan(plan, to="trtllm")


def test_a_framework_that_a_tool_does_not_serve_is_refused() -> None:
    with pytest.raises(tokopt.InputError, match="--to llm-d: nothing can be written: item 1 is left out"):
        tokopt.export_plan(made("tensorrt-llm"), to="llm-d")


def test_spot_capacity_is_asked_for_as_such() -> None:
    plan = tokopt.plan(
        model="llama-3.1-8b", demand="5req/s", workload="chat", sla="tpot=40ms", prices="aws,gcp", markets="spot"
    )
    assert {item.market for item in plan.fleet} == {"spot"}
    task = yaml.safe_load(named(tokopt.export_plan(plan, to="skypilot", item=1), "skypilot.yaml"))
    assert task["resources"]["use_spot"] is True


def test_providers_that_skypilot_has_not_are_refused() -> None:
    plan = tokopt.plan(model="llama-3.1-8b", demand="5req/s", workload="chat", sla="tpot=40ms", prices="coreweave")
    with pytest.raises(tokopt.InputError, match=r"coreweave, which SkyPilot [0-9.]+ does not have; it has aws"):
        tokopt.export_plan(plan, to="skypilot")


@pytest.mark.parametrize("number", [0, 99, -1])
def test_items_that_are_not_there_are_refused(chat_plan: Plan, number: int) -> None:
    with pytest.raises(tokopt.InputError, match=f"--item {number}: the plan's fleet has 1"):
        tokopt.export_plan(chat_plan, to="vllm", item=number)


def test_terraform_declares_what_it_sets(chat_plan: Plan) -> None:
    export = tokopt.export_plan(chat_plan, to="terraform")
    values = json.loads(named(export, "tokopt.auto.tfvars.json"))
    (name, declared), *rest = json.loads(named(export, "tokopt.variables.tf.json"))["variable"].items()
    assert not rest and set(values) == {name}
    (item,) = values[name]
    assert item["instances"] == chat_plan.fleet[0].units and item["replicas"] == chat_plan.fleet[0].replicas
    for attribute in item:
        assert f"{attribute} = " in declared["type"] and f"{attribute}: " in declared["description"]


def test_a_benchmark_sends_the_planned_load(chat_plan: Plan, tmp_path: Path) -> None:
    item = chat_plan.fleet[0]
    folder = written(tokopt.export_plan(chat_plan, to="benchmark").files, tmp_path)
    (words,) = calls(folder, "benchmark.sh", URL="http://replica:1")
    said = flags(words)
    known("aiperf", said)
    assert words[:2] == ["aiperf", "profile"] and said["--url"] == "http://replica:1"
    assert float(said["--request-rate"] or 0) == pytest.approx(item.requests_per_s / item.replicas, rel=1e-5)
    assert said["--arrival-pattern"] == "poisson"
    requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert len(requests) == int(said["--request-count"] or 0) >= 1000
    shape = chat_plan.request.workload
    for key, mean, cv in (
        ("input_length", shape.input_tokens, shape.input_cv),
        ("output_length", shape.output_tokens, shape.output_cv),
    ):
        lengths = [request[key] for request in requests]
        assert sum(lengths) / len(lengths) == pytest.approx(mean, rel=5 * cv / len(lengths) ** 0.5 + 0.01)
    (words,) = calls(folder, "benchmark.sh", CONCURRENCY="7")
    assert flags(words)["--concurrency"] == "7" and "--request-rate" not in words


def test_prompts_that_repeat_have_blocks_in_common() -> None:
    plan = tokopt.plan(
        model="llama-3.1-8b", gpus="h100_sxm", power="30kW", sla="tpot=40ms", workload="chat", reuse="prefix=512x4"
    )
    export = tokopt.export_plan(plan, to="benchmark")
    lines = [json.loads(line) for line in named(export, "requests.jsonl").splitlines()]
    assert len({tuple(line["hash_ids"][:2]) for line in lines if len(line["hash_ids"]) > 2}) == 4
    own = [block for line in lines for block in line["hash_ids"][2:]]
    assert len(own) == len(set(own))
    assert all(len(line["hash_ids"]) == -(-line["input_length"] // 256) for line in lines)
    assert "--prompt-input-tokens-block-size 256" in named(export, "benchmark.sh").replace(" \\\n ", "")
    assert "--request-rate" in named(export, "benchmark.sh")


def test_turns_of_conversations_come_at_their_own_times() -> None:
    plan = tokopt.plan(
        model="llama-3.1-8b", gpus="h100_sxm", power="30kW", sla="tpot=40ms", workload="chat", reuse="turns=4,gap=20s"
    )
    export = tokopt.export_plan(plan, to="benchmark")
    times = [json.loads(line)["timestamp"] for line in named(export, "requests.jsonl").splitlines()]
    rate = plan.fleet[0].requests_per_s / plan.fleet[0].replicas
    assert times == sorted(times) and len(times) / times[-1] * 1000.0 == pytest.approx(rate, rel=0.2)
    assert "--fixed-schedule" in named(export, "benchmark.sh")


def test_guidellm_gets_a_scenario_and_its_requests(chat_plan: Plan, tmp_path: Path) -> None:
    folder = written(tokopt.export_plan(chat_plan, to="benchmark", tool="guidellm").files, tmp_path)
    first, last = calls(folder, "benchmark.sh")
    assert first[0] == "python3" and last[:3] == ["guidellm", "run", "--config"]
    times = [json.loads(line)["timestamp"] for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert times == sorted(times) and times[0] == 0.0
    item = chat_plan.fleet[0]
    assert len(times) / times[-1] == pytest.approx(item.requests_per_s / item.replicas, rel=0.15)


@pytest.mark.parametrize("to", [target.value for target in Target if target is not Target.SKYPILOT])
def test_the_same_plan_gives_the_same_files(chat_plan: Plan, to: str) -> None:
    once, again = (tokopt.export_plan(chat_plan, to=to) for _ in range(2))
    assert once == again and once.files and Export.model_validate_json(once.model_dump_json()) == once


def test_several_items_have_files_of_their_own(tmp_path: Path) -> None:
    classes = {
        "workloads": {
            "chat": {"model": "llama-3.1-8b", "workload": "chat", "sla": "tpot=40ms", "demand": "5req/s"},
            "code": {"model": "qwen3-32b", "workload": "chat", "sla": "tpot=60ms", "demand": "2req/s"},
        }
    }
    plan = tokopt.plan(workloads=classes, gpus="h100_sxm", frameworks="vllm")
    assert len(plan.fleet) > 1
    export = tokopt.export_plan(plan, to="vllm")
    names = [file.name for file in export.files]
    assert len(names) == len(set(names)) and all(name.startswith("item") for name in names)
    assert tokopt.export_plan(plan, to="vllm", item=2).items == (2,)
    script = named(export, "item1-node.sh")
    assert "item1-serve.sh" in script or "item1-prefill.sh" in script


def test_a_plan_with_periods_is_measured_at_its_busiest() -> None:
    chat = {"model": "llama-3.1-8b", "workload": "chat", "sla": "tpot=40ms", "demand": "60req/s"}
    periods = [{"name": "night", "hours": 12, "demand": 0.2}, {"name": "day", "hours": 12, "demand": 1.8}]
    asked = {"workloads": {"chat": chat}, "periods": periods}
    plan = tokopt.plan(workloads=asked, gpus="h100_sxm", frameworks="vllm")
    item = plan.fleet[0]
    assert item.busiest_requests_per_s > 1.2 * item.requests_per_s / item.replicas, "otherwise nothing is tested here"
    point = operating_point(plan, item, 8192)
    assert point.requests_per_s == item.busiest_requests_per_s
    assert point.output_tokens_per_s == pytest.approx(point.requests_per_s * point.output_tokens)
    (values,) = json.loads(named(tokopt.export_plan(plan, to="terraform", item=1), "tokopt.auto.tfvars.json")).values()
    assert values[0]["requests_per_s_per_replica"] == item.busiest_requests_per_s


def test_a_step_has_room_for_the_chunk_beside_all_that_decodes(chat_plan: Plan) -> None:
    deployment = chat_plan.fleet[0].deployment
    (worker,) = serving_item(tokopt.load_catalog(), chat_plan, 1).workers
    assert worker.rank_cap is not None
    decoding = worker.rank_cap * (1 + deployment.speculation_depth)
    assert worker.step_tokens == deployment.chunk_tokens + decoding
    options = yaml.safe_load(named(tokopt.export_plan(chat_plan, to="trtllm"), "serve.yaml"))
    assert options["max_num_tokens"] == worker.step_tokens
    prefill, decode = serving_item(tokopt.load_catalog(), made("vllm"), 1).workers
    assert prefill.step_tokens == prefill.chunk_tokens and decode.step_tokens == decode.chunk_tokens


def test_caches_in_host_memory_are_of_one_engine_and_leave_room(chat_plan: Plan) -> None:
    found = serving_item(tokopt.load_catalog(), chat_plan, 1)
    whole = tokopt.load_catalog().accelerator("h100_sxm").host_bytes
    assert whole and found.host_gib == pytest.approx(HOST_SHARE * whole / 2**30) and HOST_SHARE < 1.0
    worker = replace(found.workers[0], tp=2, dp=4, pp=1, cp=1)
    item = replace(found, offload="host", workers=(worker,))
    assert ("--kv-offloading-size", int(2 * found.host_gib)) in vllm.engine_flags(item, worker)
    assert ("--hicache-size", int(found.host_gib)) in sglang.engine_flags(item, worker)
    assert trtllm.options(item, worker)["kv_cache_config"]["host_cache_size"] == int(found.host_gib) << 30


def test_pods_of_llm_d_count_their_ranks_on(tmp_path: Path) -> None:
    item = spread_over_nodes(made("vllm"))
    servers = yaml.safe_load(llm_d.render((item,)).files[0].content)
    (decode,) = servers["decode"]["containers"]
    script = "exec " + " ".join(shlex.quote(each) for each in [*decode["command"], *decode["args"]])
    (tmp_path / "pod.sh").write_text(script)
    for index, first in (("0", "0"), ("1", "8")):
        (words,) = calls(tmp_path, "pod.sh", LWS_WORKER_INDEX=index)
        said = flags(words)
        known("vllm", said)
        assert words[:2] == ["vllm", "serve"] and said["--data-parallel-start-rank"] == first
        assert said["--data-parallel-size"] == "16" and said["--data-parallel-size-local"] == "8"
    (prefill,) = servers["prefill"]["containers"]
    assert prefill["command"] == ["vllm"] and "--node-rank" in prefill["args"]


def test_ranks_that_nodes_cannot_share_evenly_are_left_out_of_llm_d() -> None:
    item = spread_over_nodes(made("vllm"))
    wide = tuple(replace(worker, tp=16, dp=2) for worker in item.workers)
    rendered = llm_d.render((replace(item, workers=wide),))
    assert not rendered.files
    assert rendered.notes[0].startswith(f"item 1 is left out: 2 data-parallel ranks do not divide over {wide[0].nodes}")


def test_services_without_a_router_are_as_many_as_planned_replicas(cloud: Plan) -> None:
    found = serving_item(tokopt.load_catalog(), cloud, 1)
    worker = replace(found.workers[0], per_node=8, tp=2, dp=1, pp=1, cp=1)
    group = tuple(Placed(role=worker.role, number=n, node=0, first=2 * n, worker=worker) for n in range(4))
    item = replace(
        found, framework="tensorrt-llm", workers=(worker,), group=group, group_nodes=1, group_replicas=4, replicas=10,
        accelerators_a_unit=8,
    )  # fmt: skip
    task = yaml.safe_load(skypilot.render((item,)).files[0].content)
    assert task["service"]["replicas"] == 10 and task["num_nodes"] == 1
    assert task["resources"]["accelerators"].endswith(":2") and "instance_type" not in task["resources"]
    task = yaml.safe_load(skypilot.render((replace(item, framework="vllm"),)).files[0].content)
    assert task["service"]["replicas"] == 3 and task["resources"]["accelerators"].endswith(":8")
    assert task["resources"]["instance_type"] == item.instance_type


def test_options_in_a_config_map_have_nothing_that_nobody_fills_in(chat_plan: Plan) -> None:
    found = serving_item(tokopt.load_catalog(), chat_plan, 1)
    assert found.drafting is not None
    unknown = replace(found.drafting, method=Method.EAGLE3, checkpoint=None)
    rendered = dynamo.render((replace(found, framework="tensorrt-llm", drafting=unknown),))
    content = rendered.files[0].content
    assert "$(" not in content and "configMapKeyRef" not in content
    assert any("DRAFT_MODEL in the options stands for" in note for note in rendered.notes)
    assert "name: DRAFT_MODEL" in dynamo.render((replace(found, framework="vllm", drafting=unknown),)).files[0].content


def test_each_worker_sees_accelerators_by_its_own_vendors_variable(tmp_path: Path) -> None:
    found = serving_item(tokopt.load_catalog(), made("vllm"), 1)
    vendors = {"prefill": "amd", "decode": "nvidia"}
    group = tuple(replace(p, worker=replace(p.worker, vendor=vendors[p.role.value])) for p in found.group)
    script = next(f.content for f in vllm.render((replace(found, group=group),)).files if f.name == "node.sh")
    started = [line.split() for line in script.splitlines() if line.strip().startswith("start ")]
    assert len(started) == len(group)
    for words in started:
        variable = "HIP_VISIBLE_DEVICES=" if words[1].startswith("prefill") else "CUDA_VISIBLE_DEVICES="
        assert words[3].startswith(variable)


def test_only_engines_that_bring_their_own_router_speak_of_it() -> None:
    item = serving_item(tokopt.load_catalog(), made("vllm"), 1)
    assert vllm.ROUTER_NOTE in vllm.render((item,)).notes
    for module in (dynamo, llm_d):
        notes = module.render((item,)).notes
        assert vllm.ROUTER_NOTE not in notes and any("RDMA" in note for note in notes)
