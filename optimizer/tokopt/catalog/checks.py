"""What no single row can say: rules between rows, one function a rule, each returning readable problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from tokopt.catalog.names import KNOWN_ENTRIES, name_index
from tokopt.domain.accelerators import Accelerator, NumberFormat
from tokopt.domain.measurements import PowerWork
from tokopt.domain.workloads import Scenario
from tokopt.errors import CatalogError, InputError

if TYPE_CHECKING:
    from tokopt.catalog.catalog import Catalog

_TABLES: Final = (
    "sources",
    "accelerators",
    "precisions",
    "kv_precisions",
    "expert_traffic",
    "frameworks",
    "host_times",
    "workloads",
    "speculators",
    "benchmarks",
    "power_readings",
    "platforms",
    "sites",
    "published_economics",
    "ownership",
    "llms",
    "calibration",
    "measurement_families",
    "price_names",
)
_ALIASED: Final = (
    "accelerators",
    "precisions",
    "kv_precisions",
    "expert_traffic",
    "frameworks",
    "workloads",
    "speculators",
    "benchmarks",
    "sites",
)
_WIDER_FIRST: Final = (NumberFormat.BF16, NumberFormat.FP8, NumberFormat.FP4)
_WATTS_INSIDE_OUT: Final = ("idle_w", "board_w", "server_w", "all_in_w")


def problems(catalog: Catalog) -> list[str]:
    """Return everything that is wrong with a catalog; rules that need a table that cannot be read are left out."""
    unreadable = list(_unreadable_tables(catalog))
    if unreadable:
        return unreadable
    return [problem for rule in _RULES for problem in rule(catalog)]


def _unreadable_tables(catalog: Catalog) -> Iterator[str]:
    for table in _TABLES:
        try:
            getattr(catalog, table)
        except CatalogError as error:
            yield str(error)


def _unknown_files(catalog: Catalog) -> Iterator[str]:
    for directory in catalog.directories:
        for path in sorted((directory / "accelerators").glob("*")):
            if path.suffix != ".yaml" and not path.name.startswith(("README", ".")):
                yield f"{path}: not part of a catalog (an accelerator's file ends in .yaml)"
        for path in sorted(directory.iterdir()):
            if path.name not in KNOWN_ENTRIES and not path.name.startswith(("README", ".")):
                yield f"{path}: not part of a catalog (known: {', '.join(KNOWN_ENTRIES)})"


def _unknown_sources(catalog: Catalog) -> Iterator[str]:
    for table in (*_ALIASED, "host_times", "power_readings", "platforms", "published_economics", "ownership"):
        for name, record in getattr(catalog, table).items():
            for field, key in _source_keys(record):
                if key not in catalog.sources:
                    yield f"{table}: {name}: {field}: source {key!r} is not in sources.yaml"
    calibration = catalog.calibration
    keys = [
        *((name, entry.source) for name, entry in calibration.entries.items()),
        *((f"{effect.constant} of {effect.level}", effect.source) for effect in calibration.effects),
        *((f"acceptance {llm}", key) for llm, key in calibration.acceptance_sources.items()),
    ]
    for field, key in keys:
        if key not in catalog.sources:
            yield f"calibration: {calibration.name}: {field}: source {key!r} is not in sources.yaml"


def _source_keys(record: Any) -> Iterator[tuple[str, str]]:
    yield from getattr(record, "sources", {}).items()
    if hasattr(record, "source"):
        yield "source", record.source
    for accelerator, support in getattr(record, "support", {}).items():
        yield f"support of {accelerator}", support.source
        for feature, key in support.feature_sources.items():
            yield f"{feature} on {accelerator}", key
    for domain, acceptance in getattr(record, "acceptance", {}).items():
        yield f"acceptance of {domain}", acceptance.source
    if getattr(record, "power_curve", None):
        yield "power_curve", record.power_curve.source
    for setting in getattr(record, "power_settings", ()):
        yield f"power_settings {setting.name}", setting.source
    for stage, documented in getattr(record, "stages", {}).items():
        yield f"stages {stage}", documented.source
    if getattr(record, "listed_models", None):
        yield "listed_models", record.listed_models.source


def _clashing_aliases(catalog: Catalog) -> Iterator[str]:
    for table in _ALIASED:
        for spelling, names in name_index(getattr(catalog, table)).items():
            if len(names) > 1:
                yield f"{table}: {spelling!r} is an alias of {' and of '.join(names)}"


def _unknown_references(catalog: Catalog) -> Iterator[str]:
    for name, precision in catalog.precisions.items():
        kv = (precision.default_kv_precision,)
        yield from _missing(f"precisions: {name}: default_kv_precision", kv, catalog.kv_precisions)
    for name, framework in catalog.frameworks.items():
        where = f"frameworks: {name}: support"
        yield from _missing(where, framework.support, catalog.accelerators)
        for accelerator, support in framework.support.items():
            here = f"{where} of {accelerator}"
            yield from _missing(f"{here}: precisions", support.precisions, catalog.precisions)
            yield from _missing(f"{here}: kv_precisions", support.kv_precisions, catalog.kv_precisions)
    for name, llm in catalog.llms.items():
        yield from _missing(f"llms: {name}", (llm.native_precision, *llm.precisions), catalog.precisions)
    for name, speculator in catalog.speculators.items():
        yield from _missing(f"speculators: {name}: llms", speculator.llms, catalog.llms)
    for name, profile in catalog.ownership.items():
        where = f"ownership: {name}"
        yield from _missing(where, (*profile.usd_per_accelerator_hour, *profile.critical_w), catalog.accelerators)
        yield from _missing(where, (lot.accelerator for lot in profile.lots), catalog.accelerators)
        places = {profile.site, *(lot.site for lot in profile.lots)} - {""}
        yield from _missing(f"{where}: site", sorted(places), catalog.sites)
    for name, table in catalog.published_economics.items():
        where = f"published_economics: {name}"
        yield from _missing(f"{where}: ownership", (table.ownership,), catalog.ownership)
        for line in table.lines:
            yield from _missing(where, (line.accelerator,), catalog.accelerators)
            yield from _missing(where, (line.precision,), catalog.precisions)
            yield from _missing(where, (line.llm,), catalog.llms)


def _missing(where: str, names: Any, table: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        if name not in table:
            yield f"{where}: {name!r} is not in the catalog"


def _unmultipliable_precisions(catalog: Catalog) -> Iterator[str]:
    for name, framework in catalog.frameworks.items():
        for accelerator_name, support in framework.support.items():
            accelerator = catalog.accelerators.get(accelerator_name)
            for precision_name in support.precisions if accelerator else ():
                precision = catalog.precisions.get(precision_name)
                formats = {precision.ffn_compute, precision.fallback_compute} if precision else set()
                if accelerator and formats and not formats & set(accelerator.dense_flop_per_s):
                    yield (
                        f"frameworks: {name}: support of {accelerator_name}: {precision_name} multiplies in "
                        f"{' or '.join(sorted(formats))}, which the accelerator has no rate for"
                    )


def _implausible_accelerators(catalog: Catalog) -> Iterator[str]:
    for accelerator in catalog.accelerators.values():
        for problem in (*_implausible_rates(accelerator), *_implausible_power(accelerator)):
            yield f"accelerators: {accelerator.name}: {problem}"
        if accelerator.purchase_unit_size % accelerator.accelerators_per_node:
            yield f"accelerators: {accelerator.name}: a rack is not a whole number of nodes"


def _implausible_rates(accelerator: Accelerator) -> Iterator[str]:
    dense = accelerator.dense_flop_per_s
    given = [number_format for number_format in _WIDER_FIRST if number_format in dense]
    for wide, narrow in pairwise(given):
        if dense[wide] > dense[narrow]:
            yield f"dense_tflops: {wide} is faster than {narrow}"
    for number_format, rate in accelerator.sparse_flop_per_s.items():
        if rate < dense.get(number_format, 0.0):
            yield f"sparse_tflops: {number_format} is slower than dense"
    if not 1e10 <= accelerator.memory_bytes <= 4e12:
        yield f"memory of {accelerator.memory_bytes / 1e9:g} GB is implausible"
    if not 1e11 <= accelerator.memory_bytes_per_s <= 1e14:
        yield f"memory bandwidth of {accelerator.memory_bytes_per_s / 1e9:g} GB/s is implausible"
    if not 1e12 <= max(dense.values()) <= 1e18:
        yield f"dense_tflops of {max(dense.values()) / 1e12:g} is implausible"


def _implausible_power(accelerator: Accelerator) -> Iterator[str]:
    watts = [(name, getattr(accelerator, name)) for name in _WATTS_INSIDE_OUT]
    given = [(name, value) for name, value in watts if value is not None]
    for (inner_name, inner), (outer_name, outer) in pairwise(given):
        if inner > outer:
            yield f"{inner_name} of {inner:g} W is above {outer_name} of {outer:g} W"


def _implausible_precisions(catalog: Catalog) -> Iterator[str]:
    for name, precision in catalog.precisions.items():
        for field in ("ffn_bits", "attention_bits", "latent_attention_bits", "other_bits"):
            if not 1 <= getattr(precision, field) <= 32:
                yield f"precisions: {name}: {field} of {getattr(precision, field):g} is implausible"
    for name, kv in catalog.kv_precisions.items():
        if not 1 <= kv.bits <= 32:
            yield f"kv_precisions: {name}: bits of {kv.bits:g} is implausible"


def _implausible_sites(catalog: Catalog) -> Iterator[str]:
    for name, site in catalog.sites.items():
        if site.pue > 3:
            yield f"sites: {name}: pue of {site.pue:g} is implausible"
        if site.usd_per_kwh is not None and site.usd_per_kwh > 1:
            yield f"sites: {name}: usd_per_kwh of {site.usd_per_kwh:g} is implausible"
        if site.carbon_g_per_kwh is not None and site.carbon_g_per_kwh > 1500:
            yield f"sites: {name}: carbon_g_per_kwh of {site.carbon_g_per_kwh:g} is implausible"


def _platforms_of_nothing(catalog: Catalog) -> Iterator[str]:
    known: dict[str, set[str]] = {}
    for accelerator in catalog.accelerators.values():
        known.setdefault(accelerator.vendor, set()).add(accelerator.generation)
    for name, platform in catalog.platforms.items():
        if platform.vendor not in known:
            yield f"platforms: {name}: vendor: no accelerator is of {platform.vendor!r}"
            continue
        for generation in sorted(set(platform.generations) - known[platform.vendor]):
            yield f"platforms: {name}: generations: no accelerator of {platform.vendor} is {generation!r}"


def _implausible_power_readings(catalog: Catalog) -> Iterator[str]:
    for name, reading in catalog.power_readings.items():
        where = f"power_readings: {name}"
        yield from _missing(where, (reading.accelerator,), catalog.accelerators)
        if reading.low_w > reading.high_w:
            yield f"{where}: low_w of {reading.low_w:g} is above high_w of {reading.high_w:g}"
        if (reading.work is PowerWork.CAPPED) is (reading.power_limit_w is None):
            yield f"{where}: power_limit_w is for readings under a cap, which need it"
        accelerator = catalog.accelerators.get(reading.accelerator)
        needed = ("idle_w", "board_w", "server_w")
        for field in (field for field in needed if accelerator and getattr(accelerator, field) is None):
            yield f"{where}: {field} of {reading.accelerator} is not known, without which the reading says nothing"


def _implausible_benchmarks(catalog: Catalog) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for name, benchmark in catalog.benchmarks.items():
        where = f"benchmarks: {name}"
        yield from _missing(where, (benchmark.llm,), catalog.llms)
        for field in ("input_tokens", "output_tokens"):
            mean, most = getattr(benchmark, field), getattr(benchmark, f"max_{field}")
            if most is not None and mean > most:
                yield f"{where}: {field} of {mean:g} is above max_{field} of {most:g}"
        limited = benchmark.ttft_ms is not None or benchmark.tpot_ms is not None
        if limited is (benchmark.scenario is Scenario.OFFLINE):
            yield f"{where}: scenario: {benchmark.scenario} {'has no' if limited else 'needs a'} limit of latency"
        other = seen.setdefault((benchmark.llm, benchmark.scenario), name)
        if other != name:
            yield f"{where}: the same model and scenario as {other}"


def _price_names_without_source(catalog: Catalog) -> Iterator[str]:
    names = catalog.price_names
    used = [(rule.name, rule.source) for rule in names.accelerators]
    used += [(rule.name, rule.source) for rule in names.slices]
    used += [(machine.name, machine.source) for machine in names.machines]
    for name, source in used:
        if source not in catalog.sources:
            yield f"price_names: {name}: source {source!r} is not in sources.yaml"


def _unusable_prices(catalog: Catalog) -> Iterator[str]:
    if any((directory / "prices").is_dir() for directory in catalog.directories):
        try:
            catalog.price_list(["all"])
        except InputError as error:
            yield str(error)


def _unusable_measurements(catalog: Catalog) -> Iterator[str]:
    from tokopt.catalog.measurement_files import measurement_problems

    try:
        yield from measurement_problems(catalog.measurement_folders)
    except CatalogError as error:
        yield str(error)


_RULES: Final[tuple[Callable[[Catalog], Iterator[str]], ...]] = (
    _unknown_files,
    _unknown_sources,
    _clashing_aliases,
    _unknown_references,
    _unmultipliable_precisions,
    _implausible_accelerators,
    _implausible_precisions,
    _implausible_sites,
    _implausible_benchmarks,
    _implausible_power_readings,
    _platforms_of_nothing,
    _price_names_without_source,
    _unusable_prices,
    _unusable_measurements,
)
