"""What price lists call providers, accelerators and machines: `price_names.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from tokopt.catalog.files import Row, read_yaml, validate
from tokopt.catalog.rows import Count, OptionalPositive, Text
from tokopt.errors import CatalogError

FILE = "price_names.yaml"


class AcceleratorNameRow(Row):
    """What a name of an accelerator means in some price lists."""

    name: Text = Field(description="Name in the price list; case, blanks, hyphens and underscores do not matter")
    means: Text = Field(description="A name, alias or price name of an accelerator")
    format: str = Field(default="", description="Format that uses the name so: skypilot, gpuhunt, focus, tokopt")
    provider: str = Field(default="", description="Provider that uses the name so")
    memory_gb: OptionalPositive = Field(default=None, description="Memory of one accelerator that the row states [GB]")
    instance_type: str = Field(default="", description="Regular expression that the machine's whole name matches")
    source: Text = Field(description="Key in sources.yaml")
    note: str = Field(default="", description="Why")


class SliceNameRow(Row):
    """Slices whose names end in their size."""

    name: Text = Field(description="Name before the size, without the prefix `tpu-`")
    means: Text = Field(description="A name, alias or price name of an accelerator")
    per_chip: Count = Field(description="What the size in the name counts for one chip: 2 where it counts cores")
    placeholder_usd_per_hour: OptionalPositive = Field(
        default=None, description="Price that stands where there is none [USD/h]"
    )
    source: Text = Field(description="Key in sources.yaml")


class MachineNameRow(Row):
    """Machines of a provider with one kind of accelerator."""

    provider: Text = Field(description="Provider")
    accelerator: Text = Field(description="A name, alias or price name of an accelerator")
    types: dict[str, Count] = Field(description="Name of a machine -> accelerators in it")
    host: str = Field(
        default="",
        description="Lists that split machines in two price these without accelerators, which have rows of this name",
    )
    source: Text = Field(description="Key in sources.yaml")


class PriceNamesRow(Row):
    """What price lists call things; its rules come before the accelerators' own names."""

    providers: dict[str, tuple[Text, ...]] = Field(default={}, description="Provider -> other names of it")
    accelerators: tuple[AcceleratorNameRow, ...] = Field(default=(), description="What names of accelerators mean")
    slices: tuple[SliceNameRow, ...] = Field(default=(), description="Slices whose names end in their size")
    machines: tuple[MachineNameRow, ...] = Field(default=(), description="What is in machines")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What is in a machine of some name."""

    provider: str
    name: str
    accelerator: str
    count: int
    host: str  # name of the accelerators' own rows where lists price the machine without them
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceNames:
    """Vocabulary of price lists."""

    providers: Mapping[str, str] = field(default_factory=dict)  # folded name -> provider
    accelerators: Sequence[AcceleratorNameRow] = ()
    slices: Sequence[SliceNameRow] = ()
    machines: Sequence[Machine] = ()

    def provider(self, name: str) -> str:
        """Return the provider that a name stands for; one that is not known stands for itself."""
        return self.providers.get(squashed(name), name.strip().lower())


def squashed(name: str) -> str:
    """Return the spelling that names are matched by: no case, no blanks, hyphens, underscores or dots."""
    return re.sub(r"[\s._-]+", "", name.casefold())


def machine_key(name: str) -> str:
    """Return the spelling that machines are matched by: no case, no `Standard_`, blanks as underscores."""
    return name.strip().lower().replace(" ", "_").removeprefix("standard_")


def load_price_names(directories: Iterable[Path]) -> PriceNames:
    """Return the vocabulary of several catalog directories; what a later one says comes first.

    Raises:
        CatalogError: A file that does not say what it must.
    """
    found = [row for directory in directories if (row := _read(directory / FILE))]
    providers: dict[str, str] = {}
    for row in found:
        for provider, others in row.providers.items():
            providers |= {squashed(name): provider for name in (provider, *others)}
    machines: dict[str, Machine] = {}
    for row in found:
        for line in row.machines:
            for name, count in line.types.items():
                machines[machine_key(name)] = Machine(
                    provider=line.provider,
                    name=name,
                    accelerator=line.accelerator,
                    count=count,
                    host=line.host,
                    source=line.source,
                )
    return PriceNames(
        providers=providers,
        accelerators=tuple(rule for row in reversed(found) for rule in row.accelerators),
        slices=tuple(rule for row in reversed(found) for rule in row.slices),
        machines=tuple(machines.values()),
    )


def _read(path: Path) -> PriceNamesRow | None:
    if not path.is_file():
        return None
    content = read_yaml(path)
    row = validate(PriceNamesRow, {} if content is None else content, where=str(path))
    for rule in row.accelerators:
        try:
            re.compile(rule.instance_type)
        except re.error as error:
            raise CatalogError(f"{path}: {rule.name}: instance_type: not a regular expression: {error}") from None
    return row
