"""What shells offer when a value is begun: names of the catalog, words of an option, files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from tokopt.errors import TokoptError

if TYPE_CHECKING:
    from tokopt.catalog import Catalog

WORDS = re.compile(r"[a-z_0-9]+(\|[a-z_0-9]+)+")  # a metavar that lists what there is
FILES = re.compile(r"FILE|\.json|PLAN")
# option -> the names that it takes, of the catalog
NAMES: dict[str, Callable[[Catalog], Iterable[str]]] = {
    "--model": lambda catalog: catalog.llms,
    "--gpu": lambda catalog: catalog.accelerators,
    "--without": lambda catalog: catalog.accelerators,
    "--accelerator": lambda catalog: catalog.accelerators,
    "--framework": lambda catalog: catalog.frameworks,
    "--precision": lambda catalog: catalog.precisions,
    "--kv-precision": lambda catalog: catalog.kv_precisions,
    "--workload": lambda catalog: catalog.workloads,
    "--speculator": lambda catalog: ("mtp", *catalog.speculators),
    "--site": lambda catalog: catalog.sites,
    "--prices": lambda catalog: (*catalog.price_list_names, *(f"ownership-{name}" for name in catalog.ownership)),
}
FEATURES = "tokopt.domain.features:Feature"
# option -> where the words are listed that it takes: a module and an enumeration in it
LISTED = {
    "--market": "tokopt.domain.offers:Market",
    "--objective": "tokopt.domain.plans:Objective",
    "--disable": FEATURES,
    "--arrivals": "tokopt.domain.simulations:Arrivals",
    "--router": "tokopt.domain.simulations:Routing",
    "--knobs": "tokopt.domain.tuning:KnobName",
    "--objectives": "tokopt.domain.tuning:Aim",
    "--sampler": "tokopt.domain.tuning:Sampler",
}


class Begun(click.types.StringParamType):
    """A text, of which a shell is told how it may go on."""

    def __init__(self, option: str, metavar: str) -> None:
        self._option, self._metavar = option, metavar

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return how a value may go on; of several with commas between, the last one."""
        del param
        known = self._known(ctx)
        if known is None:
            return [CompletionItem(incomplete, type="file")] if FILES.search(self._metavar) else []
        before, comma, last = incomplete.rpartition(",")
        taken = set(before.split(","))
        return [
            CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(last) and name not in taken
        ]

    def _known(self, ctx: click.Context) -> list[str] | None:
        if WORDS.fullmatch(self._metavar):
            return self._metavar.split("|")
        if self._option in LISTED:
            from importlib import import_module

            module, _, name = LISTED[self._option].partition(":")
            return [each.value for each in getattr(import_module(module), name)]
        if self._option not in NAMES:
            return None
        from tokopt.catalog import load_catalog

        try:
            return sorted(NAMES[self._option](load_catalog(ctx.params.get("catalog"))))
        except TokoptError:  # no place for errors: the command itself says what is wrong with its catalog
            return []


def complete(params: Iterable[click.Parameter]) -> None:
    """Let shells know how values of parameters may go on that are plain texts."""
    for param in params:
        if isinstance(param.type, click.types.StringParamType):
            param.type = Begun(param.opts[0], param.metavar or "")
