"""The learning rate as a pure function of how far training has come."""

import math
from typing import Literal, NamedTuple

Schedule = Literal["cosine", "linear", "steps", "polynomial", "exponential", "constant"]


class RateCourse(NamedTuple):
    """A learning rate's course; places are fractions [0, 1] of training, rates shares of the peak.

    `drops` are where `steps` multiplies the rate by `factor`; `exponential` has come down to
    `factor` at the end; `cosine`, `linear` and `polynomial` end at `final`.
    """

    schedule: Schedule = "cosine"
    warmup: float = 0.0
    drops: tuple[float, ...] = ()
    factor: float = 0.1
    power: float = 1.0
    final: float = 0.0


def rate_at(fraction: float, course: RateCourse) -> float:
    """Return the share of the peak rate at a fraction [0, 1] of training.

    It climbs in a straight line over the warm-up. What follows `steps` counts from the start of
    training, the other schedules from the end of the warm-up.
    """
    if fraction < course.warmup:
        return fraction / course.warmup
    if course.schedule == "steps":
        return float(course.factor ** sum(fraction >= drop for drop in course.drops))
    left = (1 - fraction) / (1 - course.warmup) if course.warmup < 1 else 0.0
    match course.schedule:
        case "constant":
            return 1.0
        case "exponential":
            return float(course.factor ** (1 - left))
        case _:
            return course.final + (1 - course.final) * _share(left, course)


def _share(left: float, course: RateCourse) -> float:
    """The share of the peak with a part `left` [0, 1] of the descent still to come."""
    match course.schedule:
        case "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        case "linear":
            return left
        case _:
            return float(left**course.power)
