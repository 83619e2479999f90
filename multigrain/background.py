"""Scores that compare across queries: the mean cosine to a background set is taken off.

A query that looks like everything scores high everywhere; subtracting how near it is to photos
that answer nothing (Douze and others, "The 2021 image similarity dataset and challenge")
makes one threshold serve all queries. Written as one more dimension, it leaves every search by
inner product, exact or approximate, as it is, and no query's own ranking changes.

Letters: Q queries, N gallery rows, M background rows, D embedding.
"""

import numpy as np

from multigrain.ranking import Floats, RankingError, exact_search

DEFAULT_NEAREST = 10


def normalised_queries(
    queries: Floats, background: Floats, *, num_nearest: int = DEFAULT_NEAREST, weight: float = 1.0
) -> Floats:
    """Queries with the last dimension -weight * mean cosine to their nearest background rows.

    Unit queries [Q, D] and background [M, D] -> float32 [Q, D + 1]. Raises RankingError for an
    empty background and other shapes.
    """
    if not len(background):
        raise RankingError("the background holds no photo: nothing can be taken off")
    found = exact_search(queries, background, num_nearest)
    bias = found.scores.mean(axis=1, keepdims=True) * -np.float32(weight)
    return np.hstack([queries, bias]).astype(np.float32)


def normalised_gallery(gallery: Floats) -> Floats:
    """Gallery rows [N, D] with a last dimension of 1, to be searched with `normalised_queries`."""
    return np.hstack([gallery, np.ones((len(gallery), 1), np.float32)]).astype(np.float32)
