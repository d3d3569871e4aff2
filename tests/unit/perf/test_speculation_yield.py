"""Tokens a verified step yields: by hand and by drawing."""

import numpy as np
import pytest

from tokopt.perf.constants import acceptance_chances
from tokopt.perf.speculation import accepted_tokens


def test_by_hand() -> None:
    yields = accepted_tokens((0.8, 0.5, 0.25), np.array([0, 1, 2, 3]))
    assert yields == pytest.approx([1.0, 1.8, 1.8 + 0.4, 2.2 + 0.1], rel=1e-12)


def test_the_last_chance_holds_beyond() -> None:
    assert accepted_tokens((0.8, 0.5), np.array([4])) == pytest.approx([1 + 0.8 + 0.4 + 0.2 + 0.1], rel=1e-12)


def test_no_draft_yields_the_one_token() -> None:
    assert accepted_tokens((0.8,), np.array([0, 0])).tolist() == [1.0, 1.0]


def test_against_draws() -> None:
    rng = np.random.default_rng(1)
    accepted = rng.random((200_000, 3)) < np.array([0.85, 0.7, 0.55])
    drawn = 1 + np.cumprod(accepted, axis=1).sum(axis=1).mean()
    assert float(accepted_tokens((0.85, 0.7, 0.55), np.array([3]))[0]) == pytest.approx(drawn, rel=0.005)


def test_order_of_rows_does_not_matter() -> None:
    depths = np.array([3, 0, 2, 1, 3])
    each = [float(accepted_tokens((0.8, 0.6, 0.4), np.array([d]))[0]) for d in depths]
    assert accepted_tokens((0.8, 0.6, 0.4), depths).tolist() == each


@pytest.mark.parametrize("name", ["deepseek-r1", "deepseek-v3", "qwen3-8b"])
def test_catalog_chances_are_chances_that_fall_with_depth(catalog, name: str) -> None:
    chances = acceptance_chances(catalog.calibration, name)
    assert all(0 < c < 1 for c in chances)
    assert list(chances) == sorted(chances, reverse=True)
    # DeepSeek-V3 report, §5.4.3: 85 to 90 % of second tokens are accepted.
    if name.startswith("deepseek"):
        assert 0.85 <= chances[0] <= 0.90
