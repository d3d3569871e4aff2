"""The catalog of language models: one YAML file a model, its architecture as the keys of its `config.json`."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum, unique
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tokopt.catalog.files import Row, read_yaml, validate
from tokopt.catalog.huggingface import CatalogFacts, llm_from_config
from tokopt.domain.llms import WIDE_CACHE, Llm
from tokopt.errors import CatalogError, unknown_name

_Precision = Literal["bf16", "fp8", "nvfp4", "mxfp4", "int4", "int8"]
_Parameters = Annotated[float, Field(gt=0, strict=True)]
_Text = Annotated[str, Field(min_length=1)]


@unique
class CountDefinition(StrEnum):
    """What a published parameter count counts."""

    ALL = "all"  # the language model with embedding and head, without multi-token-prediction modules
    WITHOUT_EMBEDDING = "without_embedding"
    WITHOUT_EMBEDDING_AND_HEAD = "without_embedding_and_head"


class QualityRow(Row):
    """What a checkpoint or a cache of another precision scores on a benchmark, and the original with it."""

    benchmark: _Text
    score: float = Field(gt=0)
    original_score: float = Field(gt=0)
    source: _Text
    note: str = ""


class LlmRow(Row):
    """One file of `catalogs/llms/`.

    `published_*_resolution` is how far a count may be from what is published: half a unit of its last digit (17B is
    known to 0.5e9), or a whole unit where the publisher cut digits off instead of rounding.
    """

    name: _Text
    title: _Text
    aliases: tuple[_Text, ...]
    native_precision: _Precision
    precisions: tuple[_Precision, ...]
    precision_aliases: dict[_Precision, _Precision] = Field(
        default={}
    )  # what people call a precision of it, and what they mean
    quality: dict[_Precision, tuple[QualityRow, ...]] = Field(
        default={}
    )  # published scores of checkpoints in other precisions
    kv_quality: dict[str, tuple[QualityRow, ...]] = Field(default={})  # the same with a cache in other precisions
    kept_wider: dict[_Precision, _Text] = Field(default={})  # what published checkpoints of a precision leave wider
    published_total_parameters: _Parameters
    published_total_resolution: _Parameters
    published_total_definition: CountDefinition
    published_beside_parameters: _Parameters | None = None  # in the published total: vision tower and projector
    published_active_parameters: _Parameters
    published_active_resolution: _Parameters
    published_active_definition: CountDefinition
    published_note: str
    published_source: _Text
    shipped_mtp_layers: Annotated[int, Field(ge=0, strict=True)] | None = None  # where the config announces others
    source: _Text
    observed_on: datetime.date
    note: str
    config: dict[str, Any]


def read_llm_row(path: Path) -> LlmRow:
    """Return one file of the catalog, checked.

    Raises:
        CatalogError: The file is not what a catalog file must be, or is not named after its model.
    """
    row = validate(LlmRow, read_yaml(path), where=str(path))
    if row.name != path.stem:
        raise CatalogError(f"{path}: name: {row.name!r} must be the name of the file, {path.stem!r}")
    if row.native_precision not in row.precisions:
        raise CatalogError(f"{path}: precisions: the native precision {row.native_precision} is not among them")
    for said, meant in row.precision_aliases.items():
        if said in row.precisions or meant not in row.precisions:
            raise CatalogError(f"{path}: precision_aliases: {said}: must stand for one of precisions, and not be one")
    for precision, scores in row.quality.items():
        if precision not in row.precisions or precision == row.native_precision or not scores:
            raise CatalogError(f"{path}: quality: {precision}: scores of another of the model's precisions are needed")
    for kv_precision, scores in row.kv_quality.items():
        if kv_precision == WIDE_CACHE or not scores:
            raise CatalogError(
                f"{path}: kv_quality: {kv_precision}: scores of a cache narrower than {WIDE_CACHE} needed"
            )
    for precision in row.kept_wider:
        if precision not in row.precisions:
            raise CatalogError(f"{path}: kept_wider: {precision} is not among the model's precisions")
    return row


def quality_loss(scores: Sequence[QualityRow]) -> float:
    """Return the mean share of its score that a checkpoint loses against the original, never below nothing.

    loss = 1 - mean over benchmarks of score / original score
    """
    kept = sum(row.score / row.original_score for row in scores) / len(scores)
    return max(0.0, 1.0 - kept)


def llm_from_row(row: LlmRow, *, where: str) -> Llm:
    """Return the language model of a catalog file.

    Raises:
        CatalogError: The config is not one of a supported architecture.
    """
    facts: CatalogFacts = {
        "title": row.title,
        "aliases": row.aliases,
        "native_precision": row.native_precision,
        "precisions": row.precisions,
        "precision_aliases": {str(said): str(meant) for said, meant in row.precision_aliases.items()},
        "quality_losses": {str(precision): quality_loss(scores) for precision, scores in row.quality.items()},
        "kv_quality_losses": {precision: quality_loss(scores) for precision, scores in row.kv_quality.items()},
        "kept_wider": {str(precision): parts for precision, parts in row.kept_wider.items()},
        "published_total_parameters": row.published_total_parameters,
        "published_active_parameters": row.published_active_parameters,
        "published_note": row.published_note,
        "source": row.source,
        "observed_on": row.observed_on.isoformat(),
        "note": row.note,
    }
    if row.shipped_mtp_layers is not None:
        facts["mtp_layers"] = row.shipped_mtp_layers
    return llm_from_config(row.config, name=row.name, where=f"{where}: config", **facts)


def load_llms(directory: Path) -> dict[str, Llm]:
    """Return all language models of a catalog folder, by name.

    Raises:
        CatalogError: A file is wrong, or two files share a name or an alias (compared without case).
    """
    llms: dict[str, Llm] = {}
    owners: dict[str, Path] = {}
    for path in _files(directory):
        llm = _read(path)
        for spelling in {said.casefold() for said in (llm.name, *llm.aliases)}:
            if spelling in owners:
                raise CatalogError(f"{path}: aliases: {spelling!r} is already taken by {owners[spelling].name}")
            owners[spelling] = path
        llms[llm.name] = llm
    return llms


def load_llm(directory: Path, name: str) -> Llm:
    """Return one language model by name or alias, without case; other files are not parsed.

    Raises:
        CatalogError: The model's file is wrong.
        InputError: No model has that name; the nearest names are given.
    """
    wanted = name.strip().casefold()
    files = _files(directory)
    for path in files:
        if path.stem.casefold() == wanted:
            return _read(path)
    for path in files:
        if wanted and wanted in _text(path).casefold():
            llm = _read(path)
            if wanted in (alias.casefold() for alias in llm.aliases):
                return llm
    raise unknown_name("language model", name, (path.stem for path in files))


def spellings(llms: Iterable[Llm]) -> Mapping[str, str]:
    """Return the name of each model by everything it is called, in lower case."""
    return {said.casefold(): llm.name for llm in llms for said in (llm.name, *llm.aliases)}


def _files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise CatalogError(f"{directory}: not a folder: the catalog of language models is missing")
    return sorted(directory.glob("*.yaml"))


def _read(path: Path) -> Llm:
    return llm_from_row(read_llm_row(path), where=str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
