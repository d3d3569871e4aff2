"""The catalog: what is known of hardware, models, prices and places, read when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tokopt.catalog import hardware, rows
from tokopt.catalog.files import Row, read_yaml, validate
from tokopt.catalog.names import KNOWN_ENTRIES, NamedT, checked_name, folded, name_index
from tokopt.catalog.power_settings import AcceleratorTable
from tokopt.domain.accelerators import Accelerator, Framework, KvPrecision, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.economics import PublishedEconomics
from tokopt.domain.expert_traffic import ExpertTraffic
from tokopt.domain.host_times import HostTime
from tokopt.domain.llms import Llm
from tokopt.domain.measurements import MeasurementFamily, PowerReading
from tokopt.domain.offers import Offer, OwnershipProfile, PriceList, PriceSelection
from tokopt.domain.platforms import Platform
from tokopt.domain.power_settings import SEPARATOR
from tokopt.domain.provenance import Source
from tokopt.domain.sites import Site
from tokopt.domain.speculators import Domain, Speculator
from tokopt.domain.workloads import Benchmark, Workload
from tokopt.errors import CatalogError, InputError, unknown_name

if TYPE_CHECKING:
    import polars as pl

    from tokopt.catalog.price_names import PriceNames

RowT = TypeVar("RowT", bound=Row)
RecordT = TypeVar("RecordT")


class Catalog:
    """Tables read from one or several directories; a later directory's entries replace an earlier one's by name.

    Tables are parsed on first use and kept. Names and aliases are matched without case, with spaces and underscores
    read as hyphens. Every table and lookup raises `CatalogError` where a file is wrong: one line, with file and key.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories: tuple[Path, ...] = tuple(directories)
        self._indices: dict[str, dict[str, tuple[str, ...]]] = {}
        self._named_llms: dict[str, Llm] = {}  # by what they were asked for
        self._drafting: dict[tuple[str, Domain | None], tuple[Speculator, ...]] = {}  # for a model and a domain

    def __repr__(self) -> str:
        return f"Catalog({', '.join(str(d) for d in self.directories)})"

    # --- tables ---

    @cached_property
    def sources(self) -> Mapping[str, Source]:
        """Sources, by the key that facts carry."""
        return self._table("sources.yaml", rows.SourceRow, hardware.source_record)

    @cached_property
    def accelerators(self) -> AcceleratorTable:
        """Accelerators by name, in SI; variants such as `NAME@500w` are found too, but not listed."""
        table: dict[str, Accelerator] = {}
        for path in self._files("accelerators", "*.yaml"):
            name = checked_name(path.stem, str(path))
            table[name] = _record(name, rows.AcceleratorRow, hardware.accelerator_record, read_yaml(path), str(path))
        return AcceleratorTable(table)

    @cached_property
    def precisions(self) -> Mapping[str, Precision]:
        """Weight precisions by name."""
        return self._table("precisions.yaml", rows.PrecisionRow, hardware.precision_record)

    @cached_property
    def kv_precisions(self) -> Mapping[str, KvPrecision]:
        """Precisions of the KV cache by name."""
        return self._table("kv_precisions.yaml", rows.KvPrecisionRow, hardware.kv_precision_record)

    @cached_property
    def expert_traffic(self) -> Mapping[str, ExpertTraffic]:
        """How unlike experts are asked for, by name."""
        return self._table("expert_traffic.yaml", rows.ExpertTrafficRow, hardware.expert_traffic_record)

    @cached_property
    def frameworks(self) -> Mapping[str, Framework]:
        """Serving frameworks by name."""
        return self._table("frameworks.yaml", rows.FrameworkRow, hardware.framework_record)

    @cached_property
    def host_times(self) -> Mapping[str, HostTime]:
        """What hosts take for their part of a step, by what they do."""
        return self._table("host_times.yaml", rows.HostTimeRow, hardware.host_time_record)

    @cached_property
    def workloads(self) -> Mapping[str, Workload]:
        """Workloads by name."""
        return self._table("workloads.yaml", rows.WorkloadRow, hardware.workload_record)

    @cached_property
    def speculators(self) -> Mapping[str, Speculator]:
        """Drafters of tokens by name, without the modules that checkpoints ship."""
        from tokopt.catalog.speculators import SpeculatorRow, speculator_record

        record = partial(speculator_record, llm=self.llm, precisions=self.precisions)
        return self._table("speculators.yaml", SpeculatorRow, record)

    def speculators_for(self, llm_name: str, domain: Domain | None) -> tuple[Speculator, ...]:
        """Return the speculators that searches try for texts of a domain; others' entries are not looked at."""
        from tokopt.catalog.speculators import SpeculatorRow, concerns, speculator_record

        if (llm_name, domain) not in self._drafting:
            record = partial(speculator_record, llm=self.llm, precisions=self.precisions)
            wanted = partial(concerns, llm_name=llm_name, domain=domain)
            found = self._table("speculators.yaml", SpeculatorRow, record, wanted=wanted)
            self._drafting[llm_name, domain] = tuple(found.values())
        return self._drafting[llm_name, domain]

    @cached_property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        """Published benchmarks by name: lengths of their requests and limits of latency, one entry a scenario."""
        return self._table("benchmarks.yaml", rows.BenchmarkRow, hardware.benchmark_record)

    @cached_property
    def power_readings(self) -> Mapping[str, PowerReading]:
        """Power that was read while accelerators worked, by name."""
        return self._table("power_readings.yaml", rows.PowerReadingRow, hardware.power_reading_record)

    @cached_property
    def platforms(self) -> Mapping[str, Platform]:
        """What vendors document about their accelerators beyond serving, by name."""
        return self._table("platforms.yaml", rows.PlatformRow, hardware.platform_record)

    @cached_property
    def sites(self) -> Mapping[str, Site]:
        """Sites by name; the first one is the default. Entries of sites.yaml come before rows of sites/*.csv."""
        from tokopt.catalog.sites import read_site_table, site_record

        entries = self._table("sites.yaml", rows.SiteRow, site_record)
        tables = {n: s for path in self._files("sites", "*.csv") for n, s in read_site_table(path).items()}
        regions_last = sorted(tables.items(), key=lambda named: bool(named[1].provider))
        return entries | {name: site for name, site in regions_last if name not in entries}

    def site_of(self, offer: Offer) -> Site | None:
        """Return where an offer's machines stand, None where that is not known."""
        from tokopt.catalog.sites import site_of

        return site_of(offer, self.sites)

    @cached_property
    def published_economics(self) -> Mapping[str, PublishedEconomics]:
        """Published comparisons of cost per token, by name."""
        return self._table("published_economics.yaml", rows.EconomicsRow, hardware.economics_record)

    @cached_property
    def ownership(self) -> Mapping[str, OwnershipProfile]:
        """Ownership profiles by name."""
        from tokopt.catalog.ownership import load_ownership

        return {name: p for folder in self._folders("ownership") for name, p in load_ownership(folder).items()}

    @cached_property
    def llms(self) -> Mapping[str, Llm]:
        """Language models by name: reads every file, which `llm` avoids."""
        from tokopt.catalog.llms import load_llms

        return {name: llm for folder in self._folders("llms") for name, llm in load_llms(folder).items()}

    @cached_property
    def price_list_names(self) -> tuple[str, ...]:
        """Names of the embedded price lists: the providers."""
        files = (path for folder in self._folders("prices") for path in folder.glob("*.csv"))
        return tuple(sorted({path.stem for path in files}))

    @cached_property
    def calibration(self) -> Calibration:
        """The constants of the performance model: the last directory's `calibration/default.yaml`."""
        from tokopt.catalog.calibration_files import load_calibration

        return load_calibration(self._folders("calibration")[-1] / "default.yaml")

    @cached_property
    def priors(self) -> Calibration:
        """What was believed of the constants before any measurement: the embedded `calibration/priors.yaml`."""
        from tokopt.catalog.calibration_files import load_calibration

        return load_calibration(self._folders("calibration")[0] / "priors.yaml")

    @cached_property
    def measurement_families(self) -> Mapping[str, MeasurementFamily]:
        """Families of published measurements by name, which the ids of their rows begin with."""
        from tokopt.catalog.measurement_files import load_families

        return {name: family for folder in self.measurement_folders for name, family in load_families(folder).items()}

    def measurements(self) -> pl.DataFrame:
        """Return the published measurements in the columns of measurement tables, read when first asked for."""
        return self._measurements

    @cached_property
    def _measurements(self) -> pl.DataFrame:
        from tokopt.catalog.measurement_files import load_measurements

        return load_measurements(self.measurement_folders)

    # --- lookups ---

    def accelerator(self, name: str) -> Accelerator:
        """Return an accelerator by name or alias, or a variant of it: `NAME@500w`, `NAME@1200mhz`.

        Raises:
            InputError: No accelerator has that name (the nearest names are given), or it cannot be set like that.
        """
        base, at, setting = name.partition(SEPARATOR)
        found = self._find("accelerator", base, self.accelerators)
        return self.accelerators.variant(found.name, setting) if at else found

    def precision(self, name: str) -> Precision:
        """Return a weight precision by name or alias, or raise InputError."""
        return self._find("precision", name, self.precisions)

    def kv_precision(self, name: str) -> KvPrecision:
        """Return a precision of the KV cache by name or alias, or raise InputError."""
        return self._find("KV precision", name, self.kv_precisions)

    def framework(self, name: str) -> Framework:
        """Return a serving framework by name or alias, or raise InputError."""
        return self._find("framework", name, self.frameworks)

    def workload(self, name: str) -> Workload:
        """Return a workload by name or alias, or raise InputError."""
        return self._find("workload", name, self.workloads)

    def speculator(self, name: str) -> Speculator:
        """Return a speculator by name or alias, or raise InputError."""
        return self._find("speculator", name, self.speculators)

    def benchmark(self, name: str) -> Benchmark:
        """Return a benchmark by name or alias, or raise InputError."""
        return self._find("benchmark", name, self.benchmarks)

    def site(self, name: str) -> Site:
        """Return a site by name or alias, or raise InputError."""
        return self._find("site", name, self.sites)

    def llm(self, name_or_path: str) -> Llm:
        """Return a language model by name or alias, or read it from a Hugging Face `config.json`.

        Args:
            name_or_path: A name, or a path: what ends in `.json` or is an existing file.

        Raises:
            InputError: No model has that name; the nearest names are given.
            CatalogError: The file cannot be read as a model.
        """
        path = Path(name_or_path)
        if path.suffix.lower() == ".json" or path.is_file():
            from tokopt.catalog.huggingface import read_huggingface_config

            return read_huggingface_config(path)
        from tokopt.catalog.llms import load_llm

        if name_or_path in self._named_llms:
            return self._named_llms[name_or_path]
        for folder in reversed(self._folders("llms")):
            try:
                return self._named_llms.setdefault(name_or_path, load_llm(folder, name_or_path))
            except CatalogError:
                raise
            except InputError:
                continue  # not in this directory
        stems = (path.stem for folder in self._folders("llms") for path in folder.glob("*.yaml"))
        raise unknown_name("language model", name_or_path, set(stems))

    def ownership_profile(self, name: str) -> OwnershipProfile:
        """Return an ownership profile by name, with or without the prefix `ownership-`, or raise InputError."""
        wanted = folded(name).removeprefix("ownership-")
        for known, profile in self.ownership.items():
            if folded(known) == wanted:
                return profile
        raise unknown_name("ownership profile", name, self.ownership)

    @cached_property
    def price_names(self) -> PriceNames:
        """What price lists call providers, accelerators and machines; a later directory's rules come first."""
        from tokopt.catalog.price_names import load_price_names

        return load_price_names(self.directories)

    def price_list(
        self,
        names: Sequence[str],
        *,
        rates: Mapping[str, float] | None = None,
        selection: PriceSelection | None = None,
        most_listed: int | None = 100,
        strict: bool = True,
        offers: bool = True,
    ) -> PriceList:
        """Return the offers of price lists: providers, `all`, ownership profiles, files or directories of files.

        Args:
            names: Names and paths.
            rates: Currency -> US dollars for one. [USD]
            selection: Which offers are wanted.
            most_listed: Most rejected rows of one kind that are kept one by one; None = all.
            strict: Raise where a list has no usable price, or a currency without a rate.
            offers: Make a record of every offer of a file; without, they are only counted, in `files`.

        Raises:
            InputError: A name that is no price list, with the nearest ones; a currency that needs a rate.
            CatalogError: A file of which nothing can be used.
        """
        from tokopt.catalog.price_lists import read_price_lists

        return read_price_lists(
            names,
            directories=self._folders("prices"),
            accelerators=self.accelerators,
            ownership=self.ownership,
            sites=self.sites,
            vocabulary=lambda: self.price_names,
            rates=rates,
            selection=selection or PriceSelection(),
            most_listed=most_listed,
            strict=strict,
            offers=offers,
        )

    # --- provenance ---

    @cached_property
    def version(self) -> str:
        """The first twelve hexadecimal digits of a SHA-256 over the paths and bytes of all data files."""
        digest = hashlib.sha256()
        for directory in self.directories:
            for path in sorted(p for p in directory.rglob("*") if p.is_file()):
                content = path.read_bytes()
                digest.update(f"{path.relative_to(directory).as_posix()}\0{len(content)}\0".encode())
                digest.update(content)
        return digest.hexdigest()[:12]

    def check(self) -> list[str]:
        """Load everything and return what is wrong with it, one readable line a problem; empty = nothing."""
        from tokopt.catalog.checks import problems

        return problems(self)

    # --- reading ---

    @property
    def measurement_folders(self) -> tuple[Path, ...]:
        """Directories that hold measurements; a family in a later one replaces an earlier one's."""
        return tuple(self._folders("measurements"))

    def _folders(self, name: str) -> list[Path]:
        return [directory / name for directory in self.directories if (directory / name).is_dir()]

    def _files(self, folder: str, pattern: str) -> Iterable[Path]:
        for directory in self._folders(folder):
            yield from sorted(directory.glob(pattern))

    def _table(
        self,
        file: str,
        row: type[RowT],
        record: Callable[[str, RowT], RecordT],
        *,
        wanted: Callable[[Any], bool] | None = None,
    ) -> dict[str, RecordT]:
        table: dict[str, RecordT] = {}
        for directory in self.directories:
            path = directory / file
            if not path.is_file():
                continue
            for key, data in _entries(path).items():
                name = checked_name(key, str(path))
                if wanted is not None and not wanted(data):
                    table.pop(name, None)  # a later directory's entry replaces an earlier one's
                    continue
                table[name] = _record(name, row, record, data, f"{path}: {name}")
        return table

    def _find(self, kind: str, name: str, table: Mapping[str, NamedT]) -> NamedT:
        index = self._indices.get(kind)
        if index is None:
            index = self._indices[kind] = name_index(table)
        found = index.get(folded(name), ())
        if not found:
            raise unknown_name(kind, name, table)
        if len(found) > 1:
            raise CatalogError(f"{kind} {name!r} is ambiguous: it is an alias of {' and of '.join(found)}")
        return table[found[0]]


