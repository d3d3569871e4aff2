"""Exports of a plan: the files that a serving tool takes, and what a renderer needs to know to write them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from tokopt.domain.estimates import Record
from tokopt.domain.speculators import Method


@unique
class Target(StrEnum):
    """What a plan is written for."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"
    DYNAMO = "dynamo"
    LLM_D = "llm-d"
    SKYPILOT = "skypilot"
    TERRAFORM = "terraform"
    BENCHMARK = "benchmark"


@unique
class BenchmarkTool(StrEnum):
    """What a benchmark script runs."""

    AIPERF = "aiperf"
    GUIDELLM = "guidellm"


class ExportFile(Record):
    """A file of an export."""

    name: str  # without a folder
    content: str
    executable: bool
    what: str


class Export(Record):
    """Files for one tool, and what they do not say."""

    to: Target
    version: str  # of the tools that flags and fields are of
    items: tuple[int, ...]  # of the plan's fleet, from 1
    files: tuple[ExportFile, ...]
    notes: tuple[str, ...]  # what could not be expressed in the tool's settings, and what was assumed


@unique
class Role(StrEnum):
    """What a worker does."""

    SERVE = "serve"  # prefill and decode
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingWorker:
    """The workers of one pool of a replica, all alike; degrees are those of `Layout`."""

    role: Role
    workers: int  # of a replica
    accelerator: str  # title
    vendor: str
    per_node: int  # accelerators of a node
    tp: int
    pp: int
    dp: int
    ep: int
    cp: int
    dcp: int
    redundant_experts: int
    two_batch_overlap: bool
    rank_cap: int | None  # requests that one attention rank runs at most; None = the plan does not say
    chunk_tokens: int  # prompt tokens of a step of one attention rank
    step_tokens: int  # all tokens of such a step: the chunk, and room beside it for what decodes
    experts: bool  # whether the model has routed experts
    chunked_prefill: bool
    cuda_graphs: bool
    overlap_scheduling: bool

    @property
    def accelerators(self) -> int:
        """Accelerators that one worker spans."""
        return self.tp * self.dp * self.pp * self.cp

    @property
    def worker_cap(self) -> int | None:
        """Requests that one worker runs at most, over all its attention ranks."""
        return None if self.rank_cap is None else self.rank_cap * self.dp

    @property
    def nodes(self) -> int:
        """Nodes that one worker spans."""
        return -(-self.accelerators // self.per_node)

    @property
    def ranks_per_node(self) -> int:
        """Attention ranks on each node; 0 where a rank spans several nodes."""
        return self.dp // self.nodes

    @property
    def divides_over_nodes(self) -> bool:
        """Whether each of its nodes has as many whole attention ranks."""
        return self.nodes == 1 or self.dp == 1 or self.dp % self.nodes == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """How tokens are drafted; no method = by the modules that the checkpoint ships."""

    method: Method | None
    depth: int  # draft tokens a step
    name: str
    checkpoint: str | None  # repository of the drafter; None = it has none, or it is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a worker of a group of nodes runs."""

    role: Role
    number: int  # among those of its role in the group, from 0
    node: int  # the first one, from 0
    first: int  # accelerator of that node, from 0
    worker: ServingWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRequest:
    """A request of a benchmark."""

    time_s: float  # from the first one on
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]  # names of the prompt's leading blocks; prompts that begin alike have the same


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What one replica is asked for, and what the plan promises there."""

    workload: str
    requests_per_s: float  # of one replica
    arrival_cv2: float  # of the times between arrivals
    input_tokens: float
    output_tokens: float
    input_cv: float
    output_cv: float
    prefix_share: float  # of each prompt that is the same in all; 0 where prompts repeat in another way, or not
    timed: bool  # whether requests come at their own times, as turns of conversations do
    mean_in_flight: float
    requests: tuple[ScheduledRequest, ...]
    block_tokens: int  # that a block of a prompt names; 0 = nothing is known to repeat
    warm_up: int  # requests before what is measured
    seed: int
    ttft_ms: dict[str, float]  # by statistic
    tpot_ms: dict[str, float]
    output_tokens_per_s: float  # of one replica


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingItem:
    """One item of a plan's fleet in the words of serving tools."""

    number: int  # in the fleet, from 1
    name: str  # of letters, digits and hyphens
    llm: str
    title: str
    framework: str
    framework_title: str
    checkpoint: str | None  # repository or path; None = the catalog knows none in this precision
    quantised_on_load: str | None  # precision that a wider checkpoint is brought to when it is loaded
    precision: str
    kv_precision: str
    accelerator: str
    accelerator_names: tuple[str, ...]  # that price lists and people use
    power_setting: str  # that accelerators are set to, like 500w; empty = their own limit
    supported: tuple[str, ...]  # frameworks that the catalog knows to run on all of its accelerators
    context_tokens: int
    memory_fraction: float
    drafting: Drafting | None
    prefix_caching: bool
    router: str  # as the plan assumes it
    offload: str  # where caches go beyond accelerator memory
    host_gib: float | None  # host memory behind one accelerator that caches may take
    workers: tuple[ServingWorker, ...]  # one pool, or the prefill pool and the decode pool
    group: tuple[Placed, ...]  # workers of one group of nodes
    group_nodes: int
    group_replicas: int
    replicas: int
    provider: str
    region: str
    market: str
    instance_type: str
    units: int
    accelerators_a_unit: int
    usd_per_unit_hour: float
    point: OperatingPoint | None = None  # where a benchmark is written

    @property
    def apart(self) -> bool:
        """Whether prefill and decode have pools of their own."""
        return len(self.workers) > 1

    @property
    def requests_per_s(self) -> float:
        """Requests/s of one replica; 0 where it was not asked for."""
        return self.point.requests_per_s if self.point else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What a renderer made of an item."""

    files: tuple[ExportFile, ...]
    notes: tuple[str, ...] = ()
