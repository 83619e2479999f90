"""Changes taken in one after another, and what they come to.

Letters: D embedding.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from index.changes.added_rows import RowBuffer
from index.changes.growing_ids import GrowingIds
from index.changes.recent import LinkedSince, Recent, Since
from index.changes.record import Added, Change, Linked
from index.layout import Layout
from index.store import Rows16


class RecentChanges:
    """Takes changes in, one after another, and gives what they come to."""

    def __init__(
        self, layout: Layout, *, dim: int, ids_of: Callable[[list[bytes]], dict[bytes, int]]
    ) -> None:
        self._layout, self._ids_of = layout, ids_of
        self._num_changes = 0
        self._rows = RowBuffer(dim)
        self._added: dict[int, Added] = {}
        self._by_hash: dict[str, tuple[Since, ...]] = {}
        self._hidden, self._linked = GrowingIds(), GrowingIds()
        self._links: dict[int, tuple[LinkedSince, ...]] = {}

    def take(self, changes: Sequence[Change], rows: Mapping[int, Rows16]) -> None:
        """Take in changes and the rows of the adds among them, fp16 [D] by id."""
        new = [one.id for one in changes if isinstance(one, Added)]
        if new:
            self._rows.append(new, np.stack([rows[one] for one in new]))
        known = self._ids_of([bytes.fromhex(one.sha256) for one in changes])
        for change in changes:
            self._num_changes += 1
            indexed = known.get(bytes.fromhex(change.sha256))
            before = self._by_hash.get(change.sha256, ())
            last = before[-1].added if before else None
            if isinstance(change, Linked):
                self._link(change, last, indexed)
                continue
            if last:
                self._rows.take_out(last.id, change=self._num_changes)
            if indexed is not None:
                self._hidden.append(indexed)
            self._become(change.sha256, change if isinstance(change, Added) else None)

    def _become(self, sha256: str, added: Added | None) -> None:
        if added:
            self._added.setdefault(added.id, added)
        before = self._by_hash.get(sha256, ())
        self._by_hash[sha256] = (*before, Since(self._num_changes, added))

    def _link(self, link: Linked, added: Added | None, indexed: int | None) -> None:
        if added:
            self._become(link.sha256, added.model_copy(update={"metadata": link.metadata}))
        elif indexed is not None:
            self._linked.append(indexed)
            before = self._links.get(indexed, ())
            self._links[indexed] = (*before, LinkedSince(self._num_changes, link))

    def now(self) -> Recent:
        """What all changes so far come to."""
        return Recent(
            self._layout,
            self._rows.now(),
            hidden=self._hidden.now(),
            linked=self._linked.now(),
            num_changes=self._num_changes,
            added=self._added,
            by_hash=self._by_hash,
            links=self._links,
        )
