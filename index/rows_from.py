"""Rows of other indexes of the same model, taken over for the same bytes instead of embedding.

Letters: D embedding.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.catalog_journal import NewContent, Outcome
from index.catalog_opening import open_catalog_file
from index.catalog_reader import Content
from index.collection.known import KnownContents
from index.current import live_manifest
from index.errors import IndexFolderError, OtherCheckpointError
from index.layout import Layout
from index.lock import open_shared
from index.manifest import Manifest
from index.rows import RowRange, StoredRows
from index.searching.live import live_flags
from index.staging import staging_behind
from index.store import Rows16, require_size
from index.workshop import Workshop

_BLOCK_ROWS = 8192


class OtherRows:
    """The published rows of other indexes that a build may need: of photos of these sizes.

    Taken over they are contents of nobody, until a photo is found to hold their bytes. Rows that
    are here already stay as they are, so a build that was killed goes on.
    """

    def __init__(self, shop: Workshop, roots: Sequence[Path], sizes: Collection[int]) -> None:
        """Check the folders; `sizes` are those of photos still to be read, in bytes.

        Raises IndexFolderError for a folder that holds no whole index, OtherCheckpointError for
        one of another model.
        """
        self._shop, self._sizes = shop, sizes
        self._others = [_checked(shop, root) for root in roots]

    def count(self) -> int:
        """How many rows `take` takes at most."""
        return sum(len(wanted) for _, wanted in self._wanted(self._known()))

    def take(self, *, shard_rows: int) -> int:
        """Take the rows over, durably a block at a time; gives their number."""
        shop, known = self._shop, self._known()
        first_id = shop.journal.next_id()
        with staging_behind(
            shop.layout,
            shop.journal.staged(),
            next_id=first_id,
            dim=shop.model.D,
            shard_rows=shard_rows,
            steps=shop.steps,
        ) as writer:
            for other, wanted in self._wanted(known):
                writer.append(other.rows_of(wanted))
                next_id = shop.journal.next_id()
                contents = [_renumbered(one, next_id + place) for place, one in enumerate(wanted)]
                shop.journal.commit_outcome(Outcome(contents, [], []), writer.sync())
                known.add(one.sha256 for one in contents)
        return shop.journal.next_id() - first_id

    def _known(self) -> KnownContents:
        journal = self._shop.journal
        return KnownContents(journal.hashes(), journal.content_id)

    def _wanted(self, known: KnownContents) -> Iterator[tuple["_Other", list[Content]]]:
        """What is wanted of each block; nothing where no photo is to be read."""
        for other in self._others if self._sizes else []:
            for block in other.contents():
                wanted = [
                    one
                    for one in block
                    if one.bytes in self._sizes and known.id_of(_digest(one)) is None
                ]
                if wanted:
                    yield other, wanted


class _Other(NamedTuple):
    """Another index's live generation."""

    layout: Layout
    manifest: Manifest

    def contents(self) -> Iterator[list[Content]]:
        """Its live contents by id, a block at a time."""
        layout, manifest = self
        ids = np.flatnonzero(live_flags(layout, manifest)).tolist()
        # Held, so that no build of that folder removes it meanwhile.
        with (
            open_shared(layout.manifest(manifest.generation)),
            closing(open_catalog_file(layout.root / manifest.catalog.file)) as catalog,
        ):
            for start in range(0, len(ids), _BLOCK_ROWS):
                yield catalog.contents(ids[start : start + _BLOCK_ROWS])

    def rows_of(self, contents: Sequence[Content]) -> Rows16:
        """The rows of contents as they are stored, fp16 [n, D]."""
        layout, shards = self.layout, self.manifest.shards
        ranges = (RowRange(one.first_id, one.n, layout.embeddings(one.folder)) for one in shards)
        rows = StoredRows(ranges, dim=self.manifest.model.D)
        return rows.gather(np.array([one.id for one in contents], np.int64))


def _checked(shop: Workshop, root: Path) -> _Other:
    layout = Layout(root.absolute())
    if layout.root.resolve() == shop.layout.root.resolve():
        raise IndexFolderError(f"{root}: rows cannot be taken from the index that is built")
    manifest = live_manifest(layout)
    own, other = shop.model.fingerprint, manifest.model.fingerprint
    if own != other:
        raise OtherCheckpointError(
            f"{root} was built with checkpoint {other[:12]}, this build has {own[:12]}: "
            "its rows mean something else; leave it out"
        )
    require_size(layout.root / manifest.catalog.file, manifest.catalog.size)
    return _Other(layout, manifest)


def _digest(content: Content) -> bytes:
    return bytes.fromhex(content.sha256)


def _renumbered(content: Content, content_id: int) -> NewContent:
    return NewContent(
        content_id,
        _digest(content),
        content.bytes,
        content.width,
        content.height,
        content.format,
        content.taken_at,
        content.camera,
    )
