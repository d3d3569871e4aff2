"""Write the names of the flags that serving tools take: tests/reference/exports/known_flags.yaml.

    pip download --no-deps vllm sglang sglang-router vllm-router aiperf guidellm ai-dynamo -d wheels/
    python tools/build_known_flags.py wheels/

Wheels are read as archives, without installing them. Names of flags are facts; nothing else is taken. What is not on
PyPI as a wheel (TensorRT LLM, llm-d's chart, Dynamo's resources) stays as it stands in the file, with its source.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "tests" / "reference" / "exports" / "known_flags.yaml"


def strings(tree: ast.AST) -> Iterator[str]:
    """Yield flags that stand as strings, also with a prefix that is filled in: f"--{prefix}policy"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))


def written(tree: ast.AST) -> set[str]:
    """Return flags that stand in a module as they are."""
    found = set()
    for text in strings(tree):
        name = text.lstrip("-")
        if text.startswith("--") and name.replace("-", "").replace("_", "").isalnum():
            found.add(text)
    return found


def fields(tree: ast.AST, only: Callable[[ast.ClassDef], bool] = lambda _: True) -> dict[str, set[str]]:
    """Return the annotated fields of a module's classes by class."""
    return {
        node.name: {a.target.id for a in node.body if isinstance(a, ast.AnnAssign) and isinstance(a.target, ast.Name)}
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and only(node)
    }


def as_flags(names: set[str]) -> set[str]:
    return {f"--{name.replace('_', '-')}" for name in names}


def sglang(trees: dict[str, ast.AST]) -> set[str]:
    """Fields of the argument groups are flags, but for those that are marked as none."""
    found = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            words = ast.unparse(node.annotation)
            if words.startswith("A[") and "no_cli=True" not in words:
                found |= as_flags({node.target.id}) | written(node.annotation)
    return found


def vllm(trees: dict[str, ast.AST]) -> set[str]:
    found = set()
    for path, tree in trees.items():
        found |= written(tree)
        if path.endswith("common/cli_args.py"):
            for name, own in fields(tree).items():
                found |= as_flags(own) if "Frontend" in name else set()
    return found


def plain(trees: dict[str, ast.AST]) -> set[str]:
    return set().union(*(written(tree) for tree in trees.values()))


TOOLS: dict[str, tuple[str, tuple[str, ...], Callable[[dict[str, ast.AST]], set[str]]]] = {
    # name -> wheel, files or folders within it, what finds the flags
    "vllm": (
        "vllm-",
        ("vllm/engine/arg_utils.py", "vllm/entrypoints/common/cli_args.py", "vllm/entrypoints/cli/serve.py"),
        vllm,
    ),
    "sglang": ("sglang-", ("sglang/srt/arg_groups/fields/",), sglang),
    "sglang-router": ("sglang_router-", ("sglang_router/router_args.py", "sglang_router/launch_router.py"), plain),
    "vllm-router": ("vllm_router-", ("vllm_router/router_args.py", "vllm_router/launch_router.py"), plain),
    "aiperf": ("aiperf-", ("aiperf/config/flags/",), plain),
    "guidellm": ("guidellm-", ("guidellm/cli/", "guidellm/utils/click_pydantic.py", "guidellm/benchmark/"), plain),
    "dynamo": (
        "ai_dynamo-",
        ("dynamo/frontend/frontend_args.py", "dynamo/vllm/backend_args.py", "dynamo/sglang/backend_args.py",
         "dynamo/trtllm/backend_args.py", "dynamo/common/configuration/", "dynamo/router/"),
        plain,
    ),
}  # fmt: skip
KEYS = {  # JSON values of flags: fields of these classes
    "vllm": {
        "--speculative-config": ("vllm/config/speculative.py", "SpeculativeConfig"),
        "--kv-transfer-config": ("vllm/config/kv_transfer.py", "KVTransferConfig"),
        "--eplb-config": ("vllm/config/parallel.py", "EPLBConfig"),
    },
}


def trees_of(wheel: zipfile.ZipFile, places: tuple[str, ...]) -> dict[str, ast.AST]:
    return {
        name: ast.parse(wheel.read(name))
        for name in wheel.namelist()
        if name.endswith(".py") and "/tests/" not in name and name.startswith(places)
    }


def main(folder: Path) -> int:
    known: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for tool, (prefix, places, found) in TOOLS.items():
        paths = sorted(folder.glob(f"{prefix}*.whl"))
        if not paths:
            print(f"{tool}: no wheel {prefix}*.whl in {folder}; its entry stays", file=sys.stderr)
            continue
        with zipfile.ZipFile(paths[-1]) as wheel:
            flags = sorted(found(trees_of(wheel, places)))
            keys = {
                flag: sorted(fields(ast.parse(wheel.read(path)))[name])
                for flag, (path, name) in KEYS.get(tool, {}).items()
            }
        known[tool] = {"version": paths[-1].name.split("-")[1], "flags": flags} | ({"keys": keys} if keys else {})
        print(f"{tool} {known[tool]['version']}: {len(flags)} flags")
    head = "# Names of flags and settings by tool and version: facts, read by tools/build_known_flags.py from wheels.\n"
    FILE.write_text(head + yaml.safe_dump(known, width=118, default_flow_style=None), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
