"""What the catalog holds, as lists and single entries with units and sources, for reading rather than computing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from tokopt.catalog import Catalog
from tokopt.domain.power_settings import SEPARATOR
from tokopt.errors import InputError, unknown_name
from tokopt.perf.counts import parameter_counts

from .setting_facts import setting_lines


class Entry(BaseModel):
    """One line of a list."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    summary: str = ""


class Fact(BaseModel):
    """One value of an entry, where it comes from, and what that source is."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    field: str
    value: str
    source: str = ""
    source_title: str = ""


class Details(BaseModel):
    """One entry, whole."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    table: str
    name: str
    title: str
    facts: tuple[Fact, ...]
    note: str = ""


def tables(catalog: Catalog) -> dict[str, Mapping[str, Any]]:
    """Return the catalog's tables by the name that people type."""
    return {
        "accelerators": catalog.accelerators,
        "models": catalog.llms,
        "precisions": catalog.precisions,
        "kv_precisions": catalog.kv_precisions,
        "frameworks": catalog.frameworks,
        "workloads": catalog.workloads,
        "speculators": catalog.speculators,
        "benchmarks": catalog.benchmarks,
        "platforms": catalog.platforms,
        "sites": catalog.sites,
        "ownership": catalog.ownership,
        "prices": dict.fromkeys(catalog.price_list_names),
        "measurements": catalog.measurement_families,
    }


def entries(catalog: Catalog, table: str | None) -> dict[str, list[Entry]]:
    """Return the entries of a table, or of all of them.

    Raises:
        InputError: There is no such table.
    """
    known = tables(catalog)
    if table is not None and table not in known:
        raise unknown_name("table", table, known)
    wanted = {table: known[table]} if table is not None else known
    return {name: [_entry(name, key, record) for key, record in rows.items()] for name, rows in wanted.items()}


def _entry(table: str, name: str, record: Any) -> Entry:
    if record is None:
        return Entry(name=name, title=f"price list of {name}")
    describe = SUMMARIES.get(table)
    return Entry(
        name=name,
        title=getattr(record, "title", "") or name,
        aliases=tuple(getattr(record, "aliases", ())),
        summary=describe(record) if describe else "",
    )


def _accelerator_line(record: Any) -> str:
    peak = ", ".join(f"{fmt.value} {rate / 1e12:,.0f}" for fmt, rate in record.dense_flop_per_s.items())
    return f"{record.memory_bytes / 2**30:,.0f} GiB, {record.memory_bytes_per_s / 1e12:.2f} TB/s, TFLOPS {peak}"


def _llm_line(record: Any) -> str:
    counts = parameter_counts(record)
    active = "" if counts.active == counts.total else f", {counts.active / 1e9:,.1f} B active"
    return f"{counts.total / 1e9:,.1f} B parameters{active}, {', '.join(record.precisions)}"


def _workload_line(record: Any) -> str:
    return f"{record.input_tokens:,.0f} in, {record.output_tokens:,.0f} out"


def _speculator_line(record: Any) -> str:
    drafts_for = ", ".join(record.llms) or "any model"
    named = "" if record.recommended else ", only where it is named"
    return f"{record.method.value} for {drafts_for}, at most {record.deepest} drafts a step{named}"


def _site_line(record: Any) -> str:
    price = "" if record.usd_per_kwh is None else f"${record.usd_per_kwh:.3f}/kWh"
    if record.usd_per_kwh_by_hour:
        price += f" ({min(record.usd_per_kwh_by_hour):.3f} to {max(record.usd_per_kwh_by_hour):.3f} by hour)"
    carbon = "" if record.carbon_g_per_kwh is None else f"{record.carbon_g_per_kwh:,.0f} g/kWh"
    return ", ".join(part for part in (f"PUE {record.pue:g}", price, carbon) if part)


def _ownership_line(record: Any) -> str:
    if record.usd_per_accelerator_hour:
        return f"published USD an hour of {len(record.usd_per_accelerator_hour)} accelerators, {record.market.value}"
    return f"computed from components of {len(record.lots)} accelerators, {record.market.value}"


def _platform_line(record: Any) -> str:
    generations = f" ({', '.join(record.generations)})" if record.generations else ""
    return f"{record.vendor}{generations}: {', '.join(s.value.replace('_', '-') for s in record.stages)}"


SUMMARIES: dict[str, Callable[[Any], str]] = {
    "accelerators": _accelerator_line,
    "models": _llm_line,
    "workloads": _workload_line,
    "speculators": _speculator_line,
    "platforms": _platform_line,
    "sites": _site_line,
    "ownership": _ownership_line,
}


