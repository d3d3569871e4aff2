"""Reading catalog files: text to checked rows, one clear line per fault."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tokopt.catalog.faults import fault_in_words
from tokopt.errors import CatalogError

RowT = TypeVar("RowT", bound=BaseModel)


class Row(BaseModel):
    """A row of a catalog file: unknown keys are refused, text is never silently turned into another type."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True, defer_build=True
    )


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        CatalogError: The file cannot be read, is not YAML, or names one key twice.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: cannot be read: {_reason(error)}") from None
    loader_class: Any = _unique_key_loader()
    try:
        return yaml.load(text, Loader=loader_class)  # a subclass of the C safe loader
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise CatalogError(f"{path}{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        # Beside what the grammar refuses: dates, numbers and depths that cannot be.
        raise CatalogError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells of each row of a CSV file with a header.

    Raises:
        CatalogError: The file cannot be read, has no header, names a column twice, or a row has too many or few cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = reader.fieldnames
            if not names:
                raise CatalogError(f"{path}: empty: a header row is needed")
            doubles = {name for name in names if names.count(name) > 1}
            if doubles:
                raise CatalogError(f"{path}:1: column named twice: {', '.join(sorted(doubles))}")
            for row in reader:
                if None in row or None in row.values():
                    raise CatalogError(f"{path}:{reader.line_num}: not as many cells as the header has columns")
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CatalogError(f"{path}: cannot be read: {_reason(error)}") from None


def validate(row: type[RowT], data: Any, *, where: str) -> RowT:
    """Return `data` as a checked row.

    Args:
        row: The row's pydantic model.
        data: What the file says.
        where: File and key of the row, for the error message.

    Raises:
        CatalogError: With file and key, in one line: the first fault, and how many more there are.
    """
    if not isinstance(data, Mapping):
        said = "; there is nothing" if data is None else f", not {type(data).__name__}"
        raise CatalogError(f"{where}: a mapping of keys to values is needed{said}")
    try:
        return row.model_validate(data)
    except ValidationError as error:
        raise CatalogError(f"{where}: {fault_in_words(row, data, error)}") from None


def _unique_key_loader() -> type:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class UniqueKeyLoader(base):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (list, dict)):
                    raise yaml.constructor.ConstructorError(
                        None, None, "a key is text or a number, no list or mapping", key_node.start_mark
                    )
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} appears twice", key_node.start_mark
                    )
                seen.add(key)
            return dict(super().construct_mapping(node, deep=deep))

    UniqueKeyLoader.add_constructor(
        yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
        lambda loader, node: loader.construct_mapping(node, deep=True),
    )
    return UniqueKeyLoader


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "no text in UTF-8"
    return str(getattr(error, "strerror", None) or error)
