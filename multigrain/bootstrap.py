"""How far a mean over queries would move with other queries: 95 % percentile bootstrap.

Q queries, R resamples.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.metrics import MetricError

RESAMPLES = 1000
_LEVELS = (2.5, 97.5)
# Counts drawn at once: 2^22 of them are 32 MiB.
_MAX_COUNTS = 1 << 22

Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Interval(NamedTuple):
    """The 2.5 % and the 97.5 % percentile."""

    low: float
    high: float


class Estimate(NamedTuple):
    """A score over all queries, and the interval in which it lies under other queries."""

    value: float
    interval: Interval


class Difference(NamedTuple):
    """Mean of B less mean of A over the same queries; noise when the interval holds zero."""

    mean: float
    interval: Interval

    @property
    def is_noise(self) -> bool:
        """Whether zero lies within the interval."""
        return self.interval.low <= 0 <= self.interval.high


def mean_interval(values: Values, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Interval of the mean of values [Q], NaN left out; raises MetricError for none."""
    kept = values[~np.isnan(values)]
    if not len(kept):
        raise MetricError("no query has a positive: nothing to score")
    means = [counts @ kept / len(kept) for counts in _blocks(len(kept), seed, resamples)]
    return _interval(np.concatenate(means))


def estimated_mean(values: Values, *, seed: int) -> Estimate:
    """Mean of values [Q], NaN left out, with its interval; raises MetricError for none."""
    interval = mean_interval(values, seed=seed)
    return Estimate(float(np.nanmean(values)), interval)


def statistic_interval(
    statistic: Callable[[Counts], float], num_queries: int, *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Interval of what is no mean: `statistic` gets how often each query was drawn, int64 [Q].

    Draws for which it raises MetricError (nothing right was drawn) are left out; when all do,
    the last error is raised.
    """
    found, last = list[float](), MetricError("no resample was drawn")
    for counts in _blocks(num_queries, seed, resamples):
        for row in counts:
            try:
                found.append(statistic(row))
            except MetricError as error:
                last = error
    if not found:
        raise last
    return _interval(np.array(found))


def paired_difference(
    first: Values, second: Values, *, seed: int, resamples: int = RESAMPLES
) -> Difference:
    """Compare values [Q] of two models on the same queries, drawn together.

    Raises MetricError for other lengths or for queries that only one of them scored.
    """
    if first.shape != second.shape or (np.isnan(first) != np.isnan(second)).any():
        raise MetricError("the two were not scored on the same queries")
    change = second - first
    interval = mean_interval(change, seed=seed, resamples=resamples)
    return Difference(float(np.nanmean(change)), interval)


def _blocks(num_queries: int, seed: int, resamples: int) -> Iterator[Counts]:
    """How often each query is drawn: int64 [r, Q], `resamples` rows in all."""
    random = np.random.default_rng(seed)
    step = max(1, _MAX_COUNTS // num_queries)
    for start in range(0, resamples, step):
        drawn = random.integers(0, num_queries, (min(step, resamples - start), num_queries))
        yield np.stack([np.bincount(row, minlength=num_queries) for row in drawn])


def _interval(values: Values) -> Interval:
    low, high = np.percentile(values, _LEVELS)
    return Interval(float(low), float(high))
