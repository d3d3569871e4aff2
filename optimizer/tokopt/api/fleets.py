"""Today's fleet, from a plan file or a list of units."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokopt.catalog import Catalog
from tokopt.catalog.files import read_yaml
from tokopt.domain.demand import CurrentUnits
from tokopt.domain.plans import Plan
from tokopt.errors import InputError

KEYS = tuple(CurrentUnits.model_fields)


def current_units(catalog: Catalog, source: Any) -> tuple[CurrentUnits, ...]:
    """Return the units of today's fleet.

    Args:
        catalog: Where accelerators are looked up.
        source: A plan, the path of a plan file or of a YAML file with a list `fleet`, or such a list; None = no fleet.

    Raises:
        InputError: In one line: not readable, or not a fleet.
    """
    if source is None:
        return ()
    where = str(source) if isinstance(source, (str, Path)) else "current"
    if isinstance(source, Plan):
        source = source.model_dump(mode="json")
    if isinstance(source, (str, Path)):
        source = _read(Path(source))
    rows = source.get("fleet") if isinstance(source, Mapping) else source
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise InputError(f"{where}: not a fleet: give a plan file, or a list `fleet` of {', '.join(KEYS)}")
    units = []
    for number, row in _units_of(rows, where):
        picked = {key: row[key] for key in KEYS if key in row}
        try:
            unit = CurrentUnits.model_validate_json(json.dumps(picked, default=str))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{where}: fleet[{number}]: {key}: {first['msg']}") from None
        units.append(unit.model_copy(update={"accelerator": catalog.accelerator(unit.accelerator).name}))
    return tuple(units)


def _units_of(rows: Sequence[Any], where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the units of each row with its number: an item of a plan that buys of several offers has several.

    Raises:
        InputError: A row is no mapping.
    """
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: fleet[{number}]: a mapping of keys to values is needed")
        parts = row.get("parts") or [{}]
        if not isinstance(parts, Sequence) or not all(isinstance(part, Mapping) for part in parts):
            raise InputError(f"{where}: fleet[{number}]: parts: a list of mappings is needed")
        for part in parts:
            yield number, {**row, **{key: part[key] for key in KEYS if key in part}}


def _read(path: Path) -> Any:
    if path.suffix.lower() != ".json":
        return read_yaml(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
