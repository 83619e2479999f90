"""Held-out queries: edited views of stored photos, embedded as any query is.

Letters: Q queries, D embedding.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog_journal import Journal
from index.catalog_opening import open_catalog_file
from index.collection.reading import PhotoEmbedder
from index.layout import Layout
from multigrain.ahead import in_order
from multigrain.cpus import num_cpus
from multigrain.errors import EmbeddingError
from multigrain.photo import PhotoError
from multigrain.views import VIEW_KINDS

NUM_QUERIES = 1000
_BATCH = 8
# A collection on a disk that is away must not be asked for every one of its photos.
_MOST_TRIED = 4
_NORM_TOLERANCE = 1e-2
_SEED = 20190215

_logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]


class HeldOut(NamedTuple):
    """Edited views and the contents they were made of: ids int64 [Q], unit rows fp32 [Q, D].

    `edited_view` makes a view again by its kind and seed [Q].
    """

    ids: NDArray[np.int64]
    rows: NDArray[np.float32]
    edits: list[tuple[str, int]]


class _View(NamedTuple):
    content_id: int
    pixels: Pixels
    edit: tuple[str, int]


def journal_queries(
    layout: Layout, journal: Journal, embedder: PhotoEmbedder, live_ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Unit rows fp32 [Q, D] of views of a thousand of the contents a build is about to publish."""
    # The copy has the indexes of a catalog, without which each look-up would read every photo.
    copy = layout.catalogs / ".queries.tmp"
    try:
        journal.write_catalog(copy)
        with closing(open_catalog_file(copy)) as catalog:
            found = view_queries(
                embedder,
                catalog.read_photo,
                live_ids,
                num_queries=NUM_QUERIES,
                num_threads=num_cpus(),
                seed=_SEED,
            )
            return found.rows
    finally:
        copy.unlink(missing_ok=True)


def view_queries(
    embedder: PhotoEmbedder,
    read_photo: Callable[[int], bytes | None],
    live_ids: NDArray[np.int64],
    *,
    num_queries: int,
    num_threads: int,
    seed: int,
) -> HeldOut:
    """Edited views of random contents, at most one of each.

    `read_photo` gives a content's bytes, None where no file holds them any more. What cannot be
    read or embedded is passed over for another content, as long as four times `num_queries`
    have not been tried; Q is smaller where too few are left.
    """
    most = min(len(live_ids), _MOST_TRIED * num_queries)
    chosen = np.random.default_rng(seed).permutation(live_ids)[:most]
    views = _views(embedder, read_photo, chosen.tolist(), num_threads=num_threads, seed=seed)
    ids, rows, edits = list[int](), list[NDArray[np.float32]](), list[tuple[str, int]]()
    while len(rows) < num_queries and (batch := list(islice(views, _BATCH))):
        for view, row in _embedded(embedder, batch):
            ids.append(view.content_id)
            rows.append(row)
            edits.append(view.edit)
    found = np.array(rows[:num_queries], dtype=np.float32).reshape(-1, embedder.dim)
    if len(found) < min(num_queries, len(live_ids)):
        _logger.warning(
            "%d of %d held-out photos can be read: what is measured is measured on these",
            len(found),
            min(num_queries, len(live_ids)),
        )
    return HeldOut(np.array(ids[:num_queries], dtype=np.int64), found, edits[:num_queries])


def _views(
    embedder: PhotoEmbedder,
    read_photo: Callable[[int], bytes | None],
    ids: Sequence[int],
    *,
    num_threads: int,
    seed: int,
) -> Iterator[_View]:
    """The model's input for a view of each content that can be read, in order."""

    def view(numbered: tuple[int, int]) -> _View | None:
        place, content_id = numbered
        data = read_photo(content_id)
        if data is None:
            return None
        # Photos take turns, so that a small collection too meets every kind of edit.
        kind, own_seed = VIEW_KINDS[place % len(VIEW_KINDS)], seed + content_id
        try:
            pixels = embedder.read_view(data, kind=kind, seed=own_seed).pixels
        except PhotoError:
            return None
        return _View(content_id, pixels, (kind, own_seed))

    window = 4 * _BATCH + 2 * num_threads
    for found in in_order(view, enumerate(ids), num_threads=num_threads, window=window):
        if found is not None:
            yield found


def _embedded(
    embedder: PhotoEmbedder, views: Sequence[_View]
) -> list[tuple[_View, NDArray[np.float32]]]:
    try:
        rows = embedder.embed_pixels([view.pixels for view in views], _BATCH)
    except EmbeddingError:
        if len(views) == 1:
            return []
        # One view the model gives nothing for must not cost its neighbours their place.
        return [pair for view in views for pair in _embedded(embedder, [view])]
    pairs = zip(views, rows, strict=True)
    return [pair for pair in pairs if abs(float(np.linalg.norm(pair[1])) - 1) <= _NORM_TOLERANCE]
