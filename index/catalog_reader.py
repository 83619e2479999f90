"""A generation's catalog, read-only: ids become paths and attributes."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.exc import DBAPIError

from index.catalog import collection, content, open_catalog_engine, photo, photo_file
from index.errors import IndexFolderError
from index.photo_file import read_photo_file
from multigrain.photo import PhotoError

# SQLite takes 250,000 values in a statement, some builds of it 32,766.
_IDS_PER_QUERY = 30_000


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
        """The entries of live ids, a query for many; unknown and dead ids are left out."""
        found: dict[int, list[Any]] = {}
        unique = sorted(set(ids))
        for start in range(0, len(unique), _IDS_PER_QUERY):
            page = unique[start : start + _IDS_PER_QUERY]
            for row in self._rows(self._photos, {"ids": page}):
                found.setdefault(row.content_id, []).append(row)
        return {content_id: _entry(rows) for content_id, rows in found.items()}

    def read_photo(self, content_id: int) -> bytes | None:
        """The bytes of a content, from the first live file that still holds them; else None.

        A file that was changed, or swapped for another photo, is not the one that was indexed.
        """
        chosen = select(content.c.sha256, content.c.bytes).where(content.c.id == content_id)
        entry = self.entries([content_id]).get(content_id)
        if entry is None:
            return None
        ((digest, num_bytes),) = self._rows(chosen, {})
        for path in entry.files:
            try:
                data = read_photo_file(path, max_bytes=num_bytes)
            except PhotoError:  # gone, or another file now: another path may hold the same bytes
                continue
            if sha256(data).digest() == digest:
                return data
        return None

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
    files = tuple(photo_file(row.root, row.path) for row in rows)
    return Entry(first.path, files, metadata)
