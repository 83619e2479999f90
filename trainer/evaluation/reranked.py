"""Ranks where each query's nearest are re-ranked by k-reciprocal neighbours, the rest as they were.

Q queries, N gallery rows, D embedding, k listed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from multigrain.metrics import Ranks
from multigrain.pair_metrics import Mask
from multigrain.ranking import Floats, exact_search
from multigrain.reciprocal import reciprocal_distances
from multigrain.truth import Rows, Truth
from trainer.evaluation.compared import Compared
from trainer.protocols.test_set import QuerySet

_BLOCK_VALUES = 1 << 24  # of gathered lists at a time: 64 MiB


class Reranked(NamedTuple):
    """Gallery rows int64 [k] in front of all others for a query, by distances float32 [k]."""

    rows: Rows
    distances: Floats


def reranked_lists(
    test_set: QuerySet, rows: Compared, own: range, *, num_listed: int
) -> list[Reranked]:
    """The nearest of each query of a part, with their k-reciprocal distances.

    A ranking knows no truth: rows that do not count are listed as others are. The query's own
    picture is nobody's neighbour; where it is found it stands in front of the list.
    """
    step = max(1, _BLOCK_VALUES // (num_listed * rows.gallery.shape[1]))
    asked, gallery = test_set.identities()
    lists = list[Reranked]()
    for start in range(own.start, own.stop, step):
        block = slice(start, min(start + step, own.stop))
        queries = rows.queries[block]
        found = exact_search(queries, rows.gallery, num_listed + 1).rows
        is_itself = gallery[found] == asked[block, None]
        lists += _reranked(queries, rows.gallery, found, is_itself, num_listed)
    return lists


def reranked_ranks(lists: Sequence[Reranked], plain: Sequence[Ranks], truth: Truth) -> list[Ranks]:
    """Ranks of each query's right answers, ascending; ties count against the model.

    `plain` are those of the rows as they were compared, of the same queries: a right answer
    that is not in its list keeps its own.
    """
    return [_ranks(*one) for one in zip(lists, plain, truth.relevant, truth.junk, strict=True)]


def _reranked(
    queries: Floats, gallery: Floats, found: Rows, is_itself: Mask, num_listed: int
) -> list[Reranked]:
    """Rows found [Q, k + 1], of which some are the query itself, as lists of at most k others."""
    lists = dict[int, Reranked]()
    counts = is_itself.sum(axis=1)
    for count in np.unique(counts):  # lists of one length are re-ranked together
        places = np.flatnonzero(counts == count)
        others = found[places][~is_itself[places]].reshape(len(places), -1)[:, :num_listed]
        distances = reciprocal_distances(queries[places], gallery[others])
        for place, listed, far in zip(places.tolist(), others, distances, strict=True):
            itself = found[place][is_itself[place]]
            near = np.full(len(itself), -np.inf, np.float32)
            lists[place] = Reranked(np.concatenate([itself, listed]), np.concatenate([near, far]))
    return [lists[place] for place in range(len(queries))]


def _ranks(listed: Reranked, plain: Ranks, relevant: Rows, junk: Rows) -> Ranks:
    counted = ~np.isin(listed.rows, junk)
    right = np.isin(listed.rows, relevant)[counted]
    order = np.lexsort((right, listed.distances[counted]))
    within = np.flatnonzero(right[order])
    beyond = plain[len(within) :]  # the worst of them: a list holds the nearest
    return np.concatenate([within, np.maximum(beyond, np.arange(len(beyond)) + len(order))])
