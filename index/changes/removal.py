"""Contents taken out of a published index by hand, without training or encoding anything."""

from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import SecretStr

from index.backend import PUBLISHED_FOR, Backend
from index.catalog_opening import open_catalog
from index.catalog_reader import CatalogReader
from index.changes.follower import Follower
from index.changes.recent import Recent
from index.changes.record import Deleted
from index.codebook.train import Codebook
from index.collection.photo_file import read_photo_file
from index.errors import IndexFolderError
from index.faiss_module import load_faiss
from index.lock import adds_lock
from index.searching.live import live_flags
from index.stages import publish_generation
from index.steps import Steps, no_steps
from index.workshop import Workshop, reopen_workshop
from multigrain.photo_limits import DEFAULT_LIMITS


class RemovalReport(NamedTuple):
    """How many contents were removed now, and the generation that is live without them."""

    num_removed: int
    num_live: int
    generation: str


def remove_photos(
    root: Path,
    *,
    ids: Sequence[int] = (),
    paths: Sequence[Path] = (),
    photos: Sequence[Path] = (),
    steps: Steps = no_steps,
    catalog: SecretStr | None = None,
    backend: Backend = PUBLISHED_FOR,
) -> RemovalReport:
    """Publish the index without some contents: by id, by a path they stand at, by their bytes.

    No build brings them back while the same bytes lie there; `add_photos` does. Raises
    IndexFolderError for what is not there, and for a folder whose build was cut off.
    """
    load_faiss()
    with reopen_workshop(root, steps=steps, catalog=catalog, backend=backend) as shop:
        assert shop.parent is not None
        with closing(open_catalog(shop.layout, shop.parent, catalog=catalog)) as reader:
            follower = Follower(shop.layout, shop.parent, reader)
            recent = follower.refresh()
            chosen = {*ids, *_at_paths(shop, recent, paths), *_with_bytes(shop, recent, photos)}
            of_adds = recent.entries(chosen, also_dead=True).keys()
            indexed = sorted(chosen - of_adds)
            _require_nothing_else(shop, indexed)
            num_removed = shop.journal.bury(indexed)
            again = _added_again(reader, recent, indexed)
            num_removed += _delete(shop, follower, sorted(of_adds | again))
            recent = follower.refresh()
        manifest = publish_generation(shop, Codebook(shop.parent.codebook, shop.parent.factory))
        found = np.setdiff1d(shop.journal.live_ids(), list(recent.hidden))
    return RemovalReport(num_removed, len(found) + len(recent.ids), manifest.generation)


def _added_again(catalog: CatalogReader, recent: Recent, ids: Sequence[int]) -> set[int]:
    """The adds under which the bytes of indexed contents are live now."""
    if not len(recent.ids):
        return set()
    digests = (digest for digest in map(catalog.hash_of, ids) if digest)
    found = (recent.id_of(digest.hex()) for digest in digests)
    return {one for one in found if one is not None}


def _delete(shop: Workshop, follower: Follower, ids: Sequence[int]) -> int:
    """Write deletes of adds that no build has taken in; gives how many were live.

    A service that takes changes reads on before it writes its next one.
    """
    if not ids:
        return 0
    num_deleted = 0
    with adds_lock(shop.layout.adds_lock):
        for one in ids:
            added, segment = follower.refresh().get(one), follower.open_segment
            if added is None:
                continue
            if segment is None:
                raise IndexFolderError(
                    f"id {one}: added since the last index.build, in a journal that cannot be gone "
                    "on with; run index.build, then remove it"
                )
            segment.append(Deleted(id=one, sha256=added.sha256), None, steps=shop.steps)
            num_deleted += 1
    return num_deleted


def _require_nothing_else(shop: Workshop, chosen: Sequence[int]) -> None:
    """Refuse to publish what a build has begun: only the chosen ones may differ."""
    assert shop.parent is not None
    published = live_flags(shop.layout, shop.parent)
    left = np.setdiff1d(shop.journal.live_ids(), chosen)
    num_new = np.count_nonzero(left >= len(published))
    num_new += np.count_nonzero(~published[left[left < len(published)]])
    if num_new or shop.journal.num_unread():
        raise IndexFolderError(
            f"{shop.layout.root}: a build was cut off before it published; end it with "
            "index.build or index.add, then remove"
        )


def _at_paths(shop: Workshop, recent: Recent, paths: Sequence[Path]) -> list[int]:
    found = list[int]()
    for path in paths:
        added = recent.id_of(path.name)
        names = (path.name, str(shop.layout.upload(path.name)))
        is_added = str(path) in names or str(path.absolute()) in names
        there = [added] if added is not None and is_added else shop.journal.ids_at(str(path))
        if not there:
            raise IndexFolderError(f"{path}: no photo of this index stands there")
        found += there
    return found


def _with_bytes(shop: Workshop, recent: Recent, photos: Sequence[Path]) -> list[int]:
    found = list[int]()
    for path in photos:
        digest = sha256(read_photo_file(path, max_bytes=DEFAULT_LIMITS.max_bytes)).digest()
        added = recent.id_of(digest.hex())
        content_id = shop.journal.content_id(digest) if added is None else added
        if content_id is None:
            raise IndexFolderError(f"{path}: no photo of this index has these bytes")
        found.append(content_id)
    return found
