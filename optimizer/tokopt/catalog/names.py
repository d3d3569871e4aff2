"""Names and aliases: how they are written, matched and looked up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Protocol, TypeVar

from tokopt.errors import CatalogError

KNOWN_ENTRIES: Final = (
    "accelerators",
    "benchmarks.yaml",
    "calibration",
    "expert_traffic.yaml",
    "frameworks.yaml",
    "host_times.yaml",
    "kv_precisions.yaml",
    "llms",
    "measurements",
    "ownership",
    "platforms.yaml",
    "power_readings.yaml",
    "precisions.yaml",
    "price_names.yaml",
    "prices",
    "published_economics.yaml",
    "sites",
    "sites.yaml",
    "sources.yaml",
    "speculators.yaml",
    "workloads.yaml",
)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")


class Named(Protocol):
    """A record with a name and aliases."""

    @property
    def name(self) -> str:
        """The name that tables and plans use."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """What else people call it."""


NamedT = TypeVar("NamedT", bound=Named)


def name_index(table: Mapping[str, NamedT]) -> dict[str, tuple[str, ...]]:
    """Return the entries that each spelling stands for; a name beats an alias, two aliases alike clash."""
    index: dict[str, tuple[str, ...]] = {}
    for name, record in table.items():
        for alias in {folded(alias) for alias in record.aliases}:
            index[alias] = (*index.get(alias, ()), name)
    return index | {folded(name): (name,) for name in table}


def checked_name(name: object, where: str) -> str:
    """Return a name fit for a table, or raise CatalogError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CatalogError(f"{where}: {name!r} is no name: lower-case letters, digits, '.', '_' and '-' are allowed")
    return name


def folded(name: str) -> str:
    """Return the spelling that names are matched by: no case, spaces and underscores as hyphens."""
    return re.sub(r"[\s_]+", "-", name.strip().casefold())
