"""Where SQLite and PostgreSQL differ in what the catalog's tables hold and how they are asked.

Everything else is said once: both compare texts bytewise, numbers as 64 bits, and an attribute
with numbers or with texts as SQLite does.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    ColumnElement,
    Dialect,
    Double,
    Integer,
    TypeDecorator,
    bindparam,
)
from sqlalchemy import Text as AnyText
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeEngine

SQLITE, POSTGRESQL = "sqlite", "postgresql"
_INT64 = range(-(2**63), 2**63)
_LARGEST, _SMALLEST = 1.7976931348623157e308, 2.3e-308
# What SQLite takes for a number where a text stands beside one; longer exponents PostgreSQL's
# numeric does not hold.
_WRITTEN_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\s*$"
_MOST_DIGITS = 1000


class Text(TypeDecorator[str]):
    """A text in UTF-8 that sorts by its bytes; PostgreSQL's cannot hold a NUL."""

    impl = AnyText
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """The type of the dialect."""
        return AnyText(collation="C") if dialect.name == POSTGRESQL else AnyText()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """A value to compare with."""
        return storable(value) if value is not None and dialect.name == POSTGRESQL else value


# SQLite's INTEGER holds 64 bits, and makes a primary key the row's number.
Number = Integer().with_variant(BigInteger(), POSTGRESQL)
# Attributes are kept as they were written, so that both are read alike.
Document = JSON(none_as_null=True).with_variant(Text(), POSTGRESQL)


def storable(text: str) -> str:
    """A text as PostgreSQL's tables hold it."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def storable_document(text: str) -> str:
    """Attributes as PostgreSQL can look into them: NaN and the infinities are null there."""
    if not any(word in text for word in ("\\u", "NaN", "Infinity")):
        return text
    return json.dumps(_plain(json.loads(text)), sort_keys=True, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {storable(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return storable(value) if isinstance(value, str) else value


class Among(FunctionElement[Any]):
    """Whether a column is one of the ids that `ids_value` gives, however many they are.

    They come as one value: the statement stays the same, so that neither SQLAlchemy nor the
    database prepares it again. This halves the time of ten neighbours.
    """

    inherit_cache = True
    name = "among"
    # Beside a truth of its own SQLAlchemy puts "= 1" for SQLite, which then uses no index.
    type = NullType()


def among(column: ColumnElement[int], name: str) -> Among:
    """A column beside the ids bound to a name."""
    return Among(column, bindparam(name))


def ids_value(ids: Iterable[int], dialect: Dialect) -> str | list[int]:
    """Ids as `among` takes them."""
    if dialect.name == POSTGRESQL:
        return [one for one in ids if one in _INT64]
    return json.dumps(list(ids))


@compiles(Among, SQLITE)
def _among_sqlite(element: Among, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"


@compiles(Among, POSTGRESQL)
def _among_postgresql(element: Among, compiler: SQLCompiler, **options: Any) -> str:
    column, ids = (compiler.process(one, **options) for one in element.clauses)
    return f"{column} = ANY(CAST({ids} AS BIGINT[]))"


class Joined(FunctionElement[str]):
    """All values of a column as one text, parted by commas."""

    inherit_cache = True
    name = "joined"
    type = AnyText()


@compiles(Joined, SQLITE)
def _joined_sqlite(element: Joined, compiler: SQLCompiler, **options: Any) -> str:
    return f"group_concat({_operands(element, compiler, options)})"


@compiles(Joined, POSTGRESQL)
def _joined_postgresql(element: Joined, compiler: SQLCompiler, **options: Any) -> str:
    return f"string_agg(CAST({_operands(element, compiler, options)} AS TEXT), ',')"


class AttributeNumber(FunctionElement[float]):
    """An own attribute that is a number, or a text that spells one; a truth is 1 or 0."""

    inherit_cache = True
    name = "attribute_number"
    type = Double()


class AttributeText(FunctionElement[str]):
    """An own attribute that is a text."""

    inherit_cache = True
    name = "attribute_text"
    type = Text()


class AttributeTruth(FunctionElement[str]):
    """An own attribute that is true or false, by that name."""

    inherit_cache = True
    name = "attribute_truth"
    type = Text()


class _AttributeName(TypeDecorator[str]):
    """The name of an attribute; a path to SQLite."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """As the dialect's functions take it."""
        return f'$."{value}"' if dialect.name == SQLITE else storable(value or "")


