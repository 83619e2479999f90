"""Pairs of photos as a search shows them, and whether the two show the same thing.

Letters: Q queries, N photos, D embedding, P pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.collection.reading import PhotoEmbedder
from index.searcher import Searcher
from index.tuning.held_out import view_queries
from multigrain.ranking import exact_search

# A probability is asked of hits, so it is learned from hits: of all pairs nearly every one would
# be of photos that nobody would ever see side by side.
NUM_NEIGHBOURS = 10
NUM_VIEWS = 1000
_SEED = 20190217


class Pairs(NamedTuple):
    """Cosines fp32 [P], whether both photos show the same thing bool [P], and whose hits, [P]."""

    cosines: NDArray[np.float32]
    same: NDArray[np.bool_]
    queries: NDArray[np.int64]


def copy_pairs(searcher: Searcher, embedder: PhotoEmbedder, *, num_threads: int) -> Pairs:
    """Edited views of up to a thousand photos of the index, each with its ten nearest.

    A view and its own photo are the same; any other is taken for another, which makes the
    probabilities of a collection full of near-duplicates too small.
    """
    held_out = view_queries(
        embedder,
        searcher.read_photo,
        searcher.present.ranker.live_ids,
        num_queries=NUM_VIEWS,
        num_threads=num_threads,
        seed=_SEED,
    )
    if not len(held_out.ids):
        return joined([])
    found = searcher.rank(held_out.rows, NUM_NEIGHBOURS)
    parts = zip(held_out.ids, found, strict=True)
    return joined([(one.scores, one.ids == own) for own, one in parts])


def instance_pairs(rows: NDArray[np.float32], instances: Sequence[str]) -> Pairs:
    """Labelled photos, unit rows fp32 [N, D], each with the ten nearest others.

    Two of one instance are the same; a photo without one, "", is the same as no other.
    """
    named = np.array(instances)
    found = exact_search(rows, rows, NUM_NEIGHBOURS + 1)
    hits = []
    for own, (scores, others) in enumerate(zip(found.scores, found.rows, strict=True)):
        kept = np.flatnonzero(others != own)[:NUM_NEIGHBOURS]
        same = (named[others[kept]] == named[own]) & (named[own] != "")
        hits.append((scores[kept], same))
    return joined(hits)


def joined(hits: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> Pairs:
    """The pairs of several queries, in their order."""
    sizes = [len(scores) for scores, _ in hits]
    return Pairs(
        np.concatenate([np.empty(0, np.float32), *(scores for scores, _ in hits)]),
        np.concatenate([np.empty(0, bool), *(same for _, same in hits)]),
        np.repeat(np.arange(len(hits)), sizes),
    )
