"""Hugging Face `config.json` -> `Llm`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from tokopt.catalog.huggingface_families import FAMILIES, layer_parameters
from tokopt.catalog.huggingface_keys import MAX_CONTEXT, TIED_BY_DEFAULT, Config, shown
from tokopt.domain.llms import Llm
from tokopt.errors import CatalogError

_MAX_FILE_BYTES: Final = 8 * 2**20
_MAX_PARAMETERS: Final = 10**15
_QUANTIZED: Final = {  # quant_method or quant_algo -> precision
    "fp8": "fp8",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
    "awq": "int4",
    "gptq": "int4",
}
_GROUPED: Final = {  # type and bits of weights in compressed-tensors and ModelOpt groups, the narrowest first
    ("mxfp", 4): "mxfp4",
    ("float", 4): "nvfp4",
    ("int", 4): "int4",
    ("float", 8): "fp8",
    ("int", 8): "int8",
}


class CatalogFacts(TypedDict, total=False):
    """What a catalog knows of a model that its config.json does not say; the fields are those of `Llm`."""

    title: str
    aliases: tuple[str, ...]
    native_precision: str
    precisions: tuple[str, ...]
    precision_aliases: Mapping[str, str]
    quality_losses: Mapping[str, float]
    kv_quality_losses: Mapping[str, float]
    kept_wider: Mapping[str, str]
    mtp_layers: int
    published_total_parameters: float | None
    published_active_parameters: float | None
    published_note: str
    source: str
    observed_on: str
    note: str


def read_huggingface_config(path: Path) -> Llm:
    """Return the language model that a config.json describes.

    Args:
        path: The file, or the folder that holds `config.json`. The model is named after the folder, or after the
            file where that has a name of its own.

    Raises:
        CatalogError: The file cannot be read, is not a JSON object, or does not describe a supported architecture.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_FILE_BYTES + 1)
        if len(text) > _MAX_FILE_BYTES:
            raise CatalogError(f"{file}: larger than {_MAX_FILE_BYTES // 2**20} MiB: not a config.json")
        config = json.loads(text)
    except OSError as error:
        raise CatalogError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"{file}: not valid JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(config, dict):
        raise CatalogError(f"{file}: a JSON object is needed, not {type(config).__name__}")
    name = (file.resolve().parent.name if file.stem == "config" else "") or file.stem
    llm = llm_from_config(config, name=name, where=str(file), source=str(file))
    precision = _native_precision(config, where=str(file))
    served = ("bf16", "fp8") if precision == "bf16" else (precision,)  # frameworks cast bf16 to fp8 on load
    return replace(llm, native_precision=precision, precisions=served)


def llm_from_config(config: Mapping[str, Any], *, name: str, where: str, **facts: Unpack[CatalogFacts]) -> Llm:
    """Return the language model that a Hugging Face config describes.

    Args:
        config: Content of config.json; a nested `text_config` is read where there is one.
        name: Name of the model.
        where: File (and key) the config comes from, for error messages.
        facts: Fields of `Llm` that the config does not say. `mtp_layers` replaces the config's number, for
            checkpoints that announce multi-token-prediction modules and do not ship them.

    Raises:
        CatalogError: Unsupported `model_type`, or a key that is missing or out of range: file, key and what is
            allowed, in one line.
    """
    outer = Config(config, where)
    family = config.get("model_type")
    reader = FAMILIES.get(family) if isinstance(family, str) else None
    if reader is None:
        said = "missing" if family is None else f"{shown(family)} is not supported"
        raise CatalogError(f"{where}: model_type: {said} (supported: {', '.join(sorted(FAMILIES))})")
    text = (outer.nested("text_config") if config.get("text_config") is not None else outer).spelt(str(family))
    hidden = text.size("hidden_size")
    vocabulary = text.size("vocab_size")
    context = text.size("max_position_embeddings", maximum=MAX_CONTEXT)
    untold = text.flag("tie_word_embeddings", default=family in TIED_BY_DEFAULT)
    tied = outer.flag("tie_word_embeddings", default=untold)
    stack = reader(text)
    if sum(layer_parameters(group) * group.count for group in stack.layers) > _MAX_PARAMETERS:
        raise CatalogError(f"{where}: hidden_size: the sizes together give over {_MAX_PARAMETERS:.0e} parameters")
    known: CatalogFacts = {
        "title": name,
        "aliases": (),
        "native_precision": "bf16",
        "precisions": ("bf16",),
        "mtp_layers": stack.mtp_layers,
    }
    known |= facts
    return Llm(
        name=name,
        family=str(family),
        hidden_size=hidden,
        vocabulary=vocabulary,
        max_context_tokens=context,
        tied_embeddings=tied,
        layers=stack.layers,
        final_norm_parameters=hidden + stack.beside_parameters,
        mtp_parameters=stack.mtp_parameters,
        **known,
    )


def _native_precision(config: Mapping[str, Any], *, where: str) -> str:
    """Return the precision of the checkpoint: bf16 unless `quantization_config` says otherwise."""
    text = config.get("text_config")
    quantization = config.get("quantization_config")
    if quantization is None and isinstance(text, Mapping):
        quantization = text.get("quantization_config")
    if quantization is None:
        return "bf16"
    said = Config({"quantization_config": quantization}, where).nested("quantization_config").data
    for key in ("quant_algo", "quant_method"):
        if isinstance(word := said.get(key), str) and word.lower() in _QUANTIZED:
            return _QUANTIZED[word.lower()]
    groups = said.get("config_groups")
    found = {_group_precision(group) for group in groups.values()} if isinstance(groups, Mapping) else set()
    for precision in _GROUPED.values():  # of mixed precisions, the one of the experts, which is the narrowest
        if precision in found:
            return precision
    raise CatalogError(
        f"{where}: quantization_config: quant_method {shown(said.get('quant_method'))} is not known "
        f"(known: {', '.join(sorted(_QUANTIZED))}, or config_groups with weights of 4 or 8 bits)"
    )


def _group_precision(group: object) -> str | None:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(group, Mapping) or not isinstance(weights, Mapping):
        return None
    kind = "mxfp" if "mxfp4" in str(group.get("format")) else str(weights.get("type"))
    bits = weights.get("num_bits")
    return _GROUPED.get((kind, bits)) if isinstance(bits, int) else None
