"""Bootstrap intervals: where they lie, how wide they are, and what they call noise."""

import numpy as np
import pytest

from multigrain.bootstrap import mean_interval, paired_difference, statistic_interval
from multigrain.metrics import MetricError


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    """Mean plus and minus 1.96 standard errors, NaN left out, the same for the same seed."""
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = mean_interval(np.append(values, np.nan), seed=1)
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx(
        (values.mean() - error, values.mean() + error), abs=0.15 * error
    )
    assert (low, high) == mean_interval(np.append(values, np.nan), seed=1)


def test_a_statistic_is_drawn_like_a_mean() -> None:
    """Given as a function of how often each query was drawn."""
    values = np.random.default_rng(0).random(60)
    drawn = statistic_interval(lambda counts: float(counts @ values / 60), 60, seed=4)
    assert drawn == pytest.approx(mean_interval(values, seed=4))


def test_a_statistic_that_no_draw_has_is_an_error() -> None:
    """The reason is passed on."""

    def refuse(_counts: object) -> float:
        raise MetricError("nothing right was drawn")

    with pytest.raises(MetricError, match="nothing right"):
        statistic_interval(refuse, 3, seed=0, resamples=5)


def test_a_small_steady_gain_is_told_from_noise() -> None:
    """Paired: the spread between queries is in both and does not hide the gain."""
    random = np.random.default_rng(0)
    first = random.random(300)
    better = paired_difference(first, first + 0.01 + random.normal(0, 0.02, 300), seed=0)
    same = paired_difference(first, first + random.normal(0, 0.02, 300), seed=0)
    assert better.mean == pytest.approx(0.01, abs=0.005)
    assert (better.is_noise, same.is_noise) == (False, True)


def test_other_queries_are_not_compared() -> None:
    """A pair needs both values."""
    with pytest.raises(MetricError, match="same queries"):
        paired_difference(np.zeros(3), np.zeros(4), seed=0)
    with pytest.raises(MetricError, match="same queries"):
        paired_difference(np.zeros(2), np.array([0, np.nan]), seed=0)
