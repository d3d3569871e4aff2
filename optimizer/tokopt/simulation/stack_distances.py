"""Compiled loops over the blocks of prompts: how many others were asked for since each was asked for last.

All that the kept functions call is in this file, so numba notices when any of it changes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.simulation.compiled import compiled, kept

DISTANCES_AN_OCTAVE = 64
GAPS_AN_OCTAVE = 16
GAP_UNIT_S = 1e-3  # shorter gaps are one bin
Array = NDArray[Any]


@compiled
def place_of(keys: Array, slots: Array, key: int) -> int:
    """Return where a key is in a table of linear probing, or belongs; `slots` is -1 where nothing is."""
    mask = np.uint64(slots.size - 1)
    mixed = np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    place = (mixed ^ (mixed >> np.uint64(33))) & mask
    while slots[place] >= 0 and keys[place] != key:
        place = (place + np.uint64(1)) & mask
    return int(place)


@kept
def rehash(keys: Array, slots: Array, into_keys: Array, into_slots: Array) -> None:
    """Copy a table into a larger, empty one."""
    for place in range(slots.size):
        if slots[place] >= 0:
            new = place_of(into_keys, into_slots, keys[place])
            into_keys[new], into_slots[new] = keys[place], slots[place]


@compiled
def add(tree: Array, place: int, amount: int) -> None:
    """Add to an element of a Fenwick tree (Softw. Pract. Exp. 24(3), 1994); places count from 1."""
    while place < tree.size:
        tree[place] += amount
        place += place & -place


@compiled
def sum_to(tree: Array, place: int) -> int:
    """Return the sum of the elements up to a place."""
    total = 0
    while place > 0:
        total += tree[place]
        place -= place & -place
    return total


@kept
def follow(
    times: Array,
    starts: Array,
    hashes: Array,
    keys: Array,
    slots: Array,
    position: Array,
    last_s: Array,
    tree: Array,
    state: Array,
    distances: Array,
    gaps: Array,
    found: Array,
) -> None:
    """Follow requests through an endless LRU cache of blocks, the least recent of a prompt being its last.

    A request finds its leading blocks, up to the first that nobody had. A cache of c blocks would have found a block
    whose stack distance, the blocks used since its last use and itself, is at most c (Mattson et al., IBM Syst. J.
    9(2), 1970). Blocks of a prompt are used from its end to its start, as engines free them, so that an LRU cache
    drops ends of prompts first and what it finds is a prefix.

    Args:
        times: Of the requests. [s]
        starts: Of each request's hashes, and the end of the last.
        hashes: Of the blocks.
        keys: Hashes of a table.
        slots: Numbers of blocks in it.
        position: Of each block in the order of last uses.
        last_s: Last use of each block.
        tree: 1 at each position that is some block's.
        state: Number of blocks, and the next position.
        distances: Histogram to be added to.
        gaps: The same for times since the last use.
        found: Blocks found, for each request.
    """
    blocks, clock = state[0], state[1]
    for request in range(times.size):
        first, end = starts[request], starts[request + 1]
        now = times[request]
        for block in range(first, end):
            slot = slots[place_of(keys, slots, hashes[block])]
            if slot < 0:
                break
            distance = blocks - sum_to(tree, position[slot] + 1) + 1
            distances[int(math.log2(distance) * DISTANCES_AN_OCTAVE)] += 1
            gap = (now - last_s[slot]) / GAP_UNIT_S
            gaps[0 if gap < 1.0 else int(math.log2(gap) * GAPS_AN_OCTAVE) + 1] += 1
            found[request] += 1
        for block in range(end - 1, first - 1, -1):
            place = place_of(keys, slots, hashes[block])
            slot = slots[place]
            if slot < 0:
                slot = blocks
                blocks += 1
                keys[place], slots[place] = hashes[block], slot
            else:
                add(tree, position[slot] + 1, -1)
            position[slot] = clock
            add(tree, clock + 1, 1)
            clock += 1
            last_s[slot] = now
    state[0], state[1] = blocks, clock
