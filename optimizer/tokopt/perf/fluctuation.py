"""What a replica draws from one instant to the next, and what a fleet of replicas draws at most, but for a chance.

A replica is made of parts that work independently: its decode workers and, where it has one, the workers of its prefill
pool. At a random instant a part is in one of a few states (idle, decoding with n requests in service, in somebody's
prefill), whose chances are those of the queueing model's birth-death chain; each state has its power.

For the sum S of independent parts X_i, for every θ > 0 (Chernoff's bound; ln E[e^θX]/θ is the effective bandwidth of
Hui, IEEE JSAC 6(9), 1988, and Kelly, Queueing Systems 9, 1991):

    P(S > P) ≤ e^(-θP) · Π E[e^(θX_i)] ≤ ε    wherever    Σ ln E[e^(θX_i)]/θ + ln(1/ε)/θ ≤ P

The left side is linear in how many parts of each kind there are, so a program may use it as it uses any watts, and the
proof needs no normal distribution and no least number of replicas. The effective power of a part grows with θ from its
mean to the most that it can draw; what is added once, ln(1/ε)/θ, falls. Which θ is best depends on the fleet's size;
every θ is safe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.deployed import decode_layout, decode_worker, prefill_worker
from tokopt.perf.machine import Machine
from tokopt.perf.power import BoardWatts, throttled_w
from tokopt.perf.queueing import Profile, stationary
from tokopt.perf.replica import Worker, knots, prompts_a_batch
from tokopt.perf.serving import steady_state, workload_lengths
from tokopt.perf.step import step_time

NEGLIGIBLE = 1e-12  # chance of a state that cannot matter


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Workers of one kind of a replica: `count` of them, independent of each other, each in one of the states."""

    count: int
    watts: NDArray[np.float64]  # of one worker with its part of the server, by state
    chances: NDArray[np.float64]  # of the states, which add up to one
    limit_w: float  # nameplate of one worker's part of its servers

    @property
    def mean_w(self) -> float:
        """Mean power of all workers of the kind. [W]"""
        return self.count * float(self.watts @ self.chances)

    @property
    def variance_w2(self) -> float:
        """Variance of the power of all of them. [W²]"""
        mean = float(self.watts @ self.chances)
        return self.count * float(np.square(self.watts - mean) @ self.chances)

    def effective_w(self, theta: float) -> float:
        """Return ln E[e^(θX)] / θ of all of them; infinite θ is the most that they can draw. [W]"""
        most = float(self.watts.max())
        if math.isinf(theta):
            return self.count * most
        # The largest exponent is taken out: e^(θ·watts) itself overflows.
        return self.count * (most + math.log(float(np.exp(theta * (self.watts - most)) @ self.chances)) / theta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a replica, or a block of replicas with accelerators to spare, draws."""

    parts: tuple[Part, ...]
    spare_w: float = 0.0  # of accelerators that have nothing to do
    spare_limit_w: float = 0.0  # their nameplate

    @property
    def mean_w(self) -> float:
        """Mean power. [W]"""
        return self.spare_w + sum(part.mean_w for part in self.parts)

    @property
    def variance_w2(self) -> float:
        """Variance of the power. [W²]"""
        return sum(part.variance_w2 for part in self.parts)

    @property
    def limit_w(self) -> float:
        """Nameplate of all servers. [W]"""
        return self.spare_limit_w + sum(part.count * part.limit_w for part in self.parts)

    def effective_w(self, theta: float) -> float:
        """Return the effective power at θ: between the mean and the most that can be drawn. [W]"""
        return self.spare_w + sum(part.effective_w(theta) for part in self.parts)

    def times(self, count: int, *, spare_w: float = 0.0, spare_limit_w: float = 0.0) -> Draw:
        """Return what `count` such replicas draw that work independently, and accelerators to spare."""
        return Draw(
            parts=tuple(replace(part, count=part.count * count) for part in self.parts),
            spare_w=self.spare_w * count + spare_w,
            spare_limit_w=self.spare_limit_w * count + spare_limit_w,
        )

    def raised(self, factor: float) -> Draw:
        """Return the draw if all watts are `factor` times as high, none above its nameplate."""
        parts = tuple(replace(part, watts=np.minimum(part.watts * factor, part.limit_w)) for part in self.parts)
        return Draw(
            parts=parts,
            spare_w=min(self.spare_w * factor, self.spare_limit_w),
            spare_limit_w=self.spare_limit_w,
        )


def replica_draw(
    model: LlmArithmetic,
    machine: Machine,
    deployment: Deployment,
    workload: Workload,
    watts: BoardWatts,
    profile: Profile,
    *,
    accepted: float,
    rate: float,
    sending: tuple[Machine, BoardWatts] | None = None,
) -> Draw | None:
    """Return what a replica draws that takes `rate` requests a second; None where idle, board or server is not known.

    The mean is that of `drawn_w` at the mean occupancy, which the calibration was fitted with: states are shifted to
    it, since what a mean state draws is more than the mean of what states draw.

    Args:
        model: Bytes and FLOPs of the model.
        machine: Sustained rates and shares of power.
        deployment: The replica.
        workload: Lengths and arrivals.
        watts: Of one accelerator.
        profile: The replica's profile up to its running cap.
        accepted: Tokens a step yields at the deployment's speculation depth.
        rate: Requests a second of the whole replica, below saturation.
        sending: The machine and the watts of a prefill pool that is on another accelerator.
    """
    ends = ((machine, watts),) if sending is None else ((machine, watts), sending)
    if any(math.isnan(float(w.idle_w) + float(w.board_w) + float(w.server_w)) for _, w in ends):
        return None
    parts = [_decoders(model, machine, deployment, workload, watts, profile, accepted, rate)]
    if deployment.mode is ServingMode.DISAGG:
        own, each = ends[-1]
        parts.append(_prefillers(model, own, deployment, workload, each, profile, rate))
    return Draw(parts=tuple(parts))


def idle_w(machine: Machine, watts: BoardWatts) -> float:
    """Return what one accelerator and its part of the server draw with nothing to do. [W]"""
    return float(throttled_w(machine, watts, busy=0.0, compute_share=0.0))


@dataclass(frozen=True, slots=True)
class _Shares:
    """What a decode worker does by knot of its occupancy."""

    held: NDArray[np.float64]  # requests in service
    prefilling: NDArray[np.float64]  # share of time in prefill
    mean: NDArray[np.float64]  # share of time that arithmetic bounds
    decode: NDArray[np.float64]  # the same of decode steps
    prefill: NDArray[np.float64]  # and of prefills


def _shares(
    model: LlmArithmetic,
    machine: Machine,
    deployment: Deployment,
    workload: Workload,
    accepted: float,
    running: NDArray[np.float64],
) -> _Shares:
    worker = decode_worker(deployment, accepted)
    state = steady_state(
        model,
        machine,
        worker.layouts,
        workload_lengths(workload),
        running=running,
        depth=float(worker.depth),
        accepted=worker.accepted,
        chunk_tokens=float(worker.chunk_tokens),
        prefill=deployment.mode is ServingMode.AGG,
    )
    time, mean = np.asarray(state.prefill_share, dtype=float), np.asarray(state.compute_share, dtype=float)
    decode = np.asarray(state.decode.compute_share, dtype=float)
    # The mean is that of both kinds of step: what is left of it without decode steps is that of prefills.
    prefill = np.where(time > 0.0, (mean - decode * (1.0 - time)) / np.maximum(time, NEGLIGIBLE), decode)
    held = np.maximum.accumulate(np.asarray(state.in_service, dtype=float))
    return _Shares(held=held, prefilling=time, mean=mean, decode=decode, prefill=np.clip(prefill, 0.0, 1.0))


def _decoders(
    model: LlmArithmetic,
    machine: Machine,
    deployment: Deployment,
    workload: Workload,
    watts: BoardWatts,
    profile: Profile,
    accepted: float,
    rate: float,
) -> Part:
    """Return the workers that decode, and prefill where they have no pool for that."""
    layout, workers = decode_layout(deployment)
    chances, tail = stationary(profile, rate / workers)
    chances[-1] += tail
    by_knot = _shares(model, machine, deployment, workload, accepted, knots(profile.slots))
    occupancy = np.arange(1.0, profile.slots + 1.0)
    time, decode, prefill = (
        np.interp(occupancy, by_knot.held, column) for column in (by_knot.prefilling, by_knot.decode, by_knot.prefill)
    )
    drawn = np.asarray(
        throttled_w(
            machine,
            watts,
            busy=np.concatenate([[0.0], np.ones(2 * profile.slots)]),
            compute_share=np.concatenate([[0.0], decode, prefill]),
        ),
        dtype=float,
    )
    weights = np.concatenate([chances[:1], chances[1:] * (1.0 - time), chances[1:] * time])
    mean_n = float(np.arange(profile.slots + 1) @ chances)
    at_mean = _shares(model, machine, deployment, workload, accepted, np.array([max(mean_n, 1e-6)]))
    wanted_w = throttled_w(machine, watts, busy=1.0 - float(chances[0]), compute_share=float(at_mean.mean[0]))
    return _part(workers, layout.accelerators, drawn, weights, float(wanted_w), watts)


def _prefillers(
    model: LlmArithmetic,
    machine: Machine,
    deployment: Deployment,
    workload: Workload,
    watts: BoardWatts,
    profile: Profile,
    rate: float,
) -> Part:
    """Return the workers of a prefill pool: each all busy or all idle, busy for the share of its pool's load."""
    assert deployment.prefill is not None
    assert profile.prefill is not None
    worker = prefill_worker(deployment)
    load = min(rate / (profile.prefill.servers * profile.prefill.prompts_per_s), 1.0)
    shares = np.array([0.0, prefill_compute_share(model, machine, worker, workload)])
    drawn = np.asarray(throttled_w(machine, watts, busy=np.array([0.0, 1.0]), compute_share=shares), dtype=float)
    weights = np.array([1.0 - load, load])
    return _part(deployment.prefill.workers, worker.accelerators, drawn, weights, float(drawn @ weights), watts)


def prefill_compute_share(model: LlmArithmetic, machine: Machine, worker: Worker, workload: Workload) -> float:
    """Return the share of a prefill worker's full step that arithmetic bounds. [1]"""
    size = workload_lengths(workload)
    chunk = float(worker.chunk_tokens)
    tokens = np.minimum(size.new * prompts_a_batch(size, chunk), chunk)
    step = step_time(
        model,
        machine,
        worker.layouts,
        sequences=0.0,
        width=1.0,
        context=0.0,
        prefill_tokens=tokens,
        prefill_context=size.prefill_context,
    )
    return float(np.squeeze(step.compute_share))


def _part(
    count: int,
    accelerators: int,
    drawn: NDArray[np.float64],
    weights: NDArray[np.float64],
    wanted_w: float,
    watts: BoardWatts,
) -> Part:
    """Return workers whose accelerators all draw `drawn`, with the mean shifted to what is wanted, within nameplate."""
    kept = weights > NEGLIGIBLE
    drawn, weights = drawn[kept], weights[kept] / weights[kept].sum()
    shifted = np.minimum(drawn + max(wanted_w - float(drawn @ weights), 0.0), float(watts.server_w))
    return Part(
        count=count, watts=accelerators * shifted, chances=weights, limit_w=accelerators * float(watts.server_w)
    )


def reserve_w(theta: float, chance: float) -> float:
    """Return what a fleet needs once on top of its effective powers: ln(1/ε) / θ, nothing at infinite θ. [W]"""
    return 0.0 if math.isinf(theta) else -math.log(chance) / theta


def best_theta(draws: Sequence[tuple[int, Draw]], chance: float) -> float:
    """Return the θ of a grid that gives the lowest bound on what counted draws together exceed with `chance`. [1/W]"""
    variance = sum(count * draw.variance_w2 for count, draw in draws)
    if variance <= 0.0:
        return math.inf
    middle = math.sqrt(-2.0 * math.log(chance) / variance)  # the best one for a normal distribution
    grid: list[float] = [*(middle * np.geomspace(0.02, 50.0, 69)).tolist(), math.inf]
    return min(grid, key=lambda theta: bound_w(draws, theta, chance))


def bound_w(draws: Sequence[tuple[int, Draw]], theta: float, chance: float) -> float:
    """Return Σ n · effective power + reserve: what counted draws together exceed with `chance` at most. [W]"""
    return math.fsum(count * draw.effective_w(theta) for count, draw in draws) + reserve_w(theta, chance)
