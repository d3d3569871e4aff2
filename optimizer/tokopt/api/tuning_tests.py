"""Tests: settings that look better are simulated again beside the planned ones, on requests that no trial has seen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokopt.domain.tuning import Aim, Sure, TestedSettings
from tokopt.errors import InputError
from tokopt.search.highest_load import LEAST_LOAD
from tokopt.search.knobs import Settings
from tokopt.simulation.statistics import half_width

from .progress import Progress, silent
from .tuning_knobs import ItemKnobs, Setup
from .tuning_scores import TEST_SEED, Context, Figures, ItemFigures, counted, test_length
from .tuning_search import KILLED

if TYPE_CHECKING:
    from optuna import Study

FINALISTS = 3  # settings that are tested at most
CONFIDENCE = 1.0 - 0.05 / FINALISTS  # of one of them, so that all together are wrong in one of twenty cases at most
TESTED = "tokopt:tested:"
LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """Settings and what they did in each replication."""

    setup: Setup
    runs: tuple[Figures, ...]

    @property
    def loads(self) -> list[float]:
        """Highest loads that keep the limits."""
        return [run.load for run in self.runs]


def one_run(context: Context, settings: Settings, replication: int, start: float) -> Figures:
    """Return what settings do in one replication of a test."""
    knobs = context.knobs()
    setup = knobs.setup(settings)
    assert not isinstance(setup, str)
    return _run(ItemFigures(context, knobs), setup, replication, start)


def _run(figures: ItemFigures, setup: Setup, replication: int, start: float) -> Figures:
    asked = figures.context.settings
    return figures.of(
        setup,
        test_length(asked),
        seed=asked.seed + TEST_SEED,
        replication=replication,
        start=start,
        beat=lambda: None,
    )


class Testing:
    """Tests settings of an item, here or in processes; what is known already is taken from the study."""

    def __init__(self, context: Context, knobs: ItemKnobs, study: Study, pool: Executor | None) -> None:
        self._context, self._knobs, self._study, self._pool = context, knobs, study, pool
        self._figures = ItemFigures(context, knobs)

    def test(self, settings: Settings, start: float, what: str, progress: Progress = silent) -> Tested:
        """Return what settings do in all replications of a test."""
        setup = self._knobs.setup(settings)
        assert not isinstance(setup, str)
        key = TESTED + json.dumps({k: setup.settings[k] for k in sorted(setup.settings)}, sort_keys=True)
        known = self._study.user_attrs.get(key)
        if known is not None:
            return Tested(setup=setup, runs=tuple(_figures(each) for each in known))
        count = self._context.settings.replications
        if self._pool is None:
            runs: list[Figures] = []
            for n in range(count):
                progress(f"{what}: replication {n + 1} of {count}", n / count)
                runs.append(_run(self._figures, setup, n, runs[-1].load if runs else start))
        else:
            runs = self._apart(settings, start, what, progress)
        self._study.set_user_attr(key, [_kept(run) for run in runs])
        return Tested(setup=setup, runs=tuple(runs))

    def _apart(self, settings: Settings, start: float, what: str, progress: Progress) -> list[Figures]:
        """Return what settings do, of replications in processes.

        Raises:
            InputError: A process was killed.
        """
        assert self._pool is not None
        count = self._context.settings.replications
        try:
            futures: list[Future[Figures]] = [
                self._pool.submit(one_run, self._context, dict(settings), n, start) for n in range(count)
            ]
            left = set(futures)
            while left:
                done, left = wait(left, timeout=LOOK_S)
                for future in done:
                    future.result()
                progress(f"{what}: {count - len(left)} of {count} replications", 1.0 - len(left) / count)
            return [future.result() for future in futures]
        except BrokenExecutor:
            raise InputError(KILLED) from None


def _kept(run: Figures) -> dict[str, object]:
    return {
        "load": run.load,
        "values": {aim.value: value if math.isfinite(value) else None for aim, value in run.values.items()},
        "p99_ms": dict(run.p99_ms),
        "requests": run.requests,
        "missed": run.missed,
    }


def _figures(kept: Mapping[str, object]) -> Figures:
    values: Mapping[str, float | None] = kept["values"]  # type: ignore[assignment]
    return Figures(
        load=float(kept["load"]),  # type: ignore[arg-type]
        values={Aim(name): math.nan if value is None else value for name, value in values.items()},
        p99_ms=kept["p99_ms"],  # type: ignore[arg-type]
        requests=int(kept["requests"]),  # type: ignore[call-overload]
        missed=str(kept["missed"]),
    )


# --- what follows from tests ---


def gain(aim: Aim, planned: Tested, tuned: Tested) -> Sure:
    """Return by how much an aim is better, of paired replications; positive = better.

    Relative, in tokens for the same money where the aim is cost; of goodput it is the difference.
    """
    each = [_gain(aim, a, b) for a, b in zip(planned.runs, tuned.runs, strict=True)]
    return Sure(value=_mean(each), plus_minus=half_width(each, CONFIDENCE))


def _gain(aim: Aim, planned: Figures, tuned: Figures) -> float:
    if aim is Aim.COST:
        return max(tuned.load, LEAST_LOAD) / max(planned.load, LEAST_LOAD) - 1.0
    before, after = counted(aim, planned.values[aim]), counted(aim, tuned.values[aim])
    if aim is Aim.GOODPUT:
        return after - before
    return 1.0 - after / before if before else 0.0


def is_better(aim: Aim, planned: Tested, tuned: Tested) -> bool:
    """Whether settings are better beyond chance, and keep the limits wherever the planned ones do."""
    found = gain(aim, planned, tuned)
    if found.plus_minus is None or not found.value - found.plus_minus > 0.0:
        return False
    return _mean(tuned.loads) >= min(_mean(planned.loads), 1.0) * (1.0 if aim is Aim.COST else 0.99)


def low_load(tested: Tested) -> float:
    """Return the load that settings keep the limits at for sure, as far as replications can tell.

    The lower end of the confidence interval, but not below what was kept in every replication.
    """
    return max(_mean(tested.loads) - (half_width(tested.loads) or 0.0), min(tested.loads))


def stated(tested: Tested, figures: ItemFigures) -> TestedSettings:
    """Return what was found of settings."""

    def of(values: Sequence[float]) -> Sure:
        return Sure(value=_mean(values), plus_minus=half_width(values))

    def tail(name: str) -> Sure | None:
        known = [run.p99_ms[name] for run in tested.runs if name in run.p99_ms]
        return of(known) if len(known) == len(tested.runs) else None

    joules = [run.values[Aim.ENERGY] for run in tested.runs]
    return TestedSettings(
        settings=tested.setup.shown,
        load=of(tested.loads),
        requests_per_s=of([load * figures.planned_rate for load in tested.loads]),
        usd_per_million_output_tokens=of([run.values[Aim.COST] for run in tested.runs]),
        goodput=of([run.values[Aim.GOODPUT] for run in tested.runs]),
        p99=of([run.values[Aim.P99] for run in tested.runs]),
        ttft_p99_ms=tail("ttft"),
        tpot_p99_ms=tail("tpot"),
        joules_per_output_token=of(joules) if all(map(math.isfinite, joules)) else None,
        model_requests_per_s=tested.setup.candidate.capacity_requests_per_s,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
