"""Conditions on photos, as text and as Python: `label=cat`, `taken_at>=2019`, `width>=1000`.

A text holds one condition, or several joined by commas; all of them must hold of one photo. A
value in double quotes is a JSON string and means exactly itself; a bare one may end in `*`.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from index.errors import IndexFolderError
from multigrain.config import did_you_mean


class Kind(Enum):
    """What a column holds, and so which values and comparisons it takes."""

    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    ATTRIBUTE = "attribute"


COLUMNS = {
    "label": Kind.TEXT,
    "folder": Kind.TEXT,
    "taken_at": Kind.TIME,
    "camera": Kind.TEXT,
    "bytes": Kind.NUMBER,
    "width": Kind.NUMBER,
    "height": Kind.NUMBER,
    "format": Kind.TEXT,
}
ATTRIBUTES = "attributes."
OPERATORS = ("<=", ">=", "!=", "=", "<", ">")
ONE_OF = "in"
_EQUALITY = ("=", "!=")
_CONDITION = re.compile(
    r"""\s*(?P<column>[^=!<>]+?)\s*(?P<operator>[<>!]=|[=<>])\s*
        (?P<value>"(?:[^"\\]|\\.)*"|[^,]*?)\s*(?:,|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_TIME = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?)?)?)?")


class Filter(NamedTuple):
    """A condition on a column; with `is_prefix`, the value is how a text begins.

    A number is compared with numbers, a text with texts. `taken_at` takes the beginning of
    YYYY-MM-DDTHH:MM:SS and means that whole year, month, day, hour or minute. The operator `in`
    takes a tuple of values, one of which must be equal. An excluded condition must not hold: a
    photo without the value passes.
    """

    column: str
    operator: str
    value: str | float | tuple[str | float, ...]
    is_prefix: bool = False
    is_excluded: bool = False

    @property
    def kind(self) -> Kind:
        """What the column holds; raises IndexFolderError for an unknown column."""
        if self.column.startswith(ATTRIBUTES):
            return Kind.ATTRIBUTE
        if self.column not in COLUMNS:
            known = f"known are {', '.join(COLUMNS)} and {ATTRIBUTES}NAME"
            near = did_you_mean(self.column, list(COLUMNS))
            raise IndexFolderError(f"filter on {self.column!r}: no such column{near}; {known}")
        return COLUMNS[self.column]


def parse_filters(texts: Iterable[str]) -> tuple[Filter, ...]:
    """The conditions of one or several texts; raises IndexFolderError naming what is wrong."""
    return tuple(checked(part) for text in texts for part in _parse(text))


def _parse(text: str) -> Iterator[Filter]:
    place = 0
    while place < len(text) or not text:
        match = _CONDITION.match(text, place)
        if match is None:
            raise IndexFolderError(
                f"filter {text[place:]!r}: write COLUMN=VALUE, with one of {' '.join(OPERATORS)}; "
                "a value that holds a comma stands in double quotes"
            )
        yield _typed(match["column"], match["operator"], match["value"])
        place = match.end()


def _typed(column: str, operator: str, value: str) -> Filter:
    """The value as its column takes it: quoted text, a number, a beginning or a bare text."""
    kind = Filter(column, operator, value).kind
    if value.startswith('"'):
        try:
            return Filter(column, operator, str(json.loads(value, strict=False)))
        except ValueError as error:
            raise IndexFolderError(f"filter on {column}: {value} is no JSON string") from error
    number = _number(value) if kind in (Kind.NUMBER, Kind.ATTRIBUTE) else None
    if number is not None:
        return Filter(column, operator, number)
    if value.endswith("*") and kind is not Kind.TIME:
        return Filter(column, operator, value.removesuffix("*"), is_prefix=True)
    return Filter(column, operator, value)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def checked(one: Filter) -> Filter:
    """Refuse what a column cannot be asked; raises IndexFolderError naming column and value."""
    if isinstance(one.value, tuple):
        return _checked_values(one, one.value)
    kind, shown = one.kind, f"filter {one.column}{one.operator}{one.value}"
    if one.operator not in OPERATORS:
        raise IndexFolderError(f"{shown}: {one.operator!r} is none of {' '.join(OPERATORS)}")
    is_text = isinstance(one.value, str)
    if kind is Kind.NUMBER and (isinstance(one.value, str) or not math.isfinite(one.value)):
        raise IndexFolderError(f"{shown}: {one.column} is a number, {one.value!r} is none")
    if kind is Kind.TEXT and (not is_text or one.operator not in _EQUALITY):
        raise IndexFolderError(f"{shown}: {one.column} is a text and takes = or !=")
    if kind is Kind.TIME and not (is_text and _TIME.fullmatch(str(one.value))):
        raise IndexFolderError(f"{shown}: write a time as 2019, 2019-07, 2019-07-31 or ...T18:30")
    if one.is_prefix and one.operator not in _EQUALITY:
        raise IndexFolderError(f"{shown}*: a beginning takes = or !=")
    if kind is Kind.ATTRIBUTE and ('"' in one.column or one.column == ATTRIBUTES):
        raise IndexFolderError(f"{shown}: a name without quotes belongs behind {ATTRIBUTES}")
    return one


def _checked_values(one: Filter, values: tuple[str | float, ...]) -> Filter:
    if one.operator != ONE_OF or not values:
        raise IndexFolderError(
            f"filter on {one.column}: several values, at least one, go with the operator {ONE_OF}"
        )
    for value in values:
        checked(one._replace(operator="=", value=value))
    return one
