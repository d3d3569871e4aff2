"""Rows of the hardware side of a catalog to records in SI.

Faults are raised without the file and entry, which the caller puts in front.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokopt.catalog.power_settings import check_settings, curve_record, setting_record
from tokopt.catalog.rows import (
    AcceleratorRow,
    BenchmarkRow,
    EconomicsFiguresRow,
    EconomicsLineRow,
    EconomicsRow,
    FrameworkRow,
    KvPrecisionRow,
    PlatformRow,
    PowerReadingRow,
    PrecisionRow,
    SourcedRow,
    SourceRow,
    WorkloadRow,
)
from tokopt.domain.accelerators import (
    Accelerator,
    Framework,
    FrameworkSupport,
    KvPrecision,
    NumberFormat,
    Precision,
    PurchaseUnit,
)
from tokopt.domain.economics import EconomicsFigures, EconomicsLine, PublishedEconomics
from tokopt.domain.measurements import PowerReading
from tokopt.domain.platforms import Documented, Platform
from tokopt.domain.provenance import Source
from tokopt.domain.workloads import Benchmark, Workload
from tokopt.errors import CatalogError
from tokopt.units import GB, GIB, KW, TFLOP

_BITS_PER_BYTE: Final = 8.0
_SOURCED_APART: Final = frozenset(
    {"support", "feature_sources", "power_curve", "power_settings"}
)  # they have sources of their own
_UNTRACED: Final = _SOURCED_APART | {"title", "aliases", "price_names", "source", "sources", "observed_on", "note"}


def source_record(name: str, row: SourceRow) -> Source:
    """Return the record of one source."""
    return Source(
        key=name,
        title=row.title,
        publisher=row.publisher,
        retrieved_on=row.retrieved_on.isoformat(),
        locator=row.locator,
        note=row.note,
    )


def accelerator_record(name: str, row: AcceleratorRow) -> Accelerator:
    """Return the record of one accelerator, in SI.

    Raises:
        CatalogError: Neither memory figure is given, or a rack is sold whose number of nodes is not.
    """
    if row.memory_gib is None and row.memory_gb is None:
        raise CatalogError("memory_gb: missing (or memory_gib)")
    if row.purchase_unit is PurchaseUnit.RACK and row.nodes_per_rack is None:
        raise CatalogError("nodes_per_rack: missing, although purchase_unit is rack")
    record = Accelerator(
        name=name,
        title=row.title,
        vendor=row.vendor,
        generation=row.generation,
        aliases=tuple(dict.fromkeys((*row.aliases, *row.price_names))),
        memory_bytes=row.memory_gib * GIB if row.memory_gib is not None else (row.memory_gb or 0.0) * GB,
        memory_bytes_per_s=row.memory_bandwidth_gb_per_s * GB,
        dense_flop_per_s=_flop_per_s(row.dense_tflops),
        sparse_flop_per_s=_flop_per_s(row.sparse_tflops),
        scale_up_size=row.scale_up_size,
        scale_up_bytes_per_s=row.scale_up_gb_per_s * GB,
        scale_up_topology=row.scale_up_topology,
        scale_out_bytes_per_s=_scaled(row.scale_out_gbit_per_s, GB / _BITS_PER_BYTE),
        accelerators_per_node=row.accelerators_per_node,
        nodes_per_rack=row.nodes_per_rack,
        purchase_unit=row.purchase_unit,
        board_w=row.board_w,
        server_w=row.server_w,
        all_in_w=_scaled(row.all_in_kw, KW),
        idle_w=row.idle_w,
        host_bytes=_scaled(row.host_memory_gb, GB),
        host_bytes_per_s=_scaled(row.host_gb_per_s, GB),
        ssd_bytes=_scaled(row.ssd_gb, GB),
        ssd_bytes_per_s=_scaled(row.ssd_gb_per_s, GB),
        per_package=row.per_package,
        power_curve=None if row.power_curve is None else curve_record(row.power_curve),
        power_settings=tuple(setting_record(setting) for setting in row.power_settings),
        sources=_sources(row),
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )
    check_settings(record)
    return record


def precision_record(name: str, row: PrecisionRow) -> Precision:
    """Return the record of one weight precision."""
    return Precision(
        name=name,
        title=row.title,
        aliases=row.aliases,
        ffn_bits=row.ffn_bits,
        attention_bits=row.attention_bits,
        latent_attention_bits=row.latent_attention_bits,
        other_bits=row.other_bits,
        ffn_compute=row.ffn_compute,
        attention_compute=row.attention_compute,
        latent_attention_compute=row.latent_attention_compute,
        fallback_compute=row.fallback_compute,
        converted_for=row.converted_for,
        weight_only=row.weight_only,
        default_kv_precision=row.default_kv_precision,
        source=row.source,
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def kv_precision_record(name: str, row: KvPrecisionRow) -> KvPrecision:
    """Return the record of one precision of the KV cache."""
    return KvPrecision(
        name=name,
        title=row.title,
        aliases=row.aliases,
        bits=row.bits,
        source=row.source,
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def framework_record(name: str, row: FrameworkRow) -> Framework:
    """Return the record of one framework, with one entry an accelerator.

    Raises:
        CatalogError: Two entries are about the same accelerator, or a source is of a feature that is not there.
    """
    support: dict[str, FrameworkSupport] = {}
    for number, entry in enumerate(row.support):
        for feature in entry.sources:
            if feature not in entry.features:
                raise CatalogError(f"support.{number}.sources.{feature}: a source without the feature")
        record = FrameworkSupport(
            precisions=entry.precisions,
            kv_precisions=entry.kv_precisions,
            features=entry.features,
            source=entry.source,
            feature_sources={feature.value: key for feature, key in entry.sources.items()},
            note=entry.note,
        )
        for accelerator in entry.accelerators:
            if accelerator in support:
                raise CatalogError(f"support.{number}.accelerators: {accelerator} is in an earlier entry too")
            support[accelerator] = record
    return Framework(
        name=name,
        title=row.title,
        aliases=row.aliases,
        memory_fraction=row.memory_fraction,
        reserved_output=row.reserved_output,
        max_running_requests=row.max_running_requests,
        chunk_tokens=row.chunk_tokens,
        support=support,
        recommended=row.recommended,
        source=row.source,
        sources={**_sources(row), **{str(feature): key for feature, key in row.feature_sources.items()}},
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def workload_record(name: str, row: WorkloadRow) -> Workload:
    """Return the record of one workload.

    Raises:
        CatalogError: What repeats is not possible, or is given twice.
    """
    reuse = None if row.reuse is None else row.reuse.record()
    if reuse is not None:
        wrong = reuse.impossible(row.input_tokens) or ("prefix_share says it too" if row.prefix_share else "")
        if wrong:
            raise CatalogError(f"reuse: {wrong}")
    return Workload(
        name=name,
        title=row.title,
        aliases=row.aliases,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        input_cv=row.input_cv,
        output_cv=row.output_cv,
        prefix_share=row.prefix_share,
        reuse=reuse,
        arrival_cv2=row.arrival_cv2,
        domain=row.domain,
        source=row.source,
        sources=_sources(row),
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def benchmark_record(name: str, row: BenchmarkRow) -> Benchmark:
    """Return the record of one benchmark in one scenario."""
    return Benchmark(
        name=name,
        title=row.title,
        aliases=row.aliases,
        llm=row.llm,
        scenario=row.scenario,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        input_cv=row.input_cv,
        output_cv=row.output_cv,
        max_input_tokens=row.max_input_tokens,
        max_output_tokens=row.max_output_tokens,
        ttft_ms=row.ttft_ms,
        tpot_ms=row.tpot_ms,
        statistic=row.statistic,
        source=row.source,
        sources=_sources(row),
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def platform_record(name: str, row: PlatformRow) -> Platform:
    """Return the record of what a vendor documents about accelerators."""
    listed = row.listed_models
    return Platform(
        name=name,
        title=row.title,
        vendor=row.vendor,
        generations=row.generations,
        stages={stage: Documented(words=each.tools, source=each.source) for stage, each in row.stages.items()},
        listed_models=None if listed is None else Documented(words=listed.names, source=listed.source),
        source=row.source,
        sources=_sources(row),
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def economics_record(name: str, row: EconomicsRow) -> PublishedEconomics:
    """Return the record of one published comparison."""
    return PublishedEconomics(
        name=name,
        title=row.title,
        published_on=row.published_on,
        ownership=row.ownership,
        token_basis=row.token_basis,
        lines=tuple(_line(line) for line in row.lines),
        ratios=_figures(row.ratios),
        source=row.source,
        sources=_sources(row),
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def _line(row: EconomicsLineRow) -> EconomicsLine:
    return EconomicsLine(
        accelerator=row.accelerator,
        llm=row.llm,
        precision=row.precision,
        features=row.features,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        tokens_per_s_per_user=row.tokens_per_s_per_user,
        unrounded_tokens_per_s_per_gpu=row.unrounded_tokens_per_s_per_gpu,
        peak_format=row.peak_format,
        peak_sparse=row.peak_sparse,
        published=_figures(row.published),
        not_named=row.not_named,
        note=row.note,
    )


def _figures(row: EconomicsFiguresRow) -> EconomicsFigures:
    return EconomicsFigures(
        usd_per_gpu_hour=row.usd_per_gpu_hour,
        pflops_per_usd=row.pflops_per_usd,
        tokens_per_s_per_gpu=row.tokens_per_s_per_gpu,
        tokens_per_s_per_mw=row.tokens_per_s_per_mw,
        usd_per_million_tokens=row.usd_per_million_tokens,
    )


def _flop_per_s(rates_tflops: Mapping[NumberFormat, float]) -> dict[NumberFormat, float]:
    return {number_format: rate * TFLOP for number_format, rate in rates_tflops.items()}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def power_reading_record(name: str, row: PowerReadingRow) -> PowerReading:
    """Return the record of one reading of power."""
    return PowerReading(
        name=name,
        title=row.title,
        accelerator=row.accelerator,
        work=row.work,
        meter=row.meter,
        power_limit_w=row.power_limit_w,
        low_w=row.low_w,
        high_w=row.high_w,
        source=row.source,
        sources=_sources(row),
        observed_on=row.observed_on.isoformat(),
        note=row.note,
    )


def _sources(row: SourcedRow) -> dict[str, str]:
    """Return the source key of every value that the row gives, by the row's field names."""
    given = (name for name in type(row).model_fields if name in row.model_fields_set and name not in _UNTRACED)
    return {name: row.sources.get(name, row.source) for name in given}