def attribute_name(name: str) -> BindParameter[str]:
    """The name of an attribute, which the three take beside the column."""
    return bindparam(None, name, type_=_AttributeName())


@compiles(AttributeNumber, SQLITE)
def _number_sqlite(element: AttributeNumber, compiler: SQLCompiler, **options: Any) -> str:
    value = f"json_extract({_operands(element, compiler, options)})"
    # Beside a number SQLite reads a text as one where it can, and sorts the others behind every
    # number.
    return f"CASE WHEN {value} <= CAST({_LARGEST!r} AS REAL) THEN CAST({value} AS REAL) END"


@compiles(AttributeText, SQLITE)
def _text_sqlite(element: AttributeText, compiler: SQLCompiler, **options: Any) -> str:
    operands = _operands(element, compiler, options)
    return f"CASE WHEN json_type({operands}) = 'text' THEN json_extract({operands}) END"


@compiles(AttributeTruth, SQLITE)
def _truth_sqlite(element: AttributeTruth, compiler: SQLCompiler, **options: Any) -> str:
    kind = f"json_type({_operands(element, compiler, options)})"
    return f"CASE WHEN {kind} IN ('true', 'false') THEN {kind} END"


@compiles(AttributeNumber, POSTGRESQL)
def _number_postgresql(element: AttributeNumber, compiler: SQLCompiler, **options: Any) -> str:
    # Another order of these would let a cast fail.
    number = "CAST(it.word AS numeric)"
    return f"""(SELECT CASE
        WHEN it.kind = 'boolean' THEN CASE it.word WHEN 'true' THEN 1.0 ELSE 0.0 END
        WHEN it.kind NOT IN ('number', 'string') OR length(it.word) > {_MOST_DIGITS} THEN NULL
        WHEN it.word !~ '{_WRITTEN_NUMBER}' OR {number} > {_LARGEST!r} THEN NULL
        WHEN {number} < -{_LARGEST!r} THEN CAST('-Infinity' AS double precision)
        WHEN abs({number}) < {_SMALLEST!r} THEN 0.0
        ELSE CAST(it.word AS double precision) END
        FROM {_attribute(element, compiler, options)})"""


@compiles(AttributeText, POSTGRESQL)
def _text_postgresql(element: AttributeText, compiler: SQLCompiler, **options: Any) -> str:
    found = _attribute(element, compiler, options)
    return f"(SELECT CASE it.kind WHEN 'string' THEN it.word COLLATE \"C\" END FROM {found})"


@compiles(AttributeTruth, POSTGRESQL)
def _truth_postgresql(element: AttributeTruth, compiler: SQLCompiler, **options: Any) -> str:
    found = _attribute(element, compiler, options)
    return f"(SELECT CASE it.kind WHEN 'boolean' THEN it.word COLLATE \"C\" END FROM {found})"


def _operands(
    element: FunctionElement[Any], compiler: SQLCompiler, options: Mapping[str, Any]
) -> str:
    return ", ".join(compiler.process(one, **options) for one in element.clauses)


def _attribute(
    element: FunctionElement[Any], compiler: SQLCompiler, options: Mapping[str, Any]
) -> str:
    """Kind and word of an attribute, parsed once: OFFSET 0 keeps it from being taken apart."""
    column, name = (compiler.process(one, **options) for one in element.clauses)
    found = f"(SELECT CAST({column} AS json) -> {name} AS value OFFSET 0) AS given"
    parts = "json_typeof(given.value) AS kind, given.value #>> '{}' AS word"
    return f"(SELECT {parts} FROM {found} OFFSET 0) AS it"


def fault(error: DBAPIError, dialect: Dialect) -> str:
    """What an error says about a catalog that only has to be read."""
    said = str(error.orig).partition("\n")[0]
    return f"not read ({said})" if dialect.name == POSTGRESQL else f"damaged ({said})"
