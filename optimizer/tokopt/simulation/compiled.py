"""Inner loops as machine code, compiled when they are first needed and kept for the next process.

Only the outermost function is kept: what it calls is part of its machine code. Numba would not notice that a file of
one of those has changed, so the name of what is kept has a hash of them all (`sources_hash`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numba.extending

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_PART: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that is compiled as a part of the functions that call it.

    From the interpreter it is what it was before: nothing is compiled for calls from there, which takes a fifth longer.
    """
    decorate = numba.extending.register_jitable(**_PART)
    return cast("Callable[Parameters, Result]", decorate(function))


def merged(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that is copied into the one that calls it: for those that stand above nearly all others.

    What a function calls is optimised anew with each function that is compiled on its own.
    """
    decorate = numba.njit(inline="always", **_PART)
    return cast("Callable[Parameters, Result]", decorate(function))


def kept(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return an outermost function whose machine code the next process finds.

    It has to be a closure over `sources_hash()`, which then is a part of what its machine code is looked up by.
    """
    try:
        found = numba.njit(error_model="numpy", cache=True)(function)
    except RuntimeError:  # there is nowhere to keep it: neither beside the sources nor in the user's own cache
        found = numba.njit(error_model="numpy")(function)
    return cast("Callable[Parameters, Result]", found)


def new_index() -> Any:
    """Return an empty dictionary from integer to integer that compiled functions take."""
    return _maker_of_indexes()()


@lru_cache(maxsize=1)
def _maker_of_indexes() -> Callable[[], Any]:
    sources = sources_hash()

    @kept
    def fresh() -> Any:
        if sources == "":  # makes the hash a part of what machine code is kept under
            return numba.typed.Dict.empty(numba.int64, numba.int64)
        return numba.typed.Dict.empty(numba.int64, numba.int64)

    return fresh


@lru_cache(maxsize=1)
def sources_hash() -> str:
    """Return a hash of all modules of this room."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
