"""Time of collectives inside a scale-up domain and across it."""

from __future__ import annotations

import numpy as np

from tokopt.perf.arrays import Floats
from tokopt.perf.machine import Machine


def scale_up_share(machine: Machine, group: Floats) -> Floats:
    """Share of an accelerator's scale-up bandwidth that a group of `group` accelerators can use.

    All of it behind a switch; on a full mesh only the links to the group's own members carry traffic:
    (g - 1) / (n - 1)  (topology of AMD's fully connected 8-accelerator nodes: 7 links of equal width).
    """
    if not machine.scale_up_mesh or machine.scale_up_size <= 1:
        return 1.0
    members = np.minimum(np.asarray(group, dtype=float), machine.scale_up_size)
    return np.asarray(np.maximum(members - 1.0, 1.0) / (machine.scale_up_size - 1.0), dtype=float)


def all_reduce_s(machine: Machine, group: Floats, message_bytes: Floats) -> Floats:
    """Time of one all-reduce of `message_bytes` over `group` accelerators.

    t = 2 (g - 1)/g · bytes / bandwidth + latency       (ring; Patarasuk & Yuan, J. Parallel Distrib. Comput. 69, 2009)

    A group larger than the scale-up domain runs at scale-out bandwidth. Zero for a group of one. [s]
    """
    group = np.asarray(group, dtype=float)
    inside = group <= machine.scale_up_size
    out_rate = machine.scale_out_bytes_per_s or np.nan
    rate = np.where(inside, machine.scale_up_bytes_per_s * scale_up_share(machine, group), out_rate)
    latency = np.where(inside, machine.scale_up_latency_s, machine.scale_out_latency_s)
    per_byte = np.where(group > 1, 2.0 * (group - 1.0) / group / rate, 0.0)
    return np.where(group > 1, latency, 0.0) + per_byte * message_bytes


def all_to_all_s(
    machine: Machine, *, tokens: Floats, group: Floats, choices: float, bytes_per_token: float, slices: Floats
) -> Floats:
    """Time of sending every token to its experts and the results back, for one layer.

    A token goes once to each distinct accelerator among its `choices` experts, g·(1 - (1 - 1/g)^k) of them on average,
    and once to each distinct scale-up domain beyond its own, from where it is forwarded inside; the slower of both
    links bounds the time (dispatch and combine of DeepEP; DeepSeek-V3 report, arXiv 2412.19437, §3.2.2).

    Args:
        tokens: Tokens that one accelerator sends.
        group: Accelerators that the experts are spread over (`ep`).
        choices: Experts a token goes to.
        bytes_per_token: Bytes of one copy of a token, dispatch and combine together. [B]
        slices: Tensor-parallel slices of an expert: each needs its own copy.

    Returns:
        Time of dispatch and combine. [s]
    """
    group = np.asarray(group, dtype=float)
    domain = float(machine.scale_up_size)
    copies = group * -np.expm1(choices * np.log1p(-1.0 / np.maximum(group, 2.0))) * (group - 1.0) / group * slices
    domains = np.maximum(np.ceil(group / domain), 1.0)
    far = domains * -np.expm1(choices * np.log1p(-1.0 / np.maximum(domains, 1.0 + 1e-9))) * (domains - 1.0) / domains
    out_rate = machine.scale_out_bytes_per_s or np.nan
    up_rate = machine.scale_up_bytes_per_s * scale_up_share(machine, group)
    inside_s = copies * bytes_per_token / up_rate
    outside_s = np.where(domains > 1, far * bytes_per_token / out_rate, 0.0)
    latency = 2.0 * np.where(domains > 1, machine.scale_out_latency_s, machine.scale_up_latency_s)
    return np.where(group > 1, latency, 0.0) + np.where(group > 1, np.maximum(inside_s, outside_s), 0.0) * tokens


def point_to_point_s(machine: Machine, *, message_bytes: Floats, worker: Floats) -> Floats:
    """Time of handing activations to the next pipeline stage: inside the domain if the worker fits in it. [s]"""
    inside = np.asarray(worker) <= machine.scale_up_size
    out_rate = machine.scale_out_bytes_per_s or np.nan
    rate = np.where(inside, machine.scale_up_bytes_per_s, out_rate)
    latency = np.where(inside, machine.scale_up_latency_s, machine.scale_out_latency_s)
    return latency + message_bytes / rate
