"""The rows that are compared: as they were embedded, or moved towards their neighbours.

Q queries, N gallery rows, D embedding, n neighbours.
"""

from typing import NamedTuple

import numpy as np

from multigrain.expansion import augmented_gallery, expanded_queries
from multigrain.ranking import Floats, exact_search
from multigrain.truth import Rows
from trainer.engine.processes import Processes
from trainer.losses.gather import own_slice
from trainer.protocols.test_set import QuerySet

_BLOCK_VALUES = 1 << 24  # gathered neighbours at a time: 64 MiB


class Compared(NamedTuple):
    """Unit float32 rows of a test set's queries [Q, D] and gallery [N, D]."""

    queries: Floats
    gallery: Floats


def compared_rows(
    test_set: QuerySet,
    vectors: Floats,
    processes: Processes,
    *,
    query_expansion: int = 0,
    gallery_expansion: int = 0,
) -> Compared:
    """The rows of unit vectors [n, D] of the test set's pictures, equal on every process.

    First each gallery row moves towards its `gallery_expansion` nearest others, then each query
    towards its `query_expansion` nearest rows, of which its own picture is none.
    """
    queries, gallery = vectors[test_set.queries], vectors[test_set.gallery]
    if gallery_expansion:
        gallery = augmented_gallery(gallery, gallery_expansion)
    if query_expansion:
        own, identities = own_slice(len(queries)), test_set.identities()
        step = max(1, _BLOCK_VALUES // ((query_expansion + 1) * gallery.shape[1]))
        parts = [
            _moved(identities, queries, gallery, query_expansion, block)
            for block in (own[start : start + step] for start in range(0, len(own), step))
        ]
        queries = np.concatenate(processes.gather(np.concatenate([queries[:0], *parts])))
    return Compared(queries, gallery)


def _moved(
    identities: tuple[Rows, Rows], queries: Floats, gallery: Floats, n: int, block: range
) -> Floats:
    queries = queries[block.start : block.stop]
    found = exact_search(queries, gallery, n + 1)
    is_itself = identities[1][found.rows] == identities[0][block.start : block.stop, None]
    # Of the n + 1 nearest without itself the last is one too many; a cosine of 0 weighs nothing.
    scores = np.where(is_itself, 0.0, found.scores).astype(np.float32)
    scores[~is_itself.any(axis=1), n:] = 0.0
    return expanded_queries(queries, gallery[found.rows], scores)
