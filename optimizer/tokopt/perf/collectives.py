"""Time of collectives inside a scale-up domain and across it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from tokopt.perf.arrays import Floats
from tokopt.perf.machine import Machine

TimeOf: TypeAlias = Callable[[Floats], Floats]  # what is sent -> time [s]


def scale_up_share(machine: Machine, group: Floats) -> Floats:
    """Share of an accelerator's scale-up bandwidth that a group of `group` accelerators can use.

    All of it behind a switch; on a full mesh only the links to the group's own members carry traffic:
    (g - 1) / (n - 1)  (topology of AMD's fully connected 8-accelerator nodes: 7 links of equal width).
    """
    if not np.any(machine.scale_up_mesh):
        return 1.0
    members = np.minimum(np.asarray(group, dtype=float), machine.scale_up_size)
    links = np.maximum(members - 1.0, 1.0) / np.maximum(machine.scale_up_size - 1.0, 1.0)
    return np.where(machine.scale_up_mesh, links, 1.0)


def scale_out_rate(machine: Machine) -> Floats:
    """Bandwidth across scale-up domains; not a number where the catalog lacks it. [B/s]"""
    return np.where(np.asarray(machine.scale_out_bytes_per_s) > 0.0, machine.scale_out_bytes_per_s, np.nan)


def all_reduce_s(machine: Machine, group: Floats) -> TimeOf:
    """Time of one all-reduce over `group` accelerators, by the bytes of the message.

    t = 2 (g - 1)/g · bytes / bandwidth + latency · (1 + growth · log2(g/2))

    (ring: Patarasuk & Yuan, J. Parallel Distrib. Comput. 69, 2009; the latency of synchronising a group grows with the
    depth of a tree over it: Thakur, Rabenseifner & Gropp, Int. J. High Perform. Comput. Appl. 19(1), 2005).

    A group larger than the scale-up domain runs at scale-out bandwidth. Zero for a group of one. [s]
    """
    return _ring_s(machine, group, reach=group, rounds=2.0)


def all_gather_s(machine: Machine, group: Floats, *, reach: Floats) -> TimeOf:
    """Time of one all-gather, or reduce-scatter, over `group` accelerators, by the bytes of all members together.

    t = (g - 1)/g · bytes / bandwidth + latency · (1 + growth · log2(g/2))

    Half of the ring of `all_reduce_s`, at the same latency.

    Args:
        group: Accelerators that hold a part each, and then the whole.
        reach: Accelerators that the group is spread over: members of other groups stand between its own. More than the
            scale-up domain has, and it runs at scale-out bandwidth.

    Returns:
        Time by the bytes of the whole; zero for a group of one. [s]
    """
    return _ring_s(machine, group, reach=reach, rounds=1.0)


def _ring_s(machine: Machine, group: Floats, *, reach: Floats, rounds: float) -> TimeOf:
    """Time of passing each member's part round the ring `rounds` times, by the bytes of the whole. [s]"""
    group = np.asarray(group, dtype=float)
    inside = np.asarray(reach) <= machine.scale_up_size
    rate = np.where(inside, machine.scale_up_bytes_per_s * scale_up_share(machine, group), scale_out_rate(machine))
    doublings = np.log2(np.maximum(group, 2.0)) - 1.0
    grown = machine.scale_up_latency_s * (1.0 + machine.latency_growth * doublings)
    latency = np.where(inside, grown, machine.scale_out_latency_s)
    per_byte = np.where(group > 1, rounds * (group - 1.0) / group / rate, 0.0)
    fixed = np.where(group > 1, latency, 0.0)
    return lambda whole_bytes: fixed + per_byte * whole_bytes


def domains_of(machine: Machine, group: Floats) -> Floats:
    """Scale-up domains that a group of accelerators reaches over."""
    reached: Floats = np.maximum(np.ceil(np.asarray(group, dtype=float) / np.asarray(machine.scale_up_size)), 1.0)
    return reached


def expert_copies(machine: Machine, *, group: Floats, choices: Floats, slices: Floats) -> tuple[Floats, Floats]:
    """Return the copies of a token that leave its accelerator for its experts, and that leave its scale-up domain.

    One goes to each distinct accelerator among its `choices` experts, g·(1 - (1 - 1/g)^k) of them on average, less its
    own share; likewise one to each distinct domain.

    Args:
        machine: Says how large a scale-up domain is.
        group: Accelerators that the experts are spread over (`ep`).
        choices: Experts a token goes to.
        slices: Tensor-parallel slices of an expert: each needs its own copy.
    """
    group = np.asarray(group, dtype=float)
    domains = domains_of(machine, group)
    copies = group * -np.expm1(choices * np.log1p(-1.0 / np.maximum(group, 2.0))) * (group - 1.0) / group * slices
    far = domains * -np.expm1(choices * np.log1p(-1.0 / np.maximum(domains, 1.0 + 1e-9))) * (domains - 1.0) / domains
    return copies, far


def all_to_all_s(
    machine: Machine, *, group: Floats, choices: Floats, bytes_per_token: Floats, slices: Floats
) -> TimeOf:
    """Time of sending every token to its experts and the results back, for one layer, by the tokens of an accelerator.

    A token goes once to each distinct accelerator among its `choices` experts, and once to each distinct domain beyond
    its own, from where it is forwarded inside (`expert_copies`); the slower of both links bounds the time (dispatch
    and combine of DeepEP; DeepSeek-V3 report, arXiv 2412.19437, §3.2.2).

    Args:
        group: Accelerators that the experts are spread over (`ep`).
        choices: Experts a token goes to.
        bytes_per_token: Bytes of one copy of a token, dispatch and combine together. [B]
        slices: Tensor-parallel slices of an expert: each needs its own copy.

    Returns:
        Time of dispatch and combine, of the tokens that one accelerator sends. [s]
    """
    group = np.asarray(group, dtype=float)
    domains = domains_of(machine, group)
    copies, far = expert_copies(machine, group=group, choices=choices, slices=slices)
    up_rate = machine.scale_up_bytes_per_s * scale_up_share(machine, group)
    inside_s = copies * bytes_per_token / up_rate
    outside_s = np.where(domains > 1, far * bytes_per_token / scale_out_rate(machine), 0.0)
    latency = 2.0 * np.where(domains > 1, machine.scale_out_latency_s, machine.exchange_latency_s)
    fixed = np.where(group > 1, latency, 0.0)
    per_token = np.where(group > 1, np.maximum(inside_s, outside_s), 0.0)
    return lambda tokens: fixed + per_token * tokens


def point_to_point_s(machine: Machine, *, worker: Floats) -> TimeOf:
    """Time of handing a message to the next pipeline stage, by its bytes: inside the domain if the worker fits. [s]"""
    inside = np.asarray(worker) <= machine.scale_up_size
    rate = np.where(inside, machine.scale_up_bytes_per_s, scale_out_rate(machine))
    latency = np.where(inside, machine.scale_up_latency_s, machine.scale_out_latency_s)
    return lambda message_bytes: latency + message_bytes / rate
