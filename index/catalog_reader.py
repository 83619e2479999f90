"""A generation's catalog, read-only: ids become paths and attributes."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Select, inspect
from sqlalchemy.exc import DBAPIError

from index.catalog import photo_file
from index.catalog_connections import Connections
from index.catalog_dialects import fault, ids_value
from index.catalog_filters import conditions, stored_columns
from index.catalog_ids import first_live_ids, live_ids
from index.catalog_questions import (
    ANY_ROW,
    BYTES_OF,
    CONTENTS,
    ID_OF,
    NUM_BAD,
    NUM_REMOVED,
    PHOTOS_OF,
    STORED_PHOTOS,
    Question,
)
from index.collection.photo_file import read_same_bytes
from index.errors import IndexFolderError
from index.searching.where import Filter
from multigrain.locations import Url

T = TypeVar("T")

# collection_id, path, attributes, root: as they are read, since a search makes many.
# Eight bytes for each id found: few, as a filter may leave most of a large collection.
_FILTERS_REMEMBERED = 4
_Place = tuple[int, str, str | None, str]


class Entry(NamedTuple):
    """A content: the first live path, all live (root, path), metadata with all `paths`.

    `index_root` is the index folder, in which added bytes lie.
    """

    uri: str
    places: tuple[tuple[str, str], ...]
    metadata: dict[str, Any]
    index_root: Path

    @property
    def files(self) -> list[Path | Url]:
        """All live files, absolute, or addresses; made when asked for: most searches never do."""
        return [photo_file(root, path, index=self.index_root) for root, path in self.places]


class Content(NamedTuple):
    """A content: its entry, hash of the bytes, their number, upright size, what the camera wrote.

    `taken_at` is the camera's clock, YYYY-MM-DDTHH:MM:SS.
    """

    id: int
    uri: str
    metadata: dict[str, Any]
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    taken_at: str | None
    camera: str | None


class StoredContent(NamedTuple):
    """A content as the catalog's tables have it: its columns, and its live photos by root."""

    columns: dict[str, Any]
    photos: list[tuple[str, dict[str, Any]]]


