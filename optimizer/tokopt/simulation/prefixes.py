"""Prefix caches of ranks: blocks by hash, shared by whoever asks for them, dropped least recently used first.

A cached block is in memory (tier 0) or behind it (tier 1: host or drive). Blocks in memory that nobody uses are a list
from the newest to the oldest, and so are those behind.
"""

from __future__ import annotations

from tokopt.simulation.compiled import compiled
from tokopt.simulation.world import NONE, World


@compiled
def key_of(world: World, r: int, block_hash: int) -> int:
    """Return what a block of a rank is looked up by."""
    return block_hash * world.ranks.size + r


@compiled
def found_blocks(world: World, r: int, rid: int) -> int:
    """Return the leading blocks of a request's prompt that a rank has, in memory or behind."""
    most = findable(world, r, rid)
    for j in range(most):
        if key_of(world, r, world.hashes[rid, j]) not in world.index:
            return j
    return most


@compiled
def findable(world: World, r: int, rid: int) -> int:
    """Return the blocks of a prompt that may be found: at least one token is always computed, for the first answer."""
    request = world.requests[rid]
    tokens = world.ranks[r].entry_tokens
    return min(request.hashes, (request.prompt - 1) // tokens) if tokens > 0 else 0


@compiled
def unlink(world: World, r: int, e: int) -> None:
    """Take a block out of the list that it is in."""
    rank, entry = world.ranks[r], world.entries[e]
    newer, older = entry.newer, entry.older
    if newer != NONE:
        world.entries[newer].older = older
    elif entry.tier == 0:
        rank.newest = older
    else:
        rank.host_newest = older
    if older != NONE:
        world.entries[older].newer = newer
    elif entry.tier == 0:
        rank.oldest = newer
    else:
        rank.host_oldest = newer


@compiled
def push_newest(world: World, r: int, e: int) -> None:
    """Put a block at the new end of the list of its tier."""
    rank, entry = world.ranks[r], world.entries[e]
    entry.newer = NONE
    if entry.tier == 0:
        entry.older = rank.newest
        rank.newest = e
        if rank.oldest == NONE:
            rank.oldest = e
    else:
        entry.older = rank.host_newest
        rank.host_newest = e
        if rank.host_oldest == NONE:
            rank.host_oldest = e
    if entry.older != NONE:
        world.entries[entry.older].newer = e


@compiled
def forget(world: World, e: int) -> None:
    """Give a block's row back; it has to be in no list."""
    entry, totals = world.entries[e], world.totals[0]
    world.index.pop(entry.key)
    entry.users = NONE
    entry.older = totals.free_entries
    totals.free_entries = e
    totals.entries_left += 1


@compiled
def drop_oldest(world: World, r: int) -> None:
    """Take the block out of memory that was not asked for longest, to the tier behind where there is one."""
    rank = world.ranks[r]
    e = rank.oldest
    unlink(world, r, e)
    rank.entries -= 1
    rank.idle_entries -= 1
    if rank.host_capacity <= 0:
        forget(world, e)
        return
    if rank.host_entries >= rank.host_capacity:
        last = rank.host_oldest
        unlink(world, r, last)
        forget(world, last)
        rank.host_entries -= 1
    world.entries[e].tier = 1
    push_newest(world, r, e)
    rank.host_entries += 1


@compiled
def make_room(world: World, r: int, tokens: int) -> bool:
    """Drop cached blocks until tokens are free; False where running requests hold too much."""
    rank = world.ranks[r]
    while rank.capacity - rank.private - rank.entries * rank.entry_tokens < tokens:
        if rank.idle_entries == 0:
            return False
        drop_oldest(world, r)
    return True


@compiled
def acquire(world: World, r: int, rid: int) -> int:
    """Take hold of all leading blocks of a prompt that a rank has; returns how many came from behind."""
    rank, request = world.ranks[r], world.requests[rid]
    fetched = 0
    for j in range(findable(world, r, rid)):
        key = key_of(world, r, world.hashes[rid, j])
        if key not in world.index:
            break
        e = world.index[key]
        entry = world.entries[e]
        if entry.tier == 1:
            unlink(world, r, e)  # first, so that making room does not drop it
            rank.host_entries -= 1
            if not make_room(world, r, rank.entry_tokens):
                push_newest(world, r, e)
                rank.host_entries += 1
                break
            entry.tier = 0
            rank.entries += 1
            fetched += 1
        elif entry.users == 0:
            unlink(world, r, e)
            rank.idle_entries -= 1
        entry.users += 1
        world.held[rid, j] = e
        request.held = j + 1
    return fetched


@compiled
def release(world: World, r: int, rid: int) -> None:
    """Let go of the blocks that a request holds; the last ones of its prompt are the first to be dropped."""
    rank, request = world.ranks[r], world.requests[rid]
    for j in range(request.held - 1, -1, -1):
        e = world.held[rid, j]
        entry = world.entries[e]
        entry.users -= 1
        if entry.users == 0:
            push_newest(world, r, e)
            rank.idle_entries += 1
    request.held = 0


@compiled
def publish(world: World, r: int, rid: int) -> None:
    """Make the whole blocks of a computed prompt known to others; a copy of what is known by now is given back."""
    rank, request, totals = world.ranks[r], world.requests[rid], world.totals[0]
    if rank.entry_tokens == 0:
        return
    for j in range(request.held, request.hashes):
        if request.private < rank.entry_tokens or totals.entries_left == 0:
            return
        key = key_of(world, r, world.hashes[rid, j])
        if key in world.index:
            e = world.index[key]
            entry = world.entries[e]
            if entry.tier == 1:  # there again, so not needed behind
                unlink(world, r, e)
                rank.host_entries -= 1
                entry.tier = 0
                rank.entries += 1
            elif entry.users == 0:
                unlink(world, r, e)
                rank.idle_entries -= 1
        else:
            e = totals.free_entries
            entry = world.entries[e]
            totals.free_entries = entry.older
            totals.entries_left -= 1
            entry.key, entry.tier, entry.users, entry.rank = key, 0, 0, r
            world.index[key] = e
            rank.entries += 1
        entry.users += 1
        world.held[rid, j] = e
        request.held = j + 1
        request.private -= rank.entry_tokens
        rank.private -= rank.entry_tokens


@compiled
def forget_all(world: World, r: int) -> None:
    """Empty the caches of a rank whose requests have let go of them."""
    rank = world.ranks[r]
    while rank.idle_entries > 0:
        e = rank.oldest
        unlink(world, r, e)
        forget(world, e)
        rank.entries -= 1
        rank.idle_entries -= 1
    while rank.host_entries > 0:
        e = rank.host_oldest
        unlink(world, r, e)
        forget(world, e)
        rank.host_entries -= 1
