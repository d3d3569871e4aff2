"""Build the embedded constants: `catalogs/calibration/default.yaml`, fitted to the embedded measurements.

    python tools/build_calibration.py [--date YYYY-MM-DD] [--out FILE] [--processes N] [--check]

The fit starts from `catalogs/calibration/priors.yaml`. The date is that of the file that is there, unless another is
given; everything else follows from the catalog and the code. `--check` fits without cross-validation, which is where
nearly all of the time goes, and compares constants and effects with those of the file; its exit status is 1 where they
differ by more than a change of libraries explains.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
from pathlib import Path

from tokopt.api import calibrate
from tokopt.catalog.calibration_files import load_calibration
from tokopt.domain.calibration import Calibration
from tokopt.perf.constants import linked

CATALOGS = Path(__file__).parents[1] / "catalogs"
BUILT = CATALOGS / "calibration" / "default.yaml"
# On the scale of a constant's link. A fit stops where the loss hardly falls, not at the last digit of its constants, so
# another version of a library may end a little elsewhere: by less than a standard deviation of the constant.
TOLERANCE = 0.05
TOLERANCE_SDS = 0.5


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--date", type=day, help="date to write down (default: that of the file)")
    parser.add_argument("--out", type=Path, default=BUILT, help="file to write (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    asked = parser.parse_args(arguments)
    if asked.check:
        found = differences(load_calibration(BUILT), refitted())
        print("\n".join(found) or f"{BUILT.name} is what the fit makes")
        return 1 if found else 0
    made_on = asked.date or (load_calibration(BUILT).made_on if BUILT.exists() else datetime.date.today().isoformat())
    report = calibrate(
        out=asked.out,
        base="priors",
        name="default",
        made_on=made_on,
        processes=asked.processes,
        progress=told,
    )
    print(f"{report.used:,} of {report.rows:,} rows, {report.effects:,} effects, {report.seconds:.0f} s: {asked.out}")
    for row in report.errors:
        print("  ", ", ".join(f"{key} {value}" for key, value in row.items()))
    return 0


def day(text: str) -> str:
    return datetime.date.fromisoformat(text).isoformat()


def told(doing: str, done: float) -> None:
    print(f"{done:4.0%}  {doing}", file=sys.stderr, flush=True)


def refitted() -> Calibration:
    """Return what the fit makes of the embedded measurements, without cross-validation."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "default.yaml"
        calibrate(out=out, base="priors", name="default", made_on="2000-01-01", validated=False)
        return load_calibration(out)


def differences(built: Calibration, made: Calibration) -> list[str]:
    """Return a line for all in which two calibrations differ: data, values, effects."""
    found = []
    if built.data_hash != made.data_hash:
        found.append(f"data_hash: {built.data_hash} was built from other measurements than these, {made.data_hash}")
    for name, entry in built.entries.items():
        other = made.entries[name]
        step = abs(float(linked(other.value, other.link)) - float(linked(entry.value, entry.link)))
        if step > TOLERANCE + TOLERANCE_SDS * (entry.sd or entry.spread):
            found.append(f"{name}: {entry.value:g} in the file, {other.value:g} made")
    shifts = [{(e.constant, e.trait, e.level): e for e in calibration.effects} for calibration in (built, made)]
    for key in sorted(shifts[0].keys() | shifts[1].keys()):
        one, other = (each[key].shift if key in each else 0.0 for each in shifts)
        sd = max(each[key].sd for each in shifts if key in each)
        if abs(one - other) > TOLERANCE + TOLERANCE_SDS * sd:
            found.append(f"{' '.join(key)}: {one:+.4f} in the file, {other:+.4f} made")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
