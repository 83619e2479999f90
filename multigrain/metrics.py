"""Retrieval metrics, each defined and named: never just "mAP".

A query's ranking is reduced to the ranks of its positives, 0-based, ascending. Junk is removed
before ranks are counted, and ties count against the model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.errors import MultiGrainError

Ranks = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class MetricError(MultiGrainError):
    """Scores that no metric can be computed from."""


class Scores(NamedTuple):
    """Means over queries; recall_at_k is the share with a positive among the first k."""

    recall_at_1: float
    recall_at_5: float
    ap: float
    ap_trapezoid: float
    num_queries: int


def positive_ranks(scores: npt.NDArray[np.floating], relevant: Mask, junk: Mask) -> Ranks:
    """Ranks of the relevant items of one query, from scores [N], relevant [N] and junk [N].

    A positive stands behind every negative of the same score. Junk that is also relevant is
    junk. Raises MetricError for a score that is not finite: a model that returns NaN must not
    pass for a perfect one.
    """
    if not np.isfinite(scores).all():
        raise MetricError("a score is not finite: the embeddings are broken")
    positives = np.sort(scores[relevant & ~junk])[::-1]
    negatives = np.sort(scores[~relevant & ~junk])
    num_at_or_above = len(negatives) - np.searchsorted(negatives, positives, side="left")
    return (num_at_or_above + np.arange(len(positives))).astype(np.int64)


def average_precision(ranks: Ranks, num_positives: int) -> float:
    """`1/n sum_j (j+1)/(r_j+1)`: rectangular, as in GLDv2 and scikit-learn.

    Positives that were not found are in `num_positives` only and add nothing.
    """
    found = np.arange(1, len(ranks) + 1)
    return float((found / (ranks + 1)).sum() / _counted(ranks, num_positives))


def average_precision_trapezoid(ranks: Ranks, num_positives: int) -> float:
    """`1/2n sum_j [(r_j == 0 ? 1 : j/r_j) + (j+1)/(r_j+1)]`, as in Holidays and Oxford/Paris."""
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    after = (found + 1) / (ranks + 1)
    return float((before + after).sum() / (2 * _counted(ranks, num_positives)))


def recall_at(ranks: Ranks, k: int) -> float:
    """1 when a positive is among the first k, else 0."""
    return float(len(ranks) > 0 and ranks[0] < k)


def mean_scores(ranks_of_queries: Sequence[Ranks], num_positives: Sequence[int]) -> Scores:
    """Means over queries that have positives; raises MetricError when there is none."""
    pairs = [pair for pair in zip(ranks_of_queries, num_positives, strict=True) if pair[1] > 0]
    if not pairs:
        raise MetricError("no query has a positive: nothing to score")
    return Scores(
        recall_at_1=float(np.mean([recall_at(ranks, 1) for ranks, _ in pairs])),
        recall_at_5=float(np.mean([recall_at(ranks, 5) for ranks, _ in pairs])),
        ap=float(np.mean([average_precision(*pair) for pair in pairs])),
        ap_trapezoid=float(np.mean([average_precision_trapezoid(*pair) for pair in pairs])),
        num_queries=len(pairs),
    )


def _counted(ranks: Ranks, num_positives: int) -> int:
    if num_positives < max(1, len(ranks)):
        raise MetricError(f"{num_positives} positives for {len(ranks)} ranks: no such query")
    return num_positives
