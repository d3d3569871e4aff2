"""The shape of the code: who imports whom, how big things get, and what must not be named.

The contracts are read from pyproject.toml, where import-linter finds them too; here they are checked from the syntax
trees alone, so that no tool beyond the standard library is needed.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "optimizer" / "tokopt"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 450
MOST_BODY_LINES = 70
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
PRINTING_ROOMS = {"cli", "report"}
NAMELESS_ROOMS = {"perf", "search", "fleet", "cost"}
SEEN_BY_THE_PAGE = {"web", "api", "report", "domain", "errors", "units", "version"}
FRONT_DOOR_USERS = {"__main__", "cli"}  # the package's own front door is for users and the shell

Function = ast.FunctionDef | ast.AsyncFunctionDef


def contracts(kind: str) -> list[dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return [contract for contract in settings["contracts"] if contract["type"] == kind]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    return f"{module}.".split(".")[1]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imports() -> dict[str, dict[str, int]]:
    """Every module of the package -> what it imports anywhere in its text, with the first line that does."""
    modules = {module_name(path) for path in FILES}
    found: dict[str, dict[str, int]] = {}
    for path in FILES:
        edges = found[module_name(path)] = {}
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = absolute(node, path)
                submodules = [f"{origin}.{alias.name}" for alias in node.names]
                targets = [name if name in modules else origin for name in submodules]
            else:
                continue
            for target in targets:
                edges.setdefault(target, node.lineno)
    return found


def absolute(node: ast.ImportFrom, path: Path) -> str:
    """The module that a `from` imports from, whether it is written out or relative."""
    here = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
    return ".".join([*here, *([node.module] if node.module else [])])


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def chain_to(source: str, target: str) -> list[str] | None:
    """The shortest chain of imports from a module to a package, or None."""
    chains, seen = [[source]], {source}
    while chains:
        following = []
        for chain in chains:
            for imported in imports().get(chain[-1], {}):
                if inside(imported, target):
                    return [*chain, imported]
                if imported not in seen:
                    seen.add(imported)
                    following.append([*chain, imported])
        chains = following
    return None


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def layer_of_room() -> dict[str, int]:
    return {name.strip(" ()"): depth for depth, line in enumerate(layers()) for name in re.split("[|:]", line)}


def layers() -> list[str]:
    """Top first. Siblings joined by `|` must not import each other, those joined by `:` may."""
    (contract,) = contracts("layers")
    return contract["layers"]


def allowed(importing: str, imported: str) -> bool:
    upper, lower = layer_of_room()[importing], layer_of_room()[imported]
    return upper < lower or (upper == lower and ":" in layers()[upper])


# --- who imports whom ---


def test_every_room_has_a_layer() -> None:
    rooms = {room(module) for module in imports()} - {""}
    assert rooms <= set(layer_of_room()), f"not in pyproject's layers: {sorted(rooms - set(layer_of_room()))}"


def test_rooms_import_downwards_only() -> None:
    faults = [
        f"{module}:{line} imports {imported}"
        for module, edges in imports().items()
        for imported, line in edges.items()
        if room(module) and inside(imported, "tokopt") and room(imported) and room(module) != room(imported)
        if not allowed(room(module), room(imported))
    ]
    assert not faults, "\n".join(faults)


def test_only_the_shell_enters_by_the_front_door() -> None:
    faults = [
        f"{module}:{edges['tokopt']} imports tokopt itself"
        for module, edges in imports().items()
        if "tokopt" in edges and room(module) not in FRONT_DOOR_USERS
    ]
    assert not faults, "\n".join(faults)


def test_the_page_enters_by_the_hallway() -> None:
    faults = [
        f"{module}:{line} imports {imported}"
        for module, edges in imports().items()
        for imported, line in edges.items()
        if room(module) == "web" and inside(imported, "tokopt") and room(imported) not in SEEN_BY_THE_PAGE
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("contract", contracts("forbidden"), ids=lambda contract: contract["name"])
def test_forbidden_imports(contract: dict[str, Any]) -> None:
    chains = [
        chain_to(module, forbidden)
        for module in imports()
        if any(inside(module, source) for source in contract["source_modules"])
        for forbidden in contract["forbidden_modules"]
    ]
    faults = [" -> ".join(chain) for chain in chains if chain]
    assert not faults, "\n".join(faults)


# --- how big, and what it is called ---


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_sizes(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{path.name} has {lines} lines: split it by noun"
    for function in functions(path):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        length = function.end_lineno - body[0].lineno + 1 if body and function.end_lineno else 0
        assert length <= MOST_BODY_LINES, f"{path.name}:{function.lineno}: {function.name} has {length} lines"


def test_no_file_for_odds_and_ends() -> None:
    assert not [str(path) for path in (*FILES, *PACKAGE.rglob("*/")) if path.stem in VAGUE_NAMES]


def test_no_accelerator_or_model_is_named_in_the_engine() -> None:
    """Nothing behaves differently because of what a chip or a model is called: adding one is a row of data."""
    names = catalog_names()
    faults = [
        f"{path.relative_to(PACKAGE)}:{line}: {text!r}"
        for path in FILES
        if room(module_name(path)) in NAMELESS_ROOMS
        for line, text in words_of_code(path)
        if names & set(word_runs(text))
    ]
    assert not faults, "\n".join(faults)


def test_a_planted_name_would_be_found() -> None:
    names = catalog_names()
    for text in ("is_h100", "deepseek-r1", "GB300_NVL72", "Hopper", "llama_layers"):
        assert names & set(word_runs(text)), text
    for text in ("layers", "memory_efficiency", "default", "dense"):
        assert not names & set(word_runs(text)), text


def catalog_names() -> set[str]:
    """Names, aliases, generations and model families of the shipped catalog, as words joined by single hyphens."""
    import yaml

    names = set()
    for path in (ROOT / "catalogs" / "accelerators").glob("*.yaml"):
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
        names |= {path.stem, row["generation"], *row.get("aliases", ()), *row.get("price_names", ())}
    for path in (ROOT / "catalogs" / "llms").glob("*.yaml"):
        row = yaml.safe_load(path.read_text(encoding="utf-8"))
        names |= {path.stem, path.stem.split("-")[0], *row["aliases"]}
    return {"-".join(words(name)) for name in names}


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9.]+", text.lower())


def word_runs(text: str) -> Iterator[str]:
    """Runs of up to eight adjacent words: `is_gb300_nvl72` holds `gb300`, `gb300-nvl72`, and so on."""
    parts = words(text)
    for start in range(len(parts)):
        for end in range(start + 1, min(start + 8, len(parts)) + 1):
            yield "-".join(parts[start:end])


def words_of_code(path: Path) -> Iterator[tuple[int, str]]:
    """Names and texts that a file uses; docstrings and comments may cite what was measured on."""
    documented = ast.Module | ast.ClassDef | Function
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None
        if isinstance(node.body[0], ast.Expr)
    }
    yield 1, path.stem
    for node in ast.walk(tree(path)):
        line = getattr(node, "lineno", 1)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield line, node.value
        for field in ("id", "attr", "arg", "name", "asname"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                yield line, text


# --- what it says ---


def test_only_the_shell_prints() -> None:
    faults = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        if room(module_name(path)) not in PRINTING_ROOMS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_what_is_public_is_documented(path: Path) -> None:
    assert ast.get_docstring(tree(path)), f"{path.name}: no docstring"
    bare = [
        f"{path.name}:{node.lineno}: {node.name}" for node in public(tree(path).body) if not ast.get_docstring(node)
    ]
    assert not bare, "\n".join(bare)


def public(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    """Public functions and classes, and the public methods of those classes."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)
