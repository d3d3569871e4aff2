"""Shell scripts in which every name is one word, whatever it holds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 100


class Raw(str):
    """A word that the shell is to expand: written as it is."""

    __slots__ = ()


def word(value: object) -> str:
    """Return a value as one word of a shell command."""
    return str(value) if isinstance(value, Raw) else shlex.quote(_shown(value))


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def command(groups: Iterable[Sequence[object]], *, indent: str = "") -> list[str]:
    """Return a command over several lines; the words of a group stay on one line."""
    lines: list[str] = []
    for group in groups:
        said = " ".join(word(each) for each in group)
        if lines and len(lines[-1]) + len(said) < WIDTH - 3 and len(lines) > 1:
            lines[-1] += f" {said}"
        else:
            lines.append(f"{indent}  {said}" if lines else f"{indent}{said}")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def remark(text: str) -> str:
    """Return a comment of one line of printable ASCII, whatever the text holds."""
    line = " ".join(text.split()).encode("ascii", "replace").decode("ascii")
    return f"# {''.join(letter if letter.isprintable() else '?' for letter in line)}"


def script(*lines: str) -> str:
    """Return a script that ends with the first command that fails."""
    return "\n".join(["#!/usr/bin/env bash", *lines, ""])


def compact(value: Mapping[str, Any]) -> str:
    """Return JSON on one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def expanding(value: Mapping[str, Any], name: str, variable: str) -> Raw:
    """Return JSON as one word in which the value of key `name` is that of a shell variable, which has to be set."""
    marked = compact({**value, name: "\0"})
    escaped = marked.replace("\\u0000", "\0").replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    filled = escaped.replace("`", "\\`").replace("\0", f"${{{variable}:?set {variable}}}")
    return Raw(f'"{filled}"')
