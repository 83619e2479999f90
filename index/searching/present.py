"""What can be found at one moment: a generation's contents, less and more what changed since."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from index.catalog import UPLOADS_ROOT
from index.catalog_reader import CatalogReader, Content, Entry, StoredContent
from index.changes.recent import Recent
from index.searching.half import unit
from index.searching.ranker import Ranker
from index.searching.scoring import Ranked
from index.searching.where import Filter
from index.store import EMBEDDING_DTYPE, Rows16


class Present(NamedTuple):
    """A generation's rows and catalog, and recent changes; whoever holds it sees one state.

    `ranker` finds what the changes have left of the generation.
    """

    ranker: Ranker
    catalog: CatalogReader
    recent: Recent

    @property
    def num_live(self) -> int:
        """How many contents can be found."""
        return self.ranker.num_live + len(self.recent.ids)

    @property
    def live_ids(self) -> NDArray[np.int64]:
        """The ids of contents that can be found, ascending."""
        # Adds have ids behind all others.
        return np.concatenate([self.ranker.live_ids, self.recent.ids])

    def is_live(self, content_id: int) -> bool:
        """Whether a content can be found."""
        return self.recent.get(content_id) is not None or self.ranker.is_live(content_id)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        nprobe: int | None,
        rerank: int | None,
        exact: bool,
        allowed: NDArray[np.int64] | None,
    ) -> list[Ranked]:
        """The k nearest contents of each query, as `Ranker.search` finds them."""
        found = self.ranker.search(
            queries, k, nprobe=nprobe, rerank=rerank, exact=exact, allowed=allowed
        )
        ids = self.recent.ids
        if allowed is not None:
            ids = np.intersect1d(ids, allowed)
        if not len(ids):
            return found
        added = self.ranker.scan(self.recent.rows, ids, queries, k)
        return [_merged(*parts, k) for parts in zip(found, added, strict=True)]

    def rows(self, ids: NDArray[np.int64]) -> Rows16:
        """The stored rows of live contents, fp16 [n, D], in the order of the ids."""
        is_added = np.isin(ids, self.recent.rows.ids)
        if not is_added.any():
            return self.ranker.rows.gather(ids)
        rows = np.empty((len(ids), self.ranker.dim), EMBEDDING_DTYPE)
        rows[is_added] = self.recent.rows.gather(ids[is_added])
        rows[~is_added] = self.ranker.rows.gather(ids[~is_added])
        return rows

    def embeddings(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """The same scaled to unit length, fp32 [n, D]."""
        return unit(self.rows(np.array(ids, dtype=np.int64)))

    def entries(self, ids: Sequence[int], *, also_dead: bool = False) -> dict[int, Entry]:
        """The entries of live ids; unknown and dead ones are left out.

        With `also_dead`, of those too that changes have taken out.
        """
        added = self.recent.entries(ids, also_dead=also_dead)
        hidden = () if also_dead else self.recent.hidden
        others = [one for one in ids if one not in added and one not in hidden]
        found = self.catalog.entries(others) if others else {}
        if len(self.recent.linked):
            found = {one: self.recent.relinked(one, found[one]) for one in found}
        return found | added

    def contents(self, ids: Sequence[int]) -> list[Content]:
        """What is known of live contents, by id; unknown and dead ids are left out."""
        others = [one for one in ids if one not in self.recent.hidden]
        found = self.catalog.contents(others)
        entries = self.entries([one.id for one in found if one.id in self.recent.linked])
        found = [
            one._replace(metadata=entries[one.id].metadata) if one.id in entries else one
            for one in found
        ]
        # Adds have ids behind all others.
        return found + self.recent.contents(ids)

    def scroll(self, *, after: int, limit: int, filters: Sequence[Filter]) -> list[int]:
        """The first `limit` of the ids above `after` that `matching` gives."""
        if filters and len(self.recent.linked):
            all_found = self.matching(filters)
            return [int(one) for one in all_found[all_found > after][:limit]]
        found, page, last = list[int](), [after], after
        while page and len(found) < limit:
            page = self.catalog.scroll(after=last, limit=limit, filters=filters)
            found += [one for one in page if one not in self.recent.hidden]
            last = page[-1] if page else last
        if len(found) < limit:
            added = self.recent.matching(filters, {})
            found += [int(one) for one in added[added > after]]
        return found[:limit]

    def matching(self, filters: Sequence[Filter]) -> NDArray[np.int64]:
        """The contents with a live photo that meets every filter: ids int64 [n], ascending."""
        linked = self._linked() if filters else {}
        others = [*self.recent.hidden, *linked]
        found = self.catalog.matching(filters)
        kept = np.setdiff1d(found, others) if others else found
        recent = self.recent.matching(filters, linked)
        return np.union1d(kept, recent) if linked else np.concatenate([kept, recent])

    def _linked(self) -> dict[int, StoredContent]:
        """The live contents of the generation that were added again."""
        live = [one for one in self.recent.linked if self.ranker.is_live(one)]
        return self.catalog.stored(live) if live else {}

    def read_photo(self, content_id: int) -> bytes | None:
        """The bytes of a live content, from the first file that still holds them; else None."""
        if content_id in self.recent.hidden:
            return None
        if self.recent.get(content_id) is not None:
            return self.recent.read_photo(content_id)
        data, link = self.catalog.read_photo(content_id), self.recent.link(content_id)
        return self.recent.read_upload(link) if data is None and link else data

    def attributes_added(self, content_id: int) -> dict[str, JsonValue] | None:
        """The attributes under which a live content was added; None where it never was."""
        if added := self.recent.get(content_id):
            return added.metadata
        if link := self.recent.link(content_id):
            return link.metadata
        stored = self.catalog.stored([content_id]).get(content_id)
        photos = stored.photos if stored else []
        found = (one["attributes"] or {} for root, one in photos if root == UPLOADS_ROOT)
        return next(found, None)

    def hash_of(self, content_id: int) -> str | None:
        """The sha256 of a live content's bytes, hex; None for an unknown or dead id."""
        if added := self.recent.get(content_id):
            return added.sha256
        if not self.ranker.is_live(content_id):
            return None
        digest = self.catalog.hash_of(content_id)
        return digest.hex() if digest else None

    def id_of(self, sha256: str) -> int | None:
        """The live content with these bytes."""
        if self.recent.knows(sha256):
            return self.recent.id_of(sha256)
        digest = bytes.fromhex(sha256)
        found = self.catalog.ids_of([digest]).get(digest)
        return found if found is not None and self.ranker.is_live(found) else None


def _merged(first: Ranked, second: Ranked, k: int) -> Ranked:
    """The best k of both, ties by id."""
    ids = np.concatenate([first.ids, second.ids])
    scores = np.concatenate([first.scores, second.scores])
    order = np.lexsort((ids, -scores))[:k]
    return Ranked(ids[order], scores[order])
