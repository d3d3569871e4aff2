"""`doctor`: whether an installation works, what is missing from it, and what to do about it."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.checkup import Checkup, Finding, Health
from tokopt.version import __version__

from .progress import Progress, silent

EXTRAS = {  # extra -> the modules that it brings, what it is for
    "report": (("matplotlib", "jinja2"), "pictures of reports (--plots) and the HTML report"),
    "web": (("fastapi", "uvicorn"), "the web page (tokopt serve)"),
    "cluster": (("dask", "distributed"), "comparisons on a Dask cluster (compare --cluster)"),
    "silicon": (("aiconfigurator_core",), "a second opinion from NVIDIA's operator database (--perf silicon)"),
}
OLD_PRICES_DAYS = 120
LEAST_MEMORY_GIB = 2.0  # what a whole market over a day takes, with room
SMALL: dict[str, Any] = {"model": "qwen3-8b", "gpus": "h100_sxm", "workload": "chat", "power": "30kW"}  # a plan to try


def doctor(*, catalog: str | None = None, progress: Progress = silent) -> Checkup:
    """Look at this installation: Python, libraries, extras, catalogs, solver, simulator, prices, machine.

    Args:
        catalog: An overlay directory that is checked with the embedded catalog.
        progress: Told what is being looked at.

    Returns:
        Findings; nothing is raised where something does not work.
    """
    looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("Python and libraries", _python),
        ("extras", _extras),
        ("catalogs", lambda: _catalogs(catalog)),
        ("a small plan", lambda: _plan(catalog)),
        ("the simulator", _simulator),
        ("the machine", _machine),
    )
    found: list[Finding] = []
    for number, (what, look) in enumerate(looks):
        progress(f"looking at {what}", number / len(looks))
        try:
            found += look()
        except Exception as error:  # noqa: BLE001  # whatever is broken here is what it is called for
            found.append(Finding(what=what, health=Health.FAULT, found=f"{type(error).__name__}: {error}"))
    return Checkup(findings=tuple(found))


def _python() -> Iterator[Finding]:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding(what="tokopt", health=Health.FINE, found=f"{__version__}, Python {said}, {sys.prefix}")
    broken, versions = [], []
    for line in importlib.metadata.requires("tokopt") or ():
        if "extra ==" in line:
            continue
        name = re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0]
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            broken.append(name)
    if broken:
        mend = f"pip install {' '.join(broken)}"
        yield Finding(what="libraries", health=Health.FAULT, found=f"not installed: {', '.join(broken)}", mend=mend)
    elif versions:
        yield Finding(what="libraries", health=Health.FINE, found=", ".join(versions))


def _extras() -> Iterator[Finding]:
    for extra, (modules, purpose) in EXTRAS.items():
        if all(importlib.util.find_spec(module) is not None for module in modules):
            yield Finding(what=f"extra {extra}", health=Health.FINE, found=f"installed: {purpose}")
        else:
            mend = f"pip install 'tokopt[{extra}]'"
            yield Finding(what=f"extra {extra}", health=Health.MISSING, found=f"not installed: {purpose}", mend=mend)


def _catalogs(overlay: str | None) -> Iterator[Finding]:
    catalog = load_catalog(overlay)
    faults = catalog.check()
    where = f"embedded and {overlay}" if overlay else "embedded"
    counts = f"{len(catalog.accelerators)} accelerators, {len(catalog.llms)} models, {len(catalog.frameworks)} engines"
    if faults:
        mend = f"tokopt catalog check{f' --catalog {overlay}' if overlay else ''} lists all of it"
        yield Finding(what="catalog", health=Health.FAULT, found=f"{where}: {faults[0]}", mend=mend)
    else:
        yield Finding(what="catalog", health=Health.FINE, found=f"{where}, {catalog.version}: {counts}")
    yield _prices(catalog)
    yield Finding(what="calibration", health=Health.FINE, found=catalog.calibration.version)


def _prices(catalog: Catalog) -> Finding:
    dates = [str(offer.as_of) for offer in catalog.price_list(catalog.price_list_names).offers]
    newest = max(date for date in dates if date)
    age = (datetime.date.today() - datetime.date.fromisoformat(newest)).days if len(newest) == 10 else 0
    said = f"{len(catalog.price_list_names)} providers, {len(dates):,} offers, the newest of {newest}"
    if age > OLD_PRICES_DAYS:
        mend = "give current lists with --prices FILE (tokopt prices --help); a newer tokopt may bring newer ones"
        return Finding(what="prices", health=Health.CARE, found=f"{said}: {age} days old", mend=mend)
    return Finding(what="prices", health=Health.FINE, found=said)


def _plan(overlay: str | None) -> Iterator[Finding]:
    from . import plan
    from .checking import check

    before = time.perf_counter()
    found = plan(catalog=overlay, **SMALL)
    took = time.perf_counter() - before
    faults = check(found, catalog=overlay)
    if faults or found.status != "optimal":
        said = faults[0] if faults else f"a small plan is {found.status}"
        yield Finding(what="solver", health=Health.FAULT, found=said, mend="please report it, with this report")
    else:
        said = f"a small plan is solved in {took:.2f} s, and holds when it is checked again"
        yield Finding(what="solver", health=Health.FINE, found=said)


def _simulator() -> Iterator[Finding]:
    from tokopt.simulation.loading import is_kept

    kept = is_kept()
    said = "its machine code is there" if kept else "compiles for about 20 s when it is first used, once"
    yield Finding(what="simulator", health=Health.FINE, found=said)


def _machine() -> Iterator[Finding]:
    memory_gib = _memory_gib()
    said = f"{os.cpu_count()} processors" + (f", {memory_gib:.1f} GiB of memory" if memory_gib else "")
    if memory_gib and memory_gib < LEAST_MEMORY_GIB:
        mend = f"whole markets want {LEAST_MEMORY_GIB:.0f} GiB; single plans take a tenth of that"
        yield Finding(what="machine", health=Health.CARE, found=said, mend=mend)
    else:
        yield Finding(what="machine", health=Health.FINE, found=said)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"tokopt")
    except OSError as error:
        yield Finding(
            what="temporary files", health=Health.FAULT, found=str(error), mend="make room, or set TMPDIR to a place"
        )
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    if "utf" not in encoding:
        mend = "set PYTHONIOENCODING=utf-8, or LANG to a UTF-8 locale"
        yield Finding(what="terminal", health=Health.CARE, found=f"takes {encoding}: some signs are lost", mend=mend)


def _memory_gib() -> float | None:
    """Return the memory of the machine, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None
