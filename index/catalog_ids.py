"""Many ids at once, as one text: a Python object for each would cost more than the query."""

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, select

from index.catalog import photo, tombstone
from index.catalog_dialects import Joined


def live_ids(connection: Connection, *conditions: ColumnElement[bool]) -> NDArray[np.int64]:
    """The contents that were not removed and have a live photo that meets all conditions.

    int64 [n], ascending.
    """
    chosen = select(photo.c.content_id).where(photo.c.deleted.is_(None), *conditions)
    removed = _ids(connection, select(tombstone.c.id))
    return np.setdiff1d(_ids(connection, chosen), removed, assume_unique=True)


def first_live_ids(
    connection: Connection, *conditions: ColumnElement[bool], after: int, limit: int
) -> list[int]:
    """The first `limit` of those ids that are above `after`."""
    linked = photo.c.content_id
    chosen = (
        select(linked)
        .where(
            photo.c.deleted.is_(None),
            linked > after,
            linked.not_in(select(tombstone.c.id)),
            *conditions,
        )
        .distinct()
        .order_by(linked)
        .limit(limit)
    )
    return list(connection.execute(chosen).scalars())


def _ids(connection: Connection, chosen: Select[tuple[int]]) -> NDArray[np.int64]:
    """The ids a statement gives, each once, ascending; NULL counts for none."""
    joined = select(Joined(chosen.subquery().c[0]))
    text = connection.execute(joined).scalar_one() or ""
    found = np.sort(np.fromstring(text, dtype=np.int64, sep=","))
    # Not numpy's unique, whose table of hashes takes ten times as long as sorted numbers do.
    return found[np.diff(found, prepend=-1) > 0]
