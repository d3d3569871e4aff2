"""Racing: which settings are worth longer looks, after what others did in looks of the same length.

Optuna's pruners know one objective only. Here settings are looked at in rungs, each longer than the one before, as in
successive halving (Jamieson and Talwalkar, AISTATS 2016), but without waiting for others: whoever has come as far is
what a trial is compared with (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure that is to be small, or large."""

    name: str
    maximise: bool = False

    def loss(self, value: float) -> float:
        """Return the figure as one that is to be small."""
        return -value if self.maximise else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How far behind a trial may be.

    `noise` is by how much figures of a rung may be off, by rung; `reach` how much worse in the first goal something may
    be that is better in another.
    """

    noise: tuple[float, ...]
    reach: float = 0.15

    @property
    def rungs(self) -> int:
        """How many looks a trial is given at most."""
        return len(self.noise)


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether losses are nowhere higher than others, and somewhere lower."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def front(losses: Sequence[Sequence[float]]) -> list[bool]:
    """Return which rows no other row dominates."""
    if not losses:
        return []
    table = np.asarray(losses, dtype=float)
    no_worse = (table[:, None, :] <= table[None, :, :]).all(axis=2)
    better = (table[:, None, :] < table[None, :, :]).any(axis=2)
    beaten = np.any(no_worse & better, axis=0)
    return [not each for each in np.atleast_1d(beaten).tolist()]


def behind(loss: float, best: float) -> float:
    """Return by how much a loss is above the best one, relative to it."""
    return (loss - best) / abs(best) if best else loss - best


def gap_of(own: Sequence[float], others: Sequence[Sequence[float]], goals: Sequence[Goal]) -> float:
    """Return by how much figures are worse than the best of others in the first goal, relative to it."""
    loss = goals[0].loss
    return behind(loss(own[0]), min(loss(row[0]) for row in others))


def why_stopped(
    own: Sequence[float], others: Sequence[Sequence[float]], goals: Sequence[Goal], race: Race, rung: int
) -> str:
    """Return why a trial is not worth a longer look; empty = it is.

    It is while it is within the noise of the best in the first goal, or within reach and not dominated by any; but not
    where it does what another does to the last digit, as settings do that are never reached.

    Args:
        own: Its figures in a rung, one a goal.
        others: Those of all other trials there.
        goals: What the figures are; the first decides.
        race: How far behind it may be.
        rung: Of what length the looks were.
    """
    if not others:
        return ""
    if any(tuple(row) == tuple(own) for row in others):
        return "does the same as another, to the last digit"
    losses = [[goal.loss(v) for goal, v in zip(goals, row, strict=True)] for row in (own, *others)]
    gap = gap_of(own, others, goals)
    if gap <= race.noise[rung]:
        return ""
    if gap > race.reach:
        return f"{goals[0].name} is {gap:.0%} worse than the best after as long a look"
    if any(dominates(row, losses[0]) for row in losses[1:]):
        rest = ", and nothing else is better" if len(goals) > 1 else ""
        return f"{goals[0].name} is {gap:.1%} worse than the best after as long a look{rest}"
    return ""
