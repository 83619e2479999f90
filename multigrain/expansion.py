"""Vectors moved towards their neighbours: alpha query expansion and database augmentation.

Letters: Q queries, N gallery rows, D embedding, n neighbours.
"""

import numpy as np

from multigrain.ranking import Floats, RankingError, exact_search

# Radenovic, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation".
DEFAULT_ALPHA = 3.0
# 64 MiB of gathered neighbours at a time.
_BLOCK_VALUES = 1 << 24


def expanded_queries(
    queries: Floats, neighbours: Floats, cosines: Floats, *, alpha: float = DEFAULT_ALPHA
) -> Floats:
    """Each query plus its neighbours, weighted by max(cosine, 0) ** alpha: unit float32 [Q, D].

    Unit queries [Q, D], unit neighbours [Q, n, D] and their cosines [Q, n]; the query's own
    weight is 1. Search again with what is returned. Raises RankingError for other shapes and a
    negative alpha.
    """
    if neighbours.shape != (*cosines.shape, queries.shape[-1]) or len(queries) != len(cosines):
        raise RankingError(
            f"queries {queries.shape}, neighbours {neighbours.shape} and cosines {cosines.shape} "
            "must be [Q, D], [Q, n, D] and [Q, n]"
        )
    weighted = np.einsum("qn,qnd->qd", _weights(cosines, alpha), neighbours)
    return _unit(queries + weighted)


def augmented_gallery(gallery: Floats, n: int, *, alpha: float = DEFAULT_ALPHA) -> Floats:
    """Each gallery row plus its n nearest others, weighted as above: unit float32 [N, D].

    Unit gallery [N, D]. Raises RankingError for n < 1 and a negative alpha.
    """
    if n < 1:
        raise RankingError(f"n is {n}: a row moves towards at least one neighbour")
    moved = np.empty_like(gallery)
    step = max(1, _BLOCK_VALUES // ((n + 1) * gallery.shape[1]))
    for start in range(0, len(gallery), step):
        block = gallery[start : start + step]
        found = exact_search(block, gallery, n + 1)
        weights = _weights(found.scores, alpha)
        own = np.arange(start, start + len(block))[:, None]
        # Among equal rows its own may come anywhere, or not at all.
        weights[found.rows == own] = 0.0
        weights[(found.rows != own).all(axis=1), -1] = 0.0
        moved[start : start + step] = block + np.einsum("bn,bnd->bd", weights, gallery[found.rows])
    return _unit(moved)


def _weights(cosines: Floats, alpha: float) -> Floats:
    if not alpha >= 0:
        raise RankingError(f"alpha is {alpha}: a nearer neighbour must not count less")
    weights: Floats = np.maximum(cosines, 0) ** np.float32(alpha)
    return weights


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise RankingError("a vector and its neighbours cancel out, or hold what is not finite")
    unit: Floats = (rows / norms).astype(np.float32)
    return unit
