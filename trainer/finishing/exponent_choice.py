"""Choose the exponent p* among those tried, and keep what was seen.

n queries of a kind.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.finishing.validate import Values


class Trial(NamedTuple):
    """One exponent: the means of its scores, the mean they are chosen by, and whether it ties.

    `ties` says that the best one's lead over it is within one standard error.
    """

    p: float
    scores: dict[str, float]
    mean: float
    ties: bool


class Choice(NamedTuple):
    """The exponent chosen for one size, the one trained with, and all that were tried."""

    size: int
    trained: float
    chosen: float
    num_photos: int
    seconds: float
    trials: tuple[Trial, ...]


def criteria_of(values: Values) -> tuple[str, ...]:
    """Return the scores an exponent is chosen by: one of classes, if any, and one of copies.

    top1 where there is a classifier, else class AP; `copy_ap` says more than recall at 1,
    which is perfect on many small sets.
    """
    of_classes = next((name for name in ("top1", "class_ap") if name in values), None)
    of_copies = "copy_ap" if "copy_ap" in values else None
    return tuple(name for name in (of_classes, of_copies) if name is not None)


def tried(exponents: Sequence[float], values: Sequence[Values]) -> tuple[Trial, ...]:
    """Return the trials of exponents from their values a query, equal queries at every one.

    An exponent is judged by the mean of its criteria. A lead counts when it exceeds one
    standard error of the differences between the same queries: on a small set the largest
    mean is chance.
    """
    names = criteria_of(values[0])
    means = [_mean([found[name] for name in names]) for found in values]
    best = max(range(len(means)), key=means.__getitem__)
    return tuple(
        Trial(
            p=p,
            scores={name: float(value.mean()) for name, value in found.items()},
            mean=mean,
            ties=means[best] - mean
            <= _error_of_mean([values[best][name] - found[name] for name in names]) + _ROUNDING,
        )
        for p, found, mean in zip(exponents, values, means, strict=True)
    )


def choose(trials: Sequence[Trial], *, trained: float) -> float:
    """Return the exponent nearest to the trained one among those that tie with the best."""
    return min((trial.p for trial in trials if trial.ties), key=lambda p: abs(p - trained))


_ROUNDING = 1e-12


def _mean(columns: Sequence[Tensor]) -> float:
    return sum(float(column.mean()) for column in columns) / len(columns)


def _error_of_mean(columns: Sequence[Tensor]) -> float:
    """Return the standard error of the mean of the columns' means [n], each of its own length."""
    variance = sum(float(torch.var(column, correction=0)) / len(column) for column in columns)
    return float(variance**0.5 / len(columns))
