"""Knobs: what a tuner may turn, and the settings that all of them together span."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float
Settings = Mapping[str, Value]
Place = tuple[int, ...]  # number of each knob's value


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A setting and the values that it may have; those of an ordered one say which are near to one another."""

    name: str
    values: tuple[Value, ...]
    ordered: bool = True

    def place(self, value: Value) -> int:
        """Return the number of a value.

        Raises:
            ValueError: It is not one of the knob's.
        """
        return self.values.index(value)


@dataclass(frozen=True)
class KnobSpace:
    """All settings that knobs span. A knob with one value is none: it has no place here."""

    knobs: tuple[Knob, ...]

    @cached_property
    def size(self) -> int:
        """How many settings there are."""
        return math.prod(len(knob.values) for knob in self.knobs)

    def place(self, settings: Settings) -> Place:
        """Return the numbers of settings' values, in the order of the knobs."""
        return tuple(knob.place(settings[knob.name]) for knob in self.knobs)

    def at(self, place: Sequence[int]) -> dict[str, Value]:
        """Return the settings at a place."""
        return {knob.name: knob.values[n] for knob, n in zip(self.knobs, place, strict=True)}

    def every(self) -> Iterator[Place]:
        """Yield every place, the last knob turning first."""
        for number in range(self.size):
            yield self.numbered(number)

    def numbered(self, number: int) -> Place:
        """Return a place by its number."""
        found = []
        for knob in reversed(self.knobs):
            number, n = divmod(number, len(knob.values))
            found.append(n)
        return tuple(reversed(found))

    def neighbours(self, place: Place) -> Iterator[Place]:
        """Yield the places that differ in one knob."""
        for k, knob in enumerate(self.knobs):
            for n in range(len(knob.values)):
                if n != place[k]:
                    yield (*place[:k], n, *place[k + 1 :])

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the knobs as Optuna takes them: numbers of values, which are categories where they have no order."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return {
            knob.name: IntDistribution(0, len(knob.values) - 1)
            if knob.ordered
            else CategoricalDistribution(range(len(knob.values)))
            for knob in self.knobs
        }

    def params(self, place: Place) -> dict[str, int]:
        """Return a place as a trial's parameters."""
        return {knob.name: n for knob, n in zip(self.knobs, place, strict=True)}

    def place_of(self, params: Mapping[str, object]) -> Place | None:
        """Return the place of a trial's parameters; None where they are of other knobs."""
        if set(params) != {knob.name for knob in self.knobs}:
            return None
        return tuple(int(params[knob.name]) for knob in self.knobs)  # type: ignore[call-overload]