def entry(catalog: Catalog, name: str) -> Details:
    """Return one entry of the first table that has it, or of the table that is named: `kv_precisions/fp8`.

    Raises:
        InputError: No table has it.
    """
    lookups: dict[str, Callable[[str], Any]] = {
        "accelerators": catalog.accelerator,
        "models": catalog.llm,
        "precisions": catalog.precision,
        "frameworks": catalog.framework,
        "workloads": catalog.workload,
        "speculators": catalog.speculator,
        "benchmarks": catalog.benchmark,
        "sites": catalog.site,
        "ownership": catalog.ownership_profile,
        "kv_precisions": catalog.kv_precision,
    }
    table, slash, rest = name.partition("/")
    if slash and table in lookups:
        return _details(catalog, table, lookups[table](rest))
    for table, find in lookups.items():
        try:
            record = find(name)
        except InputError:
            continue
        return _details(catalog, table, record)
    if name in catalog.measurement_families:
        return _details(catalog, "measurements", catalog.measurement_families[name])
    if name in catalog.platforms:
        return _details(catalog, "platforms", catalog.platforms[name])
    if name in catalog.price_list_names:
        return _price_list(catalog, name)
    if SEPARATOR in name:
        catalog.accelerator(name)  # says what is wrong with the setting
    known = [key for rows in tables(catalog).values() for key in rows]
    raise unknown_name("catalog entry", name, known)


def _details(catalog: Catalog, table: str, record: Any) -> Details:
    sources: Mapping[str, str] = getattr(record, "sources", {}) or {}
    default = getattr(record, "source", "")
    facts: list[Fact] = []
    for field in type(record).__dataclass_fields__:
        if field in ("name", "title", "sources", "source", "note", "throttle", "power_settings", "power_curve"):
            continue
        value = getattr(record, field)
        if value in (None, (), "", {}):
            continue
        if field in NESTED:
            nested = NESTED[field](value)
            facts.extend(f.model_copy(update={"source_title": _title(catalog, f.source)}) for f in nested)
            continue
        key = _source_of(field, sources) or default
        facts.append(Fact(field=field, value=_written(field, value), source=key, source_title=_title(catalog, key)))
    if table == "models":
        facts.extend(_counted(record))
    if table == "accelerators":
        facts.extend(
            Fact(field=name, value=value, source=source, source_title=_title(catalog, source))
            for name, value, source in setting_lines(catalog, record)
        )
    return Details(
        table=table,
        name=record.name,
        title=getattr(record, "title", "") or record.name,
        facts=tuple(facts),
        note=getattr(record, "note", ""),
    )


def _layer_facts(groups: Any) -> list[Fact]:
    facts = []
    for number, group in enumerate(groups, 1):
        a, f = group.attention, group.feed_forward
        window = f", window {a.window:,}" if a.window else ""
        latent = f", latent {a.latent_dim}" if a.latent_dim else ""
        ffn = f"{f.experts} experts, {f.active_experts} active" if f.experts else "dense"
        said = (
            f"{group.count} x {a.kind.value} attention ({a.heads} heads, {a.kv_heads} KV heads{window}{latent}), {ffn}"
        )
        facts.append(Fact(field=f"layers {number}", value=said))
    return facts


def _keys(support: Any) -> str:
    return ", ".join(dict.fromkeys((support.source, *support.feature_sources.values())))


def _support_facts(support: Mapping[str, Any]) -> list[Fact]:
    return [
        Fact(field=f"on {name}", value=f"{', '.join(s.precisions)}; {', '.join(s.features)}", source=_keys(s))
        for name, s in support.items()
    ]


def _lot_facts(lots: Any) -> list[Fact]:
    facts = []
    for lot in lots:
        parts = [(name, getattr(lot.capex, name)) for name in ("server", "network", "storage", "install", "undivided")]
        said = [f"{name} ${usd:,.0f}" for name, usd in parts if usd]
        stock = f"{lot.available_units:,} units" if lot.available_units is not None else ""
        since = f"from {lot.available_from}" if lot.available_from else ""
        more = [part for part in (stock, since, lot.site, "paid for" if lot.sunk else "") if part]
        label = f"{lot.accelerator}{' ' + lot.name if lot.name else ''}"
        facts.append(Fact(field=f"capex of {label}", value=", ".join((*said, *more))))
    return facts


