"""Exact search by inner product: the reference every index is held against.

Q queries, N gallery rows, D embedding, k neighbours.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.errors import MultiGrainError

# Scores held at once: 2^24 floats are 64 MiB.
_MAX_SCORES = 1 << 24

Floats = npt.NDArray[np.float32]


class RankingError(MultiGrainError):
    """Vectors that cannot be compared."""


class Ranking(NamedTuple):
    """For each query its best rows: scores [Q, k] float32 descending, rows [Q, k] int64."""

    scores: Floats
    rows: npt.NDArray[np.int64]


def exact_search(queries: Floats, gallery: Floats, k: int) -> Ranking:
    """The k gallery rows of largest inner product for each query; equal scores by row.

    float32 [Q, D] and [N, D], unit rows give cosines. k is cut to N. Memory beyond the result
    is bounded. Raises RankingError for other shapes, k < 1 or non-finite values.
    """
    _check(queries, gallery, k)
    k = min(k, len(gallery))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    step = max(1, _MAX_SCORES // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        block = queries[start : start + step] @ gallery.T
        for offset, row_scores in enumerate(block):
            best = best_rows(row_scores, k)
            scores[start + offset], rows[start + offset] = row_scores[best], best
    return Ranking(scores, rows)


def best_rows(scores: Floats, k: int) -> npt.NDArray[np.int64]:
    """Positions of the k largest of scores [N], descending, equal scores by position."""
    if k == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    return candidates[np.argsort(-scores[candidates], kind="stable")[:k]]


def _check(queries: Floats, gallery: Floats, k: int) -> None:
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:  # noqa: PLR2004
        raise RankingError(
            f"queries {queries.shape} and gallery {gallery.shape} must be [Q, D] and [N, D]"
        )
    if k < 1:
        raise RankingError(f"k is {k}: ask for at least one neighbour")
    for name, vectors in (("queries", queries), ("gallery", gallery)):
        if not np.isfinite(vectors).all():
            raise RankingError(f"the {name} hold values that are not finite")
