"""The parameter `filter`: two flat lists of conditions in JSON, as the index's own filters."""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from index.errors import IndexFolderError
from index.searching.where import ATTRIBUTES, COLUMNS, ONE_OF, Filter, checked
from service.errors import ProblemError, faults_of

MAX_FILTER_BYTES = 4096
MAX_CONDITIONS = 32
# Each becomes a comparison of the catalog's statement, whose depth is bounded.
MAX_VALUES = 100
FIELDS = f"{', '.join(COLUMNS)} and {ATTRIBUTES}NAME"

_OPERATORS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_ATTRIBUTE = re.compile(rf"{re.escape(ATTRIBUTES)}[\w .:/-]{{1,64}}")

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Value = Annotated[bool, Field(strict=True)] | _Number | str


class Condition(BaseModel):
    """What a field must be; several comparisons must all hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    eq: _Value | None = None
    in_: list[_Value] | None = Field(None, alias="in", min_length=1, max_length=MAX_VALUES)
    gt: _Value | None = None
    gte: _Value | None = None
    lt: _Value | None = None
    lte: _Value | None = None


class _Conditions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    must: list[Condition] = []
    must_not: list[Condition] = []


def parse_filter(text: str) -> tuple[Filter, ...]:
    """The conditions of a filter: all must hold of one live photo of a content.

    Raises ProblemError filter_invalid.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILTER_BYTES:
        raise filter_problem(f"more than {MAX_FILTER_BYTES} bytes")
    try:
        asked = _Conditions.model_validate_json(text)
    except (ValidationError, UnicodeEncodeError) as error:
        raise _malformed(error) from error
    num_conditions = len(asked.must) + len(asked.must_not)
    if num_conditions > MAX_CONDITIONS:
        raise filter_problem(f"{num_conditions} conditions, at most {MAX_CONDITIONS}")
    try:
        return (
            *(one for condition in asked.must for one in _filters(condition)),
            *(one for condition in asked.must_not for one in _excluded(condition)),
        )
    except IndexFolderError as error:
        raise filter_problem(str(error)) from error


def filter_problem(detail: str) -> ProblemError:
    """One 422 for whatever is wrong with a filter."""
    return ProblemError("filter_invalid", f"filter: {detail}")


def _malformed(error: Exception) -> ProblemError:
    if not isinstance(error, ValidationError):
        return filter_problem("not valid JSON")
    faults = faults_of(error.errors(), "filter")[:MAX_CONDITIONS]
    detail = "; ".join(f"{fault.loc}: {fault.msg}" for fault in faults)
    return ProblemError("filter_invalid", detail, faults=faults)


def _filters(condition: Condition) -> Iterator[Filter]:
    """The comparisons of one condition, at least one."""
    name = condition.field
    if name.startswith(ATTRIBUTES) and not _ATTRIBUTE.fullmatch(name):
        raise filter_problem(f"the attribute {name[:80]!r} is none a filter can name")
    given = condition.model_dump(exclude={"field"}, exclude_none=True)
    if not given:
        raise filter_problem(f"the condition on {name!r} compares with nothing")
    for comparison, value in given.items():
        if comparison == "in_":
            yield checked(Filter(name, ONE_OF, tuple(map(_stored, value))))
        else:
            yield checked(Filter(name, _OPERATORS[comparison], _stored(value)))


def _excluded(condition: Condition) -> Iterator[Filter]:
    comparisons = [one._replace(is_excluded=True) for one in _filters(condition)]
    if len(comparisons) > 1:
        raise filter_problem(
            f"a condition of must_not takes one comparison; that on {condition.field!r} has "
            f"{len(comparisons)}: write two conditions, or the opposite under must"
        )
    yield from comparisons


def _stored(value: _Value) -> str | float:
    """A value as the catalog compares it: a truth by its name."""
    return str(value).lower() if isinstance(value, bool) else value
