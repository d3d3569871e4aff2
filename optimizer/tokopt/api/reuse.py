"""What repeats in a workload, as people write it."""

from __future__ import annotations

from dataclasses import replace

from tokopt.domain.caching import Reuse
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.perf.caching import pattern_of
from tokopt.units import parse_duration

REUSE_HELP = "write it like prefix=6000x150,turns=8,gap=30s,growth=600, or share=0.6,set=5M"
MULTIPLES = {"k": 1e3, "M": 1e6, "G": 1e9}


def parse_reuse(text: str | Reuse | None, what: str = "--reuse") -> Reuse | None:
    """Return what `--reuse` says repeats; `none` and nothing are None.

    Raises:
        InputError: Not understood, or twice the same.
    """
    if text is None or isinstance(text, Reuse):
        return text
    if text.strip() == "none":
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        fields = _fields(name, value, what)
        if fields.keys() & found.keys():
            raise InputError(f"{what}: {name} is given twice; {REUSE_HELP}")
        found.update(fields)
    try:
        return Reuse(**found)
    except ValueError as error:
        field, why = _first(error)
        raise InputError(f"{what}: {field.replace('_', ' ')}: {why}; {REUSE_HELP}") from None


def _first(error: ValueError) -> tuple[str, str]:
    fault = error.errors()[0]  # type: ignore[attr-defined]
    return str(fault["loc"][0]), str(fault["msg"])


def _fields(name: str, value: str, what: str) -> dict[str, float]:
    if name == "prefix":
        tokens, by, count = value.partition("x")
        found = {"shared_tokens": _tokens(tokens, what)}
        return {**found, "shared_prefixes": _tokens(count, what)} if by else found
    if name == "gap":
        return {"turn_gap_s": parse_duration(value, what=f"{what} gap")}
    fields = {"turns": "turns", "growth": "turn_tokens", "share": "reusable_share", "set": "working_set_tokens"}
    if name not in fields:
        raise InputError(f"{what}: {name!r} is not understood; {REUSE_HELP}")
    return {fields[name]: _tokens(value, what)}


def _tokens(text: str, what: str) -> float:
    """Return a number written like 6000, 6k or 5Mtok."""
    plain = text.strip().removesuffix("tok")
    try:
        return float(plain[:-1]) * MULTIPLES[plain[-1]] if plain[-1:] in MULTIPLES else float(plain)
    except ValueError:
        raise InputError(f"{what}: {text!r} is not a number; {REUSE_HELP}") from None


def with_reuse(workload: Workload, reuse: Reuse | None) -> Workload:
    """Return a workload in which that repeats: `prefix_share` becomes what an endless cache finds.

    Raises:
        InputError: Prompts of its length cannot be like that.
    """
    if reuse is None:
        return replace(workload, reuse=None)
    wrong = reuse.impossible(workload.input_tokens)
    if wrong:
        raise InputError(f"reuse of {workload.name}: {wrong}")
    repeating = replace(workload, reuse=reuse)
    return replace(repeating, prefix_share=pattern_of(repeating).reusable_share)


def without_caches(workload: Workload) -> Workload:
    """Return a workload for a request that does without prefix caches: nothing is found."""
    return replace(workload, prefix_share=0.0, reuse=None)