def load_catalog(directory: str | Path | None = None) -> Catalog:
    """Return the embedded catalog, overlaid with a directory of one's own.

    Args:
        directory: A directory laid out like the embedded one; its entries replace embedded ones of the same name, or
            are added to them. None = the embedded catalog alone.

    Raises:
        CatalogError: The directory does not exist, or has none of the files that a catalog consists of.
    """
    directories = [_embedded()]
    if directory is not None:
        overlay = Path(directory)
        if not overlay.is_dir():
            raise CatalogError(f"{overlay}: no such directory: a catalog directory is needed")
        if not any((overlay / entry).exists() for entry in KNOWN_ENTRIES):
            raise CatalogError(f"{overlay}: nothing of a catalog in it; it may hold: {', '.join(KNOWN_ENTRIES)}")
        directories.append(overlay)
    return Catalog(directories)


def _embedded() -> Path:
    """Return the catalog in the wheel, else the checkout's."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_catalogs", package.parent.parent / "catalogs"):
        if candidate.is_dir():
            return candidate
    raise CatalogError(f"{package}: the embedded catalog is missing from this installation")


def _record(name: str, row: type[RowT], record: Callable[[str, RowT], RecordT], data: Any, where: str) -> RecordT:
    """Return the record of one entry; `where` is its file and name, for faults."""
    checked = validate(row, data, where=where)
    for field in getattr(checked, "sources", {}):
        if field not in checked.model_fields_set:
            raise CatalogError(f"{where}: sources.{field}: a source without a value")
    try:
        return record(name, checked)
    except CatalogError as error:
        raise CatalogError(f"{where}: {error}") from None


def _entries(path: Path) -> Mapping[Any, Any]:
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise CatalogError(f"{path}: a mapping of names to entries is needed, not {type(content).__name__}")
    return content