class CatalogReader:
    """Hydrates neighbours; safe under concurrent callers."""

    def __init__(self, engine: Engine, *, name: str, index: Path) -> None:
        """Read a catalog of the index folder `index`; errors call it by its `name`."""
        self._name, self._index, self._dialect = name, index, engine.dialect
        self._connections = Connections(engine)
        self._questions = dict[Select[Any], Question]()
        self._columns = dict[str, set[str]]()
        # The catalog never changes; the pages of one query, and its users, ask the same filters.
        self._found = lru_cache(maxsize=_FILTERS_REMEMBERED)(self._matching)

    def entries(self, ids: Sequence[int]) -> dict[int, Entry]:
        """The entries of live ids, a query for all; unknown and dead ids are left out."""
        found = dict[int, list[_Place]]()
        for content_id, number, path, attributes, root in self._rows(PHOTOS_OF, ids=self._ids(ids)):
            found.setdefault(content_id, []).append((number, path, attributes, root))
        return {content_id: _entry(places, self._index) for content_id, places in found.items()}

    def contents(self, ids: Sequence[int]) -> list[Content]:
        """What is known of live contents, by id; unknown and dead ids are left out."""
        entries = self.entries(ids)
        rows = self._rows(CONTENTS, ids=self._ids(sorted(entries)))
        return [_content(entries[row.id], row) for row in rows]

    def stored(self, ids: Sequence[int]) -> dict[int, StoredContent]:
        """Contents with their live photos as they are stored; unknown ids are left out."""
        wanted = self._ids(ids)
        rows = self._rows(CONTENTS, ids=wanted)
        found = {row.id: StoredContent(row._asdict(), []) for row in rows}
        for row in self._rows(STORED_PHOTOS, ids=wanted):
            columns = row._asdict()
            attributes = columns["attributes"]
            columns["attributes"] = json.loads(attributes) if attributes else None
            del columns["photo_id"], columns["collection_id"]  # of this catalog alone
            found[row.content_id].photos.append((columns.pop("root"), columns))
        return found

    def read_photo(self, content_id: int) -> bytes | None:
        """The bytes of a content, from the first live file that still holds them; else None.

        A file that was changed, or swapped for another photo, is not the one that was indexed.
        """
        entry = self.entries([content_id]).get(content_id)
        if entry is None:
            return None
        ((digest, num_bytes),) = self._rows(BYTES_OF, id=content_id)
        return read_same_bytes(entry.files, digest, num_bytes=num_bytes)

    def ids_of(self, hashes: Iterable[bytes]) -> dict[bytes, int]:
        """The contents with these sha256, live or not; unknown ones are left out."""
        wanted, question = list(hashes), self._question(ID_OF)

        def found(connection: Connection) -> dict[bytes, int]:
            rows = ((one, question.ask(connection, sha256=one)) for one in wanted)
            return {digest: int(row[0].id) for digest, row in rows if row}

        return self._asked(found)

    def hash_of(self, content_id: int) -> bytes | None:
        """The sha256 of a content, live or not."""
        rows = self._rows(BYTES_OF, id=content_id)
        return bytes(rows[0].sha256) if rows else None

    def matching(self, filters: Sequence[Filter]) -> NDArray[np.int64]:
        """The contents with a live photo that meets every filter: ids int64 [n], ascending.

        Read-only: the answers to the filters asked last are kept. Raises IndexFolderError for an
        unknown column, a value it does not take, and a catalog published before it had the
        column.
        """
        return self._found(tuple(filters))

    def _matching(self, filters: tuple[Filter, ...]) -> NDArray[np.int64]:
        self.require_columns(filters)
        chosen = conditions(filters)
        ids = self._asked(lambda connection: live_ids(connection, *chosen))
        ids.flags.writeable = False
        return ids

    def scroll(self, *, after: int, limit: int, filters: Sequence[Filter]) -> list[int]:
        """The first `limit` of the ids above `after` that `matching` gives."""
        self.require_columns(filters)
        chosen = conditions(filters)
        return self._asked(
            lambda connection: first_live_ids(connection, *chosen, after=after, limit=limit)
        )

    def require_columns(self, filters: Sequence[Filter]) -> None:
        """Refuse filters on columns this catalog does not have; raises IndexFolderError."""
        for table, needed in stored_columns(filters).items():
            known = self._columns_of(table) if needed else set[str]()
            if missing := ", ".join(sorted(needed - known)):
                raise IndexFolderError(
                    f"{self._name}: published before photos had {missing}; run index.build once "
                    "more to filter by it"
                )

    def _columns_of(self, table: str) -> set[str]:
        if table not in self._columns:
            found = self._asked(lambda connection: inspect(connection).get_columns(table))
            self._columns[table] = {one["name"] for one in found}
        return self._columns[table]

    def num_bad(self) -> dict[str, int]:
        """How many photos failed, by code."""
        return {row.code: row.num for row in sorted(self._rows(NUM_BAD))}

    def num_removed(self) -> int:
        """How many contents were removed by hand."""
        ((num,),) = self._rows(NUM_REMOVED)
        return int(num)

    def check(self) -> None:
        """Refuse what is no catalog; raises IndexFolderError naming it."""
        self._rows(ANY_ROW)

    def close(self) -> None:
        """Close every connection, and let go of the answers kept."""
        self._connections.close()
        self._found.cache_clear()

    def _ids(self, ids: Iterable[int]) -> str | list[int]:
        return ids_value(ids, self._dialect)

    def _question(self, statement: Select[Any]) -> Question:
        if statement not in self._questions:
            self._questions[statement] = Question(statement, self._dialect)
        return self._questions[statement]

    def _rows(self, statement: Select[Any], **values: Any) -> Sequence[Any]:
        question = self._question(statement)
        return self._asked(lambda connection: question.ask(connection, **values))

    def _asked(self, question: Callable[[Connection], T]) -> T:
        try:
            return self._connections.asked(question)
        except DBAPIError as error:
            raise IndexFolderError(f"{self._name}: {fault(error, self._dialect)}") from error


def _entry(places: list[_Place], index: Path) -> Entry:
    if len(places) > 1:
        # Scan order: collections as they were first named, paths bytewise.
        places.sort(key=lambda place: (place[0], place[1].encode()))
    _, uri, text, _ = places[0]
    metadata = json.loads(text) if text else {}
    metadata["paths"] = list(dict.fromkeys(path for _, path, _, _ in places))
    return Entry(uri, tuple((root, path) for _, path, _, root in places), metadata, index)


def _content(entry: Entry, row: Any) -> Content:
    stored = row._asdict()
    return Content(
        row.id,
        entry.uri,
        entry.metadata,
        sha256=row.sha256.hex(),
        bytes=row.bytes,
        width=row.width,
        height=row.height,
        format=row.format,
        taken_at=stored.get("taken_at"),
        camera=stored.get("camera"),
    )
