"""The formats of traces that are known, told by the names of their columns or keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokopt.errors import CatalogError

# What traces and histograms call their columns, without case: ours, and the published ones'.
COLUMNS = {
    "time": ("timestamp", "arrival_time", "arrived_at", "time", "time_s"),
    "input_tokens": ("input_tokens", "contexttokens", "input_length", "request tokens", "prompt_tokens", "isl"),
    "output_tokens": ("output_tokens", "generatedtokens", "output_length", "response tokens", "osl"),
    "share": ("share", "count", "weight", "requests"),
}
NEEDED = ("time", "input_tokens", "output_tokens")
OPTIONAL = {"class": "class", "hash_ids": "hash_ids", "block_tokens": "block_tokens"}
DEFAULT_BLOCK_TOKENS = 512  # of hashes whose block is not stated: Mooncake's


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFormat:
    """How a trace is written."""

    name: str
    title: str
    columns: Mapping[str, str]  # ours -> theirs, in lower case; empty = any of `COLUMNS`
    marks: tuple[str, ...] = ()  # further columns by which it is told
    ticks_per_s: float = 1.0  # of times that are numbers
    block_tokens: int = DEFAULT_BLOCK_TOKENS  # of one hash, where no column says
    optional: Mapping[str, str] = field(default_factory=lambda: dict(OPTIONAL))
    drops_unanswered: bool = True  # requests without output, which failed: left out and counted
    chained: bool = True  # a hash names its block and all before it, not just the block

    @property
    def needs(self) -> frozenset[str]:
        """Columns by which it is told."""
        return frozenset((*self.columns.values(), *self.marks))


AZURE = TraceFormat(
    name="azure",
    title="Azure LLM inference trace",
    columns={"time": "timestamp", "input_tokens": "contexttokens", "output_tokens": "generatedtokens"},
)
BURSTGPT = TraceFormat(
    name="burstgpt",
    title="BurstGPT",
    columns={"time": "timestamp", "input_tokens": "request tokens", "output_tokens": "response tokens"},
    optional={**OPTIONAL, "class": "model"},
)
_LENGTHS = {"time": "timestamp", "input_tokens": "input_length", "output_tokens": "output_length"}
# The keys are Mooncake's, but times are seconds, blocks have 16 tokens, and a hash names the block alone.
BAILIAN = TraceFormat(
    name="bailian",
    title="Qwen-Bailian usage trace",
    columns=_LENGTHS,
    marks=("chat_id", "hash_ids"),
    block_tokens=16,
    optional={**OPTIONAL, "class": "type"},
    chained=False,
)
MOONCAKE = TraceFormat(
    name="mooncake",
    title="Mooncake",
    columns=_LENGTHS,
    ticks_per_s=1000.0,
)
OWN = TraceFormat(
    name="tokopt",
    title="tokopt trace",
    columns={"time": "time_s", "input_tokens": "input_tokens", "output_tokens": "output_tokens"},
    drops_unanswered=False,
)
TABLE = TraceFormat(name="table", title="table of requests", columns={}, drops_unanswered=False)


def format_of(path: Path, names: Sequence[str], *, as_lines: bool) -> tuple[TraceFormat, dict[str, str]]:
    """Return the format of a trace, and what its columns are called: ours -> theirs.

    Args:
        path: For the error.
        names: Columns, or keys of the first line.
        as_lines: Whether it is JSON, an object a line. Mooncake's columns in a table without hashes are taken for
            seconds: whoever made a table of it may have changed the unit.

    Raises:
        CatalogError: A column is named twice, or none holds what is needed.
    """
    there: dict[str, str] = {}
    for name in names:
        if there.setdefault(name.strip().lower(), name) is not name:
            raise CatalogError(f"{path}: column named twice: {name.strip()}")
    found = next((each for each in (AZURE, BURSTGPT, BAILIAN, OWN) if each.needs <= there.keys()), TABLE)
    if found is TABLE and MOONCAKE.needs <= there.keys() and (as_lines or "hash_ids" in there):
        found = MOONCAKE
    chosen = {ours: there[theirs] for ours, theirs in found.columns.items()}
    for ours in () if found.columns else NEEDED:
        known = next((there[theirs] for theirs in COLUMNS[ours] if theirs in there), None)
        if known is None:
            raise CatalogError(f"{path}: no column of {ours} (like {', '.join(COLUMNS[ours][:3])})")
        chosen[ours] = known
    return found, chosen | {ours: there[theirs] for ours, theirs in found.optional.items() if theirs in there}
