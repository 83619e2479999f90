"""A generation's catalog, read-only: ids become paths and attributes."""

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.exc import DBAPIError

from index.catalog import collection, content, open_catalog_engine, photo
from index.errors import IndexFolderError


class Entry(NamedTuple):
    """A content: the first live path, all live files (absolute), metadata with all `paths`."""

    uri: str
    files: tuple[Path, ...]
    metadata: dict[str, Any]


class CatalogReader:
    """Hydrates neighbours; safe under concurrent callers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = open_catalog_engine(path)
        self._photos = (
            select(
                photo.c.content_id,
                photo.c.collection_id,
                photo.c.path,
                photo.c.attributes,
                collection.c.root,
            )
            .join(collection, collection.c.collection_id == photo.c.collection_id)
            .where(photo.c.content_id.in_(bindparam("ids", expanding=True)))
            .where(photo.c.deleted.is_(None))
        )

    def entries(self, ids: Sequence[int]) -> dict[int, Entry]:
        """The entries of live ids, in one query; unknown and dead ids are left out."""
        found: dict[int, list[Any]] = {}
        for row in self._rows(self._photos, {"ids": sorted(set(ids))}):
            found.setdefault(row.content_id, []).append(row)
        return {content_id: _entry(rows) for content_id, rows in found.items()}

    def sha256(self, content_id: int) -> bytes | None:
        """The hash of a content's bytes; None for an unknown id."""
        chosen = select(content.c.sha256).where(content.c.id == content_id)
        rows = self._rows(chosen, {})
        return bytes(rows[0].sha256) if rows else None

    def check(self) -> None:
        """Refuse a file that is no catalog; raises IndexFolderError naming it."""
        self._rows(select(collection.c.collection_id), {})

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _rows(self, statement: Any, values: dict[str, Any]) -> Sequence[Any]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(statement, values).all()
        except DBAPIError as error:
            raise IndexFolderError(f"{self._path}: damaged ({error.orig})") from error


def _entry(rows: list[Any]) -> Entry:
    # Scan order: collections as they were first named, paths bytewise.
    rows.sort(key=lambda row: (row.collection_id, row.path.encode()))
    first = rows[0]
    attributes = first.attributes or {}
    metadata = {**attributes, "paths": list(dict.fromkeys(row.path for row in rows))}
    files = tuple(Path(posixpath.dirname(row.root), row.path) for row in rows)
    return Entry(first.path, files, metadata)
