"""k-reciprocal re-ranking of top-k lists: never a matrix of all against all.

Zhong, Zheng, Cao, Li, "Re-ranking person re-identification with k-reciprocal encoding", 2017.
Its neighbourhoods are taken among a query and its own list, so that a query's answer depends on
nothing else; with complete lists that is the published formula over the query and the gallery.

Letters: Q queries, of which B in a block, N gallery rows, D embedding, k listed, M = k + 1 of
them with the query, which stands first.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multigrain.ranking import Floats, RankingError

# Values of the M x M matrices held at once; a block of them stays near the processor.
_BLOCK_VALUES = 1 << 19


class Neighbourhood(NamedTuple):
    """The constants, with the published values: k1, k2, and the weight of the cosine distance."""

    k1: int = 20
    k2: int = 6
    own_weight: float = 0.3


DEFAULT_NEIGHBOURHOOD = Neighbourhood()


def reciprocal_distances(
    queries: Floats, listed: Floats, constants: Neighbourhood = DEFAULT_NEIGHBOURHOOD
) -> Floats:
    """Distance of each query to each of its list, smaller is nearer: float32 [Q, k].

    Unit queries [Q, D] and the unit rows of their lists [Q, k, D]. The distance is
    `(1 - own_weight) * Jaccard distance + own_weight * (1 - cosine)`. Raises RankingError for
    other shapes and constants out of range.
    """
    _check(queries, listed, constants)
    parts = [
        _block_distances(torch.from_numpy(queries[part]), torch.from_numpy(listed[part]), constants)
        for part in _blocks(len(queries), listed.shape[1] + 1)
    ]
    return torch.cat([torch.empty(0, listed.shape[1]), *parts]).numpy()


def reranked_rows(
    queries: Floats,
    gallery: Floats,
    rows: NDArray[np.int64],
    constants: Neighbourhood = DEFAULT_NEIGHBOURHOOD,
) -> NDArray[np.int64]:
    """The same gallery rows of each list, re-ranked: int64 [Q, k]; equal distances stay in order.

    Unit queries [Q, D] and gallery [N, D], lists int64 [Q, k]. Memory beyond the result is a
    bounded block. Raises RankingError as `reciprocal_distances` does.
    """
    reranked = np.empty_like(rows)
    for part in _blocks(len(queries), rows.shape[1] + 1):
        distances = reciprocal_distances(queries[part], gallery[rows[part]], constants)
        order = np.argsort(distances, axis=1, kind="stable")
        reranked[part] = np.take_along_axis(rows[part], order, axis=1)
    return reranked


def _block_distances(queries: Tensor, listed: Tensor, constants: Neighbourhood) -> Tensor:
    """Queries [B, D] and lists [B, k, D] -> distances [B, k]."""
    with torch.inference_mode():
        rows = torch.cat([queries[:, None], listed], dim=1).float()
        cosines = rows @ rows.mT  # [B, M, M]
        # Each is its own nearest, also among equal rows.
        order = cosines.diagonal_scatter(torch.full(cosines.shape[:2], torch.inf), dim1=1, dim2=2)
        most = min(max(constants.k1 + 1, constants.k2), rows.shape[1])
        nearest = order.topk(most, dim=2).indices
        near = _reciprocal(nearest, constants.k1 + 1)
        closer = _reciprocal(nearest, round(constants.k1 / 2) + 1)
        codes = _extended(near, closer) * (cosines - 1).exp()
        codes /= codes.sum(dim=2, keepdim=True)
        # Local query expansion: the mean code of the k2 nearest, of which itself is one.
        codes = _among(nearest, constants.k2) @ codes / min(constants.k2, rows.shape[1])
        shared = torch.minimum(codes[:, :1], codes[:, 1:]).sum(dim=2)
        jaccard = 1 - shared / (2 - shared)  # every code sums to 1
        return (1 - constants.own_weight) * jaccard + constants.own_weight * (1 - cosines[:, 0, 1:])


def _among(nearest: Tensor, k: int) -> Tensor:
    """Whether column j is among the k nearest of row i, itself counted: 0 or 1 [B, M, M]."""
    size = nearest.shape[1]
    return torch.zeros(len(nearest), size, size).scatter_(2, nearest[:, :, :k], 1.0)


def _reciprocal(nearest: Tensor, k: int) -> Tensor:
    """Whether i and j are each among the k nearest of the other: 0 or 1 [B, M, M]."""
    mask = _among(nearest, k)
    return mask * mask.mT


def _extended(near: Tensor, closer: Tensor) -> Tensor:
    """R* of the paper: the closer set of a neighbour is added when two thirds of it are in R."""
    shared = near @ closer.mT
    is_added = near * (3 * shared >= 2 * closer.sum(dim=2)[:, None, :])
    return ((near + is_added @ closer) > 0).float()


def _blocks(num_queries: int, size: int) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // size**2)
    for start in range(0, num_queries, step):
        yield slice(start, start + step)


def _check(queries: Floats, listed: Floats, constants: Neighbourhood) -> None:
    if listed.shape != (len(queries), *listed.shape[1:2], queries.shape[-1]):
        raise RankingError(
            f"queries {queries.shape} and lists {listed.shape} must be [Q, D] and [Q, k, D]"
        )
    if constants.k1 < 1 or constants.k2 < 1 or not 0 <= constants.own_weight <= 1:
        raise RankingError(
            f"k1 {constants.k1} and k2 {constants.k2} must be at least 1, the cosine distance's "
            f"weight {constants.own_weight} in 0..1"
        )
