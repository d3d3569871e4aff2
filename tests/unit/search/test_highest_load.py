"""The highest load that keeps limits, looked for where the truth is known."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest

from tokopt.search.highest_load import LEAST_LOAD, MOST_LOAD, highest_load


class Look(NamedTuple):
    load: float
    worst: float


@pytest.mark.parametrize("limit", [0.05, 0.31, 0.97, 1.0, 1.04, 2.7])
@pytest.mark.parametrize("start", [0.2, 1.0, 3.0])
def test_the_highest_load_is_found_to_its_tolerance(limit: float, start: float) -> None:
    looks = []

    def look(load: float) -> Look:
        looks.append(load)
        worst = math.inf if load > 1.1 * limit else 0.5 + 0.5 * (load / limit) ** 12
        return Look(load, worst)

    found, seen = highest_load(look, start, 0.01)
    assert found == pytest.approx(limit, rel=0.011)
    assert len(seen) == len(looks) <= 14


def test_where_no_load_keeps_the_limits_there_is_none() -> None:
    def look(load: float) -> Look:
        return Look(load, 2.0)

    assert highest_load(look, 1.0, 0.01)[0] == 0.0


def test_where_every_load_keeps_the_limits_it_is_the_highest_that_is_tried() -> None:
    assert highest_load(lambda load: Look(load, 0.5), 1.0, 0.01)[0] == MOST_LOAD
    assert highest_load(lambda load: Look(load, 0.5 if load <= LEAST_LOAD else 2.0), 0.01, 0.01)[0] >= LEAST_LOAD