def _drafter_facts(drafter: Any) -> list[Fact]:
    size = f"{parameter_counts(drafter).total / 1e6:,.0f} M parameters"
    facts = [Fact(field="drafter", value=f"{drafter.name}, {size}", source="computed from the architecture")]
    return [*facts, *_layer_facts(drafter.layers)]


def _acceptance_facts(acceptance: Mapping[Any, Any]) -> list[Fact]:
    return [
        Fact(
            field=f"acceptance of {domain.value}",
            value=f"{', '.join(f'{chance:.2f}' for chance in each.chances)} ({each.basis.value}"
            f"{': ' if each.note else ''}{each.note})",
            source=each.source,
        )
        for domain, each in acceptance.items()
    ]


NESTED: dict[str, Callable[[Any], list[Fact]]] = {
    "layers": _layer_facts,
    "support": _support_facts,
    "lots": _lot_facts,
    "drafter": _drafter_facts,
    "precision": lambda precision: [Fact(field="precision", value=precision.name)],
    "acceptance": _acceptance_facts,
    "stages": lambda stages: [
        Fact(field=f"{stage.value.replace('_', ' ')}", value=said.words, source=said.source)
        for stage, said in stages.items()
    ],
    "listed_models": lambda listed: [Fact(field="listed models", value=listed.words, source=listed.source)],
}


def _counted(record: Any) -> list[Fact]:
    counts = parameter_counts(record)
    said = "computed from the architecture"
    return [
        Fact(field="total parameters", value=f"{counts.total / 1e9:,.2f} B", source=said),
        Fact(field="active parameters", value=f"{counts.active / 1e9:,.2f} B", source=said),
    ]


def _source_of(field: str, sources: Mapping[str, str]) -> str:
    """Return the source of a field; catalogs name fields with human units, records in SI, so stems are compared."""
    stem = field.removesuffix("_per_s").removesuffix("_bytes").removesuffix("_flop").removesuffix("_w")
    # A capacity that the driver reports stands before the vendor's round one.
    wanted = (field, f"{stem}_gib", f"{stem}_gb", f"{stem}_kw", f"{stem}_w", f"{stem}_tflops", f"{stem}_gb_per_s")
    found = [key for key in wanted if key in sources] or [key for key in sources if key.startswith(stem)]
    return sources[found[0]] if found else ""


def _title(catalog: Catalog, key: str) -> str:
    source = catalog.sources.get(key)
    return f"{source.title} ({source.publisher}, {source.retrieved_on})" if source else ""


def _written(field: str, value: Any) -> str:
    """Return a value in the units that people read, told by the field's suffix."""
    if isinstance(value, Mapping):
        return ", ".join(f"{getattr(k, 'value', k)} {_written(field, v)}" for k, v in value.items())
    if isinstance(value, (tuple, list)):
        return ", ".join(str(getattr(v, "name", v)) if not hasattr(v, "count") else str(v) for v in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(getattr(value, "value", value))
    scales = (
        ("_bytes_per_s", 1e9, "GB/s"),
        ("_flop_per_s", 1e12, "TFLOPS"),
        ("_bytes", 2**30, "GiB"),
        ("_w", 1.0, "W"),
    )
    for suffix, scale, unit in scales:
        if field.endswith(suffix):
            return f"{value / scale:,.4g} {unit}" if scale == 1.0 else f"{value / scale:,.6g} {unit}"
    if isinstance(value, float) and abs(value) >= 1e6:
        return f"{value:,.0f}"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"


def _price_list(catalog: Catalog, name: str) -> Details:
    prices = catalog.price_list([name])
    lowest: dict[tuple[str, str], Any] = {}
    for offer in prices.offers:
        key = (offer.accelerator, offer.market.value)
        if key not in lowest or offer.usd_per_accelerator_hour < lowest[key].usd_per_accelerator_hour:
            lowest[key] = offer
    facts = [
        Fact(
            field=f"{accelerator} {market}",
            value=f"from ${offer.usd_per_accelerator_hour:,.2f} an accelerator-hour ({offer.instance_type}"
            f"{', ' + offer.region if offer.region else ''})",
            source=offer.source,
            source_title=offer.as_of,
        )
        for (accelerator, market), offer in sorted(lowest.items())
    ]
    rejected = sum(prices.rejected_counts.values())
    return Details(
        table="prices",
        name=name,
        title=f"price list of {name}, {len(prices.offers)} offers, {rejected} rows not used",
        facts=tuple(facts),
        note=f"as of {prices.as_of}",
    )
