"""Contents taken out of a published index by hand, without training or encoding anything."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.catalog_journal import Journal
from index.codebook.train import Codebook
from index.collection.photo_file import read_photo_file
from index.errors import IndexFolderError
from index.faiss_module import load_faiss
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
) -> RemovalReport:
    """Publish the index without some contents: by id, by a path they stand at, by their bytes.

    No build brings them back while the same bytes lie there; `add_photos` does. Raises
    IndexFolderError for what is not there, and for a folder whose build was cut off.
    """
    load_faiss()
    with reopen_workshop(root, steps=steps) as shop:
        assert shop.parent is not None
        chosen = [*ids, *_at_paths(shop.journal, paths), *_with_bytes(shop.journal, photos)]
        _require_nothing_else(shop, chosen)
        num_removed = shop.journal.bury(sorted(set(chosen)))
        manifest = publish_generation(shop, Codebook(shop.parent.codebook, shop.parent.factory))
    return RemovalReport(num_removed, manifest.counts.live, manifest.generation)


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


def _at_paths(journal: Journal, paths: Sequence[Path]) -> list[int]:
    found = list[int]()
    for path in paths:
        there = journal.ids_at(str(path))
        if not there:
            raise IndexFolderError(f"{path}: no photo of this index stands there")
        found += there
    return found


def _with_bytes(journal: Journal, photos: Sequence[Path]) -> list[int]:
    found = list[int]()
    for path in photos:
        data = read_photo_file(path, max_bytes=DEFAULT_LIMITS.max_bytes)
        content_id = journal.content_id(sha256(data).digest())
        if content_id is None:
            raise IndexFolderError(f"{path}: no photo of this index has these bytes")
        found.append(content_id)
    return found
