"""What one worker holds and how it runs: memory, the steady state of continuous batching, and prefill."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokopt.checking.arithmetic import LlmSums, group_cache_bytes
from tokopt.checking.context import alone_share, cache_split
from tokopt.checking.rates import Rates
from tokopt.checking.step import Tokens, exchanged_s, link, step_s
from tokopt.domain.demand import WorkloadShape
from tokopt.domain.deployments import Layout

ACTIVATION_BYTES_PER_TOKEN = 24.0  # a hidden unit: twelve live tensors of 16 bits while a chunk passes a layer
ROUNDING = 1.0 + 1e-12  # a count that is short of a whole by rounding alone is that whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Mean tokens of a request."""

    prompt: float
    output: float
    computed: float  # of the prompt, not found in the prefix cache
    decoded: float  # by decode steps: all of the output but its first token
    context: float  # cached tokens of a decoding sequence
    grown: float  # cached tokens of a running request whose cache grows with its output: long outputs stay longer
    prompt_context: float  # tokens that a prompt token attends to


def request_lengths(workload: WorkloadShape) -> Lengths:
    """Return the lengths of a request: at least one prompt token is computed and one token decoded."""
    cached = min(workload.input_tokens * workload.prefix_share, max(workload.input_tokens - 1.0, 0.0))
    computed = workload.input_tokens - cached
    decoded = max(workload.output_tokens - 1.0, 1.0)
    return Lengths(
        prompt=workload.input_tokens,
        output=workload.output_tokens,
        computed=computed,
        decoded=decoded,
        context=workload.input_tokens + 0.5 * decoded * (1.0 + workload.output_cv**2),
        grown=workload.input_tokens + 0.5 * workload.output_tokens * (1.0 + workload.output_cv**2),
        prompt_context=(cached + 0.5 * computed) * (1.0 + workload.input_cv**2),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker, its settings, and what it is made of."""

    sums: LlmSums
    rates: Rates
    layout: Layout
    depth: int  # draft tokens a step
    tokens_per_step: float
    chunk_tokens: float  # 0 in a pool that only decodes

    @property
    def groups(self) -> int:
        """Attention ranks x pipeline stages: groups of sequences that run at a time."""
        return self.layout.dp * self.layout.pp

    def time_s(self, size: Lengths, *, sequences: float, prompt: float) -> float:
        """Time of a step of one micro-batch with that many decoding sequences and prompt tokens a rank. [s]"""
        return step_s(self.sums, self.rates, self.layout, self._tokens(size, sequences, prompt))

    def exchanged_share(self, size: Lengths, *, sequences: float) -> float:
        """Share of a decode step, run as one batch, that its all-to-alls take."""
        tokens = self._tokens(size, sequences, 0.0)
        whole = self.layout.model_copy(update={"two_batch_overlap": False})
        return exchanged_s(self.sums, self.rates, whole, tokens) / step_s(self.sums, self.rates, whole, tokens)

    def _tokens(self, size: Lengths, sequences: float, prompt: float) -> Tokens:
        return Tokens(
            sequences=sequences,
            width=1.0 + self.depth,
            context=size.context,
            prompt=prompt,
            prompt_context=size.prompt_context,
            drafts=float(self.depth),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of the fullest accelerator of a worker. [B]"""

    weights: float
    working: float  # activations of a prefill chunk
    cache_room: float  # negative: the weights alone do not fit
    per_sequence: float  # cache of a mean sequence
    sequences: int  # that fit, over the whole worker; 0 if not even one whole request does


def worker_memory(worker: Worker, *, mean_tokens: float, longest_tokens: float) -> Memory:
    """Return the memory of a worker that holds sequences of `mean_tokens` on average, `longest_tokens` at the end."""
    weights = _weight_bytes(worker.sums, worker.layout, worker.depth)
    working = worker.chunk_tokens / worker.layout.cp * worker.sums.hidden_size * ACTIVATION_BYTES_PER_TOKEN
    room = worker.rates.usable_bytes - weights - working
    each = sequence_bytes(worker.sums, worker.layout, mean_tokens, worker.depth)
    sequences = 0
    if room * ROUNDING >= sequence_bytes(worker.sums, worker.layout, longest_tokens, worker.depth):
        sequences = math.floor(max(room, 0.0) / max(each, 1.0) * ROUNDING) * worker.layout.dp
    return Memory(weights=weights, working=working, cache_room=room, per_sequence=each, sequences=sequences)


def decode_memory(worker: Worker, size: Lengths) -> Memory:
    """Return the memory of a worker that decodes: on average a sequence holds its prompt and half of its output.

    A framework that reserves outputs sets a share of them aside from the start.
    """
    # What is set aside at once is twice what a growing cache holds on average.
    mean = size.grown + worker.rates.reserved_output * (size.grown - size.prompt)
    return worker_memory(worker, mean_tokens=mean, longest_tokens=size.prompt + size.output)


def prompt_memory(worker: Worker, size: Lengths) -> Memory:
    """Return the memory of a worker that only prefills: sequences leave when their prompt is done."""
    return worker_memory(worker, mean_tokens=size.prompt, longest_tokens=size.prompt)


def _stage_share(sums: LlmSums, layout: Layout) -> float:
    """Share of the layers on the fullest pipeline stage: ceil(L/pp) / L."""
    return math.ceil(sums.layers / layout.pp) / sums.layers


def _weight_bytes(sums: LlmSums, layout: Layout, depth: int) -> float:
    """ceil(L/pp)/L · (dense/tp + experts · ep/stage) + vocabulary tables/tp + draft module/stage. [B]

    A stage has tp · dp · cp accelerators; of a layer's E experts and their R copies each holds ceil((E + R)/ep).

    A drafter that is no module of the model is split over tp.

    With several stages, the first holds the embedding and the last the head; with one, it holds both.
    """
    stage = layout.tp * layout.dp * layout.cp
    held = math.ceil((sums.experts + layout.redundant_experts) / layout.ep)
    experts = sums.expert_layers * held * sums.expert_bytes * layout.ep / stage
    dense = (sums.projection_bytes + sums.dense_bytes) / layout.tp
    vocabulary = (sums.embedding_bytes, sums.head_bytes)
    tables = max(vocabulary) if layout.pp > 1 else sum(vocabulary)
    draft = sums.draft_bytes / stage if depth > 0 else 0.0
    if sums.drafter is not None and depth > 0:
        draft += sums.drafter.dense_weight_bytes / layout.tp
    return _stage_share(sums, layout) * (dense + experts) + tables / layout.tp + draft


def sequence_bytes(sums: LlmSums, layout: Layout, tokens: float, depth: int) -> float:
    """Cache of one sequence on one accelerator: split over stages, key-value heads, and by tokens over dcp. [B]

    A drafter keeps a cache of the same tokens, which is split by heads alone, as a recurrent state is.
    """
    split = 0.0
    for group in sums.attention:
        ways = min(layout.tp, group.cache_shards) if group.state_bytes else cache_split(layout, group.cache_shards)
        split += group_cache_bytes(group, tokens) / ways
    drafted = 0.0
    layout = layout.model_copy(update={"dcp": 1})
    if sums.drafter is not None and depth > 0:
        drafted = sequence_bytes(sums.drafter, layout, tokens, 0)
    return _stage_share(sums, layout) * split + drafted


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """A worker with a constant number of decoding sequences."""

    in_service: float  # sequences that hold cache
    requests_per_s: float
    decode_step_s: float
    tpot_s: float
    stall_s: float  # mean extra time per token from one prompt's prefill
    prefill_s: float  # a prompt's own
    alone_prefill_s: float  # the same where nothing else runs
    prefill_share: float  # of the worker's time
    prefill_wait_s: float  # for the prefills of others


def decode_only(worker: Worker, size: Lengths, running: float) -> Steady:
    """Return the steady state of a worker of a decode pool: every step decodes."""
    base = worker.time_s(size, sequences=running / worker.groups, prompt=0.0)
    tpot = base / worker.tokens_per_step
    return Steady(
        in_service=running,
        requests_per_s=running / (size.decoded * tpot),
        decode_step_s=base,
        tpot_s=tpot,
        stall_s=0.0,
        prefill_s=0.0,
        alone_prefill_s=0.0,
        prefill_share=0.0,
        prefill_wait_s=0.0,
    )


def mixed(worker: Worker, size: Lengths, running: float, input_cv: float) -> Steady:
    """Return the steady state of a worker that decodes `running` sequences and prefills their successors.

    A step yields running · tokens/decoded new prompts, in chunks; a share `mixing` of each chunk rides in a decode
    step, the rest takes a step of its own (Agrawal et al., Sarathi-Serve, OSDI 2024):

        step = decode step + chunks · (ride · (mixed - decode) + (1 - ride) · own),   TPOT = step / tokens a step

    Other attention ranks wait for a chunk to the extent of `rank_imbalance`; waits follow Pollaczek and Khinchine.
    """
    constants = worker.rates.constants
    sequences = running / worker.groups
    base = worker.time_s(size, sequences=sequences, prompt=0.0)
    prompts = running * worker.tokens_per_step / size.decoded
    arriving = prompts * size.computed / worker.groups
    chunk = max(min(arriving, worker.chunk_tokens), min(size.computed, worker.chunk_tokens))
    chunks = arriving / chunk
    both = worker.time_s(size, sequences=sequences, prompt=chunk)
    own = worker.time_s(size, sequences=0.0, prompt=chunk)
    ride = constants.mixing / max(1.0, chunks)
    some_rank = -math.expm1(worker.layout.dp * math.log1p(-min(chunks, 1.0 - 1e-12)))
    held_up = chunks + constants.rank_imbalance * max(some_rank - chunks, 0.0)
    added = held_up * (ride * (both - base) + (1.0 - ride) * own)
    step = base + added
    tpot = step / worker.tokens_per_step
    rate = running / (size.decoded * tpot)
    share = added / step
    overlapped = alone_share(worker.rates, worker.layout, size.computed / chunk)
    prefill = size.computed / chunk * (own + constants.mixing * max(both - own, 0.0)) * overlapped
    wait = share / max(1.0 - share, 1e-9) * prefill * 0.5 * (1.0 + input_cv**2)
    return Steady(
        in_service=running + rate * (prefill + wait),
        requests_per_s=rate,
        decode_step_s=base,
        tpot_s=tpot,
        stall_s=added / prompts / size.decoded,
        prefill_s=prefill,
        alone_prefill_s=size.computed / chunk * own * overlapped,
        prefill_share=share,
        prefill_wait_s=wait,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPool:
    """The prefill pool of a disaggregated replica, as servers that take prompts from one queue."""

    servers: int
    prompt_s: float  # one prompt alone, from start to end
    batch_s: float  # a full batch of prompts
    prompts_per_s: float  # of one server, kept up
    fixed_s: float  # moving the request and its cache to the decode pool, and the front end


def prefill_pool(worker: Worker, size: Lengths, *, workers: int, receiver: Worker, replica: int | None) -> PrefillPool:
    """Return a pool of prefill workers: prompts shorter than a chunk share it, longer ones take several passes.

    The cache moves over the links of the smaller worker, inside the scale-up domain if the whole `replica` is. Where
    pools are on different accelerators (None), it moves between nodes: as fast as the end that can carry less, after
    the longer of both ends' delays.
    """
    batch = max(1.0, float(math.floor(worker.chunk_tokens / size.computed)))
    chunk = min(size.computed * batch, worker.chunk_tokens)
    batch_s = worker.time_s(size, sequences=0.0, prompt=chunk) * size.computed * batch / chunk
    single = min(size.computed, float(worker.chunk_tokens))
    single_s = worker.time_s(size, sequences=0.0, prompt=single) * size.computed / single
    single_s *= alone_share(worker.rates, worker.layout, size.computed / single)
    constants, others = worker.rates.constants, receiver.rates.constants
    if replica is None:
        carried = [end.layout.accelerators * end.rates.outside_bytes_per_s for end in (worker, receiver)]
        latency_s = max(constants.scale_out_latency_s, others.scale_out_latency_s)
        transfer_s = latency_s + worker.sums.cache_bytes(size.prompt) / min(carried)
        fixed_s = max(constants.handover_s, others.handover_s)
        fixed_s += max(constants.request_overhead_s, others.request_overhead_s)
    else:
        bytes_per_s, latency_s = link(worker.rates, replica)
        links = min(worker.layout.accelerators, receiver.layout.accelerators)
        transfer_s = latency_s + worker.sums.cache_bytes(size.prompt) / (bytes_per_s * links)
        fixed_s = constants.handover_s + constants.request_overhead_s
    return PrefillPool(
        servers=workers * worker.groups,
        prompt_s=single_s,
        batch_s=batch_s,
        prompts_per_s=constants.prefill_pool_efficiency * batch / batch_s,
        fixed_s=transfer_s + fixed_s,
    )
