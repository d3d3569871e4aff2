"""One search for many price lists: screening is done once, however units are sold.

What is on offer decides which sizes of replica earn their place, so candidates are chosen for each set of unit sizes by
itself. They are the very candidates that `find_candidates` returns, to the last digit, because it runs the same two
steps one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tokopt.domain.accelerators import Accelerator
from tokopt.search.candidates import Prepared, SearchReport, choose, prepare
from tokopt.search.space import SearchSpace

Search = Callable[[Accelerator, SearchSpace, tuple[int, ...]], SearchReport]  # the signature of `find_candidates`

MOST_SPACES = 2  # spaces whose searches are remembered: work comes sorted by space
MOST_SLOTS = 400_000  # of the profiles kept of one accelerator, about 25 MB


@dataclass(slots=True)
class _Remembered:
    """Searches within one space, by accelerator."""

    space: SearchSpace
    prepared: dict[str, tuple[Accelerator, Prepared]] = field(default_factory=dict)
    chosen: dict[tuple[str, tuple[int, ...]], SearchReport] = field(default_factory=dict)


class SharedSearch:
    """`find_candidates`, which does not do again what it has done lately. Not for several threads at a time.

    Attributes:
        screenings: How many accelerators were screened so far.
    """

    def __init__(self) -> None:
        self.screenings = 0
        self._spaces: list[_Remembered] = []  # the one that was used last comes last

    def __call__(self, accelerator: Accelerator, space: SearchSpace, unit_sizes: tuple[int, ...]) -> SearchReport:
        """Return what `find_candidates` returns for the same arguments."""
        remembered = self._of(space)
        name = accelerator.name
        known = remembered.prepared.get(name)
        if known is None or known[0] != accelerator:
            remembered.chosen = {key: report for key, report in remembered.chosen.items() if key[0] != name}
            known = remembered.prepared[name] = accelerator, prepare(accelerator, space, most_slots=MOST_SLOTS)
            self.screenings += 1
        key = name, unit_sizes
        report = remembered.chosen.get(key)
        if report is None:
            report = remembered.chosen[key] = choose(known[1], unit_sizes)
        return report

    def _of(self, space: SearchSpace) -> _Remembered:
        """Return what is remembered of a space. Records are compared whole: no field can be forgotten in a key."""
        for place, remembered in enumerate(self._spaces):
            if remembered.space == space:
                self._spaces.append(self._spaces.pop(place))
                return remembered
        self._spaces = [*self._spaces[-MOST_SPACES + 1 :], _Remembered(space)]
        return self._spaces[-1]
