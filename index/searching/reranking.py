"""The neighbours of a query in another order than that of their cosines.

Letters: Q queries, D embedding, k neighbours.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from index.searching.scoring import Ranked
from multigrain.expansion import expanded_queries
from multigrain.reciprocal import reciprocal_distances

# How many neighbours a query moves towards: 3 found more than 5 and 10 wherever it was measured.
NUM_EXPANDING = 3
# Fixed, so that the pages of a query are cut from one order.
NUM_RECIPROCAL = 200

Search = Callable[[NDArray[np.float32], int], list[Ranked]]
Embeddings = Callable[[Sequence[int]], NDArray[np.float32]]


class Rerank(StrEnum):
    """How what a search has found is ordered."""

    NONE = "none"
    AQE = "aqe"
    KRECIPROCAL = "kreciprocal"


def reranked(
    rerank: Rerank,
    queries: NDArray[np.float32],
    k: int,
    *,
    search: Search,
    embeddings: Embeddings,
) -> list[Ranked]:
    """The k best of each query fp32 [Q, D] in the order asked for, with their cosines to it.

    `search` gives nearest contents by falling cosine, `embeddings` their unit rows fp32 [n, D].
    `aqe` searches again with the query moved towards its three nearest; `kreciprocal` re-ranks
    the nearest 200, behind which the others follow by cosine.
    """
    if rerank == Rerank.AQE:
        return _expanded(queries, k, search, embeddings)
    if rerank == Rerank.KRECIPROCAL:
        found = search(queries, max(k, NUM_RECIPROCAL))
        units = _units(queries)
        return [_by_reciprocity(*pair, k, embeddings) for pair in zip(units, found, strict=True)]
    return search(queries, k)


def _expanded(
    queries: NDArray[np.float32], k: int, search: Search, embeddings: Embeddings
) -> list[Ranked]:
    nearest = search(queries, NUM_EXPANDING)
    units = _units(queries)
    moved = [
        expanded_queries(unit[None], embeddings(one.ids.tolist())[None], one.scores[None])
        for unit, one in zip(units, nearest, strict=True)
    ]
    found = search(np.concatenate([units[:0], *moved]), k)
    return [
        Ranked(one.ids, _cosines(unit, embeddings(one.ids.tolist())))
        for unit, one in zip(units, found, strict=True)
    ]


def _by_reciprocity(
    unit: NDArray[np.float32], found: Ranked, k: int, embeddings: Embeddings
) -> Ranked:
    head = found.ids[:NUM_RECIPROCAL]
    distances = reciprocal_distances(unit[None], embeddings(head.tolist())[None])[0]
    order = np.arange(len(found.ids))
    order[: len(head)] = np.argsort(distances, kind="stable")
    return Ranked(found.ids[order[:k]], found.scores[order[:k]])


def _units(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    units: NDArray[np.float32] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    return units


def _cosines(unit: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    cosines: NDArray[np.float32] = np.vecdot(rows, unit).clip(-1.0, 1.0)
    return cosines
