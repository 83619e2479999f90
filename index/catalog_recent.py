"""Changes that no generation holds yet, asked by the catalog's own conditions."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from index.catalog import content, photo, tables
from index.catalog_filters import conditions
from index.catalog_folding import insert_added, link_added, root_id, uploads_collection
from index.catalog_ids import live_ids
from index.catalog_reader import StoredContent
from index.changes.record import Added, Linked
from index.searching.where import Filter


def matching(
    adds: Iterable[Added],
    linked: Iterable[tuple[StoredContent, Linked]],
    filters: Sequence[Filter],
) -> NDArray[np.int64]:
    """The adds, and the contents that were linked, that meet every filter: ids int64 [n] ascending.

    They are put into a catalog in memory, so that a filter means the same before a build has
    folded them in and after it.
    """
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            tables.create_all(connection)
            collection_id = uploads_collection(connection, created="")
            insert_added(connection, collection_id, adds)
            for stored, link in linked:
                _insert(connection, stored)
                link_added(connection, collection_id, link)
            return live_ids(connection, *conditions(filters))
    finally:
        engine.dispose()


def _insert(connection: Connection, stored: StoredContent) -> None:
    connection.execute(content.insert().values(stored.columns))
    for root, columns in stored.photos:
        number = root_id(connection, root, created="")
        connection.execute(photo.insert().values(columns | {"collection_id": number}))
