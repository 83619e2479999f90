"""The scores of the quality tables: means over queries."""

from collections.abc import Sequence
from typing import NamedTuple

from multigrain import rank_metrics
from multigrain.metrics import Ranks


class Scores(NamedTuple):
    """Means over queries; recall_at_k is the share with a positive among the first k."""

    recall_at_1: float
    recall_at_5: float
    ap: float
    ap_trapezoid: float
    num_queries: int


def mean_scores(ranks_of_queries: Sequence[Ranks], num_positives: Sequence[int]) -> Scores:
    """Means over queries that have positives; raises MetricError when there is none."""
    table = rank_metrics.RankTable.of(ranks_of_queries, num_positives)
    return Scores(
        recall_at_1=rank_metrics.mean(rank_metrics.recall_at_k(table, 1)),
        recall_at_5=rank_metrics.mean(rank_metrics.recall_at_k(table, 5)),
        ap=rank_metrics.mean(rank_metrics.ap(table)),
        ap_trapezoid=rank_metrics.mean(rank_metrics.ap_trapezoid(table)),
        num_queries=int((table.num_positives > 0).sum()),
    )
