"""The machine code of the inner loop: whether it is there from before, and having it there before it is needed."""

from __future__ import annotations

from pathlib import Path

from tokopt.simulation.building import Fleet
from tokopt.simulation.loop import inner_loop
from tokopt.simulation.replication import Window, replicate


def is_kept() -> bool:
    """Return whether an earlier process left machine code that is younger than every module of this room."""
    where = Path(str(inner_loop().stats.cache_path))  # type: ignore[attr-defined]
    made = [file.stat().st_mtime for file in where.glob("*inner_loop*.nbi")]
    return bool(made) and max(made) >= max(file.stat().st_mtime for file in Path(__file__).parent.glob("*.py"))


def load(fleet: Fleet) -> None:
    """Load the machine code, or make it; a fleet to which nobody comes is what it is tried with."""
    replicate(fleet, (), Window(start_s=0.0, end_s=0.0), seed=0)
