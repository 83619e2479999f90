"""k-reciprocal re-ranking of top-k lists: never a matrix of all against all.

Zhong, Zheng, Cao, Li, "Re-ranking person re-identification with k-reciprocal encoding", 2017.
Its neighbourhoods are taken among a query and its own list, so that a query's answer depends on
nothing else; with complete lists that is the published formula over the query and the gallery.

Letters: Q queries, of which B in a block, N gallery rows, D embedding, k listed, M = k + 1 of
them with the query, which stands first.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from multigrain.ranking import Floats, RankingError

# Values of the M x M matrices held at once; a block of them stays near the processor.
_BLOCK_VALUES = 1 << 18


class Neighbourhood(NamedTuple):
    """The constants: k1 and k2 as published, and the weight of the cosine distance.

    Published with 0.3, which costs those who look for one photo 5 points more of AP than 0.5
    (docs/decisions/0022-weight-of-the-cosine.md).
    """

    k1: int = 20
    k2: int = 6
    own_weight: float = 0.5


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
    distances = np.empty(listed.shape[:2], np.float32)
    for part in _blocks(len(queries), listed.shape[1] + 1):
        distances[part] = _block_distances(queries[part], listed[part], constants)
    return distances


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


def _block_distances(queries: Floats, listed: Floats, constants: Neighbourhood) -> Floats:
    """Queries [B, D] and lists [B, k, D] -> distances [B, k]."""
    rows = np.concatenate([queries[:, None], listed], axis=1, dtype=np.float32)
    apart = 1 - _product(rows, rows.swapaxes(1, 2))  # [B, M, M]
    ranks = _ranks(apart, min(max(constants.k1 + 1, constants.k2), rows.shape[1]))
    mutual = np.maximum(ranks, ranks.swapaxes(1, 2))
    extended = _extended(mutual <= constants.k1, mutual <= round(constants.k1 / 2))
    codes: Floats = np.exp(-apart) * extended
    codes /= codes.sum(axis=2, keepdims=True)
    # Local query expansion: the mean code of the k2 nearest, of which itself is one.
    codes = _product(ranks < constants.k2, codes) / np.float32(min(constants.k2, rows.shape[1]))
    shared = np.minimum(codes[:, :1], codes[:, 1:]).sum(axis=2)
    jaccard: Floats = 1 - shared / (2 - shared)  # every code sums to 1
    own_weight = np.float32(constants.own_weight)
    distances: Floats = (1 - own_weight) * jaccard + own_weight * apart[:, 0, 1:]
    return distances


def _ranks(apart: Floats, num: int) -> NDArray[np.int16]:
    """Place of j among the nearest of i, itself first, `num` from there on: [B, M, M].

    Equal distances stand by row. A distance and its row make one whole number: those are sorted
    several times as fast as the least are found with their places.
    """
    diagonal = np.arange(apart.shape[1])
    distances = np.maximum(apart, 0)  # not negative: the bits, as whole numbers, have their order
    distances[:, diagonal, diagonal] = -1
    keys = distances.view(np.int32).astype(np.int64)
    keys <<= 32
    keys |= diagonal
    keys.sort(axis=2)
    ranks = np.full(apart.shape, num, np.int16)
    np.put_along_axis(
        ranks, keys[:, :, :num] & 0xFFFFFFFF, np.arange(num, dtype=np.int16)[None, None], axis=2
    )
    return ranks


def _extended(near: NDArray[np.bool_], closer: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """R* of the paper: the closer set of a neighbour is added when two thirds of it are in R."""
    shared = _product(near, closer)  # reciprocity is symmetric
    is_added = near & (3 * shared >= 2 * closer.sum(axis=2)[:, None])
    extended: NDArray[np.bool_] = near | (_product(is_added, closer) > 0)
    return extended


def _product(left: NDArray[Any], right: NDArray[Any]) -> Floats:
    """Products of stacks of matrices, which torch spreads over the processors by matrix."""
    with torch.inference_mode():
        both = (torch.from_numpy(one.astype(np.float32, copy=False)) for one in (left, right))
        return torch.bmm(*both).numpy()


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
