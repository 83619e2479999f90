"""What came back of a load on a server: how much, how fast, and at what cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_LUMP_SHARE = 0.2


class Burst(NamedTuple):
    """Answers that came together, as those of a batch do, and seconds since the burst before."""

    num_answers: int
    seconds: float


class Outcome(NamedTuple):
    """Answers and refusals of one load; latencies in seconds, ascending.

    `bursts`: those behind the warm part. `late`: by how much the load was late to send.
    """

    seconds: float
    answered: list[float]
    refused: list[float]
    num_other: int
    bursts: list[Burst]
    batches: list[int]
    cpu_seconds: float
    late: list[float]

    @property
    def rate(self) -> float:
        """Answers a second, behind the warm part."""
        return float(_rate(np.asarray(self.bursts))) if self.bursts else 0.0

    @property
    def mean_batch(self) -> float:
        """Mean size of the batch of an answer, as far as it was told."""
        return float(np.mean(self.batches)) if self.batches else float("nan")

    @property
    def cpu_per_answer(self) -> float:
        """Processor seconds of the server for an answer."""
        return self.cpu_seconds / max(1, len(self.answered))

    def row(self) -> str:
        """Cells of a table: rates, percentiles of milliseconds, mean batch."""
        times = " | ".join(f"{percentile_ms(self.answered, each):.0f}" for each in (50, 95, 99))
        refused = f"{len(self.refused) / self.seconds:.0f}"
        return f"{self.rate:.1f} | {refused} | {times} | {self.mean_batch:.1f}"


def joined(one: Outcome, other: Outcome) -> Outcome:
    """Two loads of one kind as one."""
    return Outcome(
        seconds=one.seconds + other.seconds,
        answered=sorted(one.answered + other.answered),
        refused=sorted(one.refused + other.refused),
        num_other=one.num_other + other.num_other,
        bursts=one.bursts + other.bursts,
        batches=one.batches + other.batches,
        cpu_seconds=one.cpu_seconds + other.cpu_seconds,
        late=sorted(one.late + other.late),
    )


def bursts_of(times: Sequence[float]) -> list[Burst]:
    """Ascending times of answers as bursts: what parts two is a fifth of the longest gap, or more.

    Counted by the clock, a window of few batches would hold one more or less by chance.
    """
    if len(times) < 2:
        return []
    gaps = np.diff(times)
    ends = np.append(np.flatnonzero(gaps >= _LUMP_SHARE * gaps.max()), len(times) - 1)
    seconds = np.diff(np.asarray(times)[ends])
    return [Burst(int(n), float(s)) for n, s in zip(np.diff(ends), seconds, strict=True)]


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """A percentile in milliseconds; NaN of nothing."""
    return 1000 * float(np.percentile(seconds, percent)) if seconds else float("nan")


class Interval(NamedTuple):
    """A ratio and its 95 % interval."""

    ratio: float
    lower: float
    upper: float


def rate_ratio(ours: Sequence[Burst], theirs: Sequence[Burst], *, seed: int = 0) -> Interval:
    """How many times more answers a second; bursts are resampled, as they are not alike."""
    if not ours or not theirs:
        return Interval(float("nan"), float("nan"), float("nan"))
    draw = np.random.default_rng(seed)

    def rates(bursts: Sequence[Burst]) -> NDArray[np.float64]:
        drawn: NDArray[np.float64] = _rate(
            draw.choice(np.asarray(bursts), (_RESAMPLES, len(bursts)))
        )
        return drawn

    lower, upper = np.quantile(rates(ours) / rates(theirs), (0.025, 0.975))
    ratio = _rate(np.asarray(ours)) / _rate(np.asarray(theirs))
    return Interval(float(ratio), float(lower), float(upper))


def _rate(bursts: NDArray[np.float64]) -> Any:
    """Answers a second of bursts [..., N, 2]."""
    totals = bursts.sum(axis=-2)
    return totals[..., 0] / totals[..., 1]
