"""Conditions on photos as SQL: a content matches when one of its live photos meets them all.

Values are bound, never written into a statement.
"""

import operator
from collections.abc import Callable, Sequence

from sqlalchemy import (
    REAL,
    Column,
    ColumnElement,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
)

from index.catalog import content, photo
from index.catalog_engine import FOLDER
from index.searching.where import ATTRIBUTES, Filter, Kind, checked

_COMPARISONS: dict[str, Callable[..., ColumnElement[bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LARGEST = 1.7976931348623157e308
_LAST_CHARACTER = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def conditions(filters: Sequence[Filter]) -> list[ColumnElement[bool]]:
    """The filters as conditions on the table photo; raises IndexFolderError."""
    of_photo = list[ColumnElement[bool]]()
    of_content = list[ColumnElement[bool]]()
    for one in map(checked, filters):
        condition = _condition(one)
        is_of_content = one.column in content.c
        if not one.is_excluded:
            (of_content if is_of_content else of_photo).append(condition)
        elif is_of_content:
            of_photo.append(photo.c.content_id.not_in(select(content.c.id).where(condition)))
        else:
            # Without the value a comparison is NULL, which is not true either.
            of_photo.append(condition.is_not(true()))
    if of_content:
        of_photo.append(photo.c.content_id.in_(select(content.c.id).where(*of_content)))
    return of_photo


def stored_columns(filters: Sequence[Filter]) -> dict[str, set[str]]:
    """The columns each table must have for the filters; older catalogs lack some."""
    needed: dict[str, set[str]] = {"photo": set(), "content": set()}
    for one in filters:
        if one.column in content.c:
            needed["content"].add(one.column)
        elif one.column in photo.c:
            needed["photo"].add(one.column)
    return needed


def _condition(one: Filter) -> ColumnElement[bool]:
    if isinstance(one.value, tuple):
        each = (_condition(one._replace(operator="=", value=value)) for value in one.value)
        return or_(*each)
    if one.kind is Kind.ATTRIBUTE:
        return _of_attribute(one)
    if one.column == "folder":
        stored: ColumnElement[str] = literal_column(FOLDER)
        value = str(one.value)
        is_open = one.is_prefix or not value or value.endswith("/")
        return _of_text(stored, one._replace(value=value if is_open else f"{value}/"))
    table_column: Column[str] = content.c.get(one.column, photo.c.label)
    if one.kind is Kind.TIME:
        return _of_time(table_column, one.operator, str(one.value).replace(" ", "T"))
    if one.kind is Kind.NUMBER:
        return _COMPARISONS[one.operator](table_column, bindparam(None, one.value, type_=REAL))
    return _of_text(table_column, one)


def _of_text(stored: ColumnElement[str], one: Filter) -> ColumnElement[bool]:
    value = str(one.value)
    if not one.is_prefix:
        return _COMPARISONS[one.operator](stored, value)
    inside = _begins(stored, value)
    return inside if one.operator == "=" else not_(inside)


def _of_time(stored: ColumnElement[str], comparison: str, value: str) -> ColumnElement[bool]:
    """A value stands for all times that begin with it: a day ends where the next begins."""
    if comparison in ("=", "!="):
        inside = _begins(stored, value)
        return inside if comparison == "=" else not_(inside)
    bound = _behind(value) if comparison in ("<=", ">") else value
    return stored < bound if comparison in ("<", "<=") else stored >= bound


def _of_attribute(one: Filter) -> ColumnElement[bool]:
    """An own attribute: a number meets numbers, also those a CSV list gave as text."""
    path = f'$."{one.column.removeprefix(ATTRIBUTES)}"'
    stored: ColumnElement[str] = func.json_extract(photo.c.attributes, path)
    if not isinstance(one.value, str):
        number = cast(bindparam(None, one.value, type_=REAL), REAL)
        # Beside a number SQLite reads a text as one where it can, and sorts the others behind
        # every number.
        is_number = stored <= cast(bindparam(None, _LARGEST, type_=REAL), REAL)
        return and_(_COMPARISONS[one.operator](stored, number), is_number)
    found = and_(func.typeof(stored) == "text", _of_text(stored, one))
    if one.value in ("true", "false"):
        kind = func.json_type(photo.c.attributes, path)
        is_truth = and_(kind.in_(("true", "false")), _COMPARISONS[one.operator](kind, one.value))
        return or_(found, is_truth)
    return found


def _begins(stored: ColumnElement[str], value: str) -> ColumnElement[bool]:
    end = _behind(value)
    return stored >= value if end is None else and_(stored >= value, stored < end)


def _behind(prefix: str) -> str | None:
    """The first text behind all that begin with the prefix, in UTF-8's order; None: there is none.

    A range, unlike GLOB, is found by an index whatever is bound.
    """
    kept = prefix.rstrip(chr(_LAST_CHARACTER))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
