"""What readers ask a published catalog, whichever database it is in.

`ids`, `id` and `sha256` are bound by name.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    Select,
    bindparam,
    case,
    func,
    literal_column,
    select,
)
from sqlalchemy.sql.compiler import SQLCompiler

from index.catalog import collection, content, photo, tombstone
from index.catalog_dialects import among

PHOTOS_OF = (
    select(
        photo.c.content_id,
        photo.c.collection_id,
        photo.c.path,
        photo.c.attributes,
        collection.c.root,
    )
    .join(collection, collection.c.collection_id == photo.c.collection_id)
    .where(
        among(photo.c.content_id, "ids"),
        photo.c.deleted.is_(None),
        photo.c.content_id.not_in(select(tombstone.c.id)),
    )
)
BYTES_OF = select(content.c.sha256, content.c.bytes).where(content.c.id == bindparam("id"))
# Every column, as older catalogs lack some.
CONTENTS: Select[Any] = (
    select(literal_column("content.*"))
    .select_from(content)
    .where(among(content.c.id, "ids"))
    .order_by(content.c.id)
)
STORED_PHOTOS: Select[Any] = (
    select(literal_column("photo.*"), collection.c.root)
    .select_from(photo)
    .join(collection, collection.c.collection_id == photo.c.collection_id)
    .where(among(photo.c.content_id, "ids"), photo.c.deleted.is_(None))
    .order_by(photo.c.photo_id)
)
ID_OF = select(content.c.id).where(content.c.sha256 == bindparam("sha256"))
# A code, or a code, a space and a hash.
_CODE = case(
    (photo.c.error.contains(" "), func.substr(photo.c.error, 1, func.length(photo.c.error) - 65)),
    else_=photo.c.error,
)
NUM_BAD = (
    select(_CODE.label("code"), func.count().label("num"))
    .where(photo.c.error.is_not(None), photo.c.deleted.is_(None))
    .group_by(literal_column("code"))
)
NUM_REMOVED = select(func.count()).select_from(tombstone)
ANY_ROW = select(collection.c.collection_id)


class Question:
    """A statement compiled once for a database; asked with the driver's own values.

    SQLAlchemy's own way takes as long again for each as SQLite does to answer.
    """

    def __init__(self, statement: Select[Any], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._text, self._names = str(compiled), compiled.positiontup
        self._constants = compiled.params

    def ask(self, connection: Connection, **values: Any) -> Sequence[Any]:
        """The rows of the answer, columns as the driver reads them."""
        named = {**self._constants, **values}
        given = named if self._names is None else tuple(named[name] for name in self._names)
        return connection.exec_driver_sql(self._text, given).all()
