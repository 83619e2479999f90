"""Lengths of training with their unit: `120ep`, `500000img`, `20000step`, `5%`."""

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

_PATTERN = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ep|img|step|%)")
UNITS = "ep (passes over the photos), img (views), step, % (of training)"


class Duration(NamedTuple):
    """A length of training and its unit: ep, img, step or %."""

    value: float
    unit: str

    def steps(self, *, steps_per_epoch: float, views_per_step: int, num_steps: int = 0) -> float:
        """Return the length in steps, not rounded; `%` is of `num_steps`."""
        match self.unit:
            case "ep":
                return self.value * steps_per_epoch
            case "img":
                return self.value / views_per_step
            case "%":
                return self.value / 100 * num_steps
            case _:
                return self.value


def parse_duration(text: str) -> Duration:
    """Return the duration that a text names; raises ValueError naming the units."""
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration: a number and its unit, one of {UNITS}")
    return Duration(float(match[1]), match[2])


def _checked(text: str) -> str:
    parse_duration(text)
    return text.strip()


def _checked_length(text: str) -> str:
    if parse_duration(text).unit == "%":
        raise ValueError("the length of training itself cannot be a share of it")
    if not parse_duration(text).value:
        raise ValueError("training needs a length above 0")
    return text.strip()


def _checked_span(text: str) -> str:
    if not parse_duration(text).value:
        raise ValueError("a length above 0 is needed")
    return text.strip()


# As settings hold them: text, so that YAML shows what was written.
DurationText = Annotated[str, AfterValidator(_checked)]
SpanText = Annotated[str, AfterValidator(_checked_span)]
LengthText = Annotated[str, AfterValidator(_checked_length)]
