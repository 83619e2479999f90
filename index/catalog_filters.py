"""Conditions on photos as SQL: a content matches when one of its live photos meets them all.

Values are bound, never written into a statement.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Double,
    and_,
    bindparam,
    literal_column,
    not_,
    or_,
    select,
    true,
)

from index.catalog import content, photo
from index.catalog_dialects import (
    AttributeNumber,
    AttributeText,
    AttributeTruth,
    Number,
    Text,
    attribute_name,
)
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
_LARGEST_WHOLE = 2**53
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
        stored: ColumnElement[str] = literal_column(FOLDER, Text())
        value = str(one.value)
        is_open = one.is_prefix or not value or value.endswith("/")
        return _of_text(stored, one._replace(value=value if is_open else f"{value}/"))
    table_column: Column[str] = content.c.get(one.column, photo.c.label)
    if one.kind is Kind.TIME:
        return _of_time(table_column, one.operator, str(one.value).replace(" ", "T"))
    if one.kind is Kind.NUMBER:
        return _COMPARISONS[one.operator](table_column, _number(float(str(one.value))))
    return _of_text(table_column, one)


def _number(value: float) -> BindParameter[Any]:
    """A number beside whole ones: as a whole one itself where it can be, an index then serves."""
    if value.is_integer() and abs(value) <= _LARGEST_WHOLE:
        return bindparam(None, int(value), type_=Number)
    return bindparam(None, value, type_=Double)


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
    asked = photo.c.attributes, attribute_name(one.column.removeprefix(ATTRIBUTES))
    if not isinstance(one.value, str):
        number = bindparam(None, one.value, type_=Double)
        return _COMPARISONS[one.operator](AttributeNumber(*asked), number)
    found = _of_text(AttributeText(*asked), one)
    if one.value in ("true", "false"):
        return or_(found, _COMPARISONS[one.operator](AttributeTruth(*asked), one.value))
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
