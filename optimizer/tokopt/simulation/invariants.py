"""What must be true of every run, whatever was simulated: nothing is lost, doubled or left behind."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokopt.simulation import world as w

CLOSE = 1e-6  # relative, of sums over time


def broken(world: w.World) -> list[str]:
    """Return what does not add up in a simulation that has stopped, one line each; empty = all does."""
    totals = world.totals[0]
    there = world.requests[world.requests.state != w.FREE]
    faults = []
    if totals.arrived != totals.finished + totals.rejected + there.size:
        faults.append(
            f"{totals.arrived} requests came, but {totals.finished} were answered, {totals.rejected} rejected and "
            f"{there.size} are there"
        )
    if totals.in_system != there.size:
        faults.append(f"{totals.in_system} requests are counted in the system, and {there.size} are there")
    if np.unique(there.uid).size != there.size:
        faults.append("a request is there twice")
    emitted = int(totals.delivered + totals.lost_tokens + there.emitted.sum())
    if totals.emitted != emitted:
        faults.append(f"{totals.emitted} tokens were made, and {emitted} are accounted for")
    area = totals.area + totals.in_system * (totals.now - totals.area_at)
    sojourn = totals.sojourn_s + float((totals.now - there.arrival).sum())
    if abs(area - sojourn) > CLOSE * max(area, sojourn, 1e-9):  # Little's law, as an identity
        faults.append(f"requests over time come to {area:.9g} s, their stays to {sojourn:.9g} s")
    for n in range(world.per_class.size):
        row = world.per_class[n]
        open_ = int(there.measured[there.klass == n].sum())
        if row.arrived != row.finished + row.rejected + open_:
            faults.append(f"class {n}: {row.arrived} measured requests came, {row.finished} were answered")
    return faults + _caches(world, there)


def _caches(world: w.World, there: Any) -> list[str]:
    """Return what does not add up in the caches of ranks."""
    faults = []
    ranks = world.ranks
    private = np.zeros(ranks.size, dtype=np.int64)
    served = there[(there.state == w.PREFILL) | (there.state == w.DECODE)]
    np.add.at(private, served["rank"], served.private)
    for r in np.flatnonzero(private != ranks.private):
        faults.append(f"rank {r}: requests hold {private[r]} tokens of cache, {ranks.private[r]} are counted")
    used = ranks.private + ranks.entries * ranks.entry_tokens
    for r in np.flatnonzero(used > ranks.capacity):
        faults.append(f"rank {r}: {used[r]} tokens are cached where there is room for {ranks.capacity[r]}")
    for r in np.flatnonzero((ranks.private < 0) | (ranks.entries < 0) | (ranks.idle_entries < 0)):
        faults.append(f"rank {r}: less than nothing is cached")
    if world.entries.size:
        kept = world.entries.size - world.totals[0].entries_left
        if kept != len(world.index) or kept != int((ranks.entries + ranks.host_entries).sum()):
            faults.append(f"{kept} blocks are kept, {len(world.index)} can be found")
    return faults
