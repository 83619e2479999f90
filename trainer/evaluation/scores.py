"""Scores of a test set: exact search shared out over the processes, metrics, intervals.

Q queries, N gallery rows, D embedding, k candidates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from multigrain import rank_metrics
from multigrain.bootstrap import Counts, Interval, mean_interval, statistic_interval
from multigrain.exact_ranks import Truth, exact_ranks, pair_scores
from multigrain.pair_metrics import (
    micro_ap,
    pool_pairs,
    recall_at_precision_90,
    roc_area,
    tpr_at_fpr,
)
from multigrain.rank_metrics import RankTable, Values
from multigrain.ranking import Floats, exact_search
from trainer.engine.processes import Processes
from trainer.losses.gather import own_slice
from trainer.protocols.test_set import PairSet, QuerySet

# Of pooled pairs: the best of each query, and of all (what DISC21 lets one hand in).
CANDIDATES = 10
MOST_CANDIDATES = 500_000
_RESAMPLES_OF_POOLS = 200  # each looks at every pair again
_FPRS = {"tpr_at_fpr_0.1": 0.1, "tpr_at_fpr_0.01": 0.01, "tpr_at_fpr_0.001": 0.001}


class Score(NamedTuple):
    """A metric over all queries, with the interval in which it lies under other queries."""

    value: float
    interval: Interval


class Scores(NamedTuple):
    """What a test set gives: metrics by full name, and where they are means their values."""

    metrics: dict[str, Score]
    per_query: dict[str, Values]
    num_queries: int
    num_gallery: int


def score_test_set(
    test_set: QuerySet, vectors: Floats, processes: Processes, *, seed: int
) -> Scores:
    """Scores of unit vectors [n, D] of the test set's pictures, equal on every process.

    Raises MetricError for vectors that are not finite and for a truth without answers.
    """
    queries, gallery = vectors[test_set.queries], vectors[test_set.gallery]
    metrics, per_query = dict[str, Score](), dict[str, Values]()
    for name, truth in test_set.truths.items():
        prefix = f"{name}." if name else ""
        table = _ranked(queries, gallery, truth, test_set.metrics, processes)
        for metric in test_set.metrics:
            values = rank_metrics.metric(metric)(table)
            per_query[prefix + metric] = values
            metrics[prefix + metric] = Score(
                rank_metrics.mean(values), mean_interval(values, seed=seed)
            )
        if test_set.pooled:
            pooled = _pooled(queries, gallery, truth, processes, seed=seed)
            metrics |= {prefix + metric: score for metric, score in pooled.items()}
    return Scores(metrics, per_query, len(queries), len(gallery))


def score_pairs(pairs: PairSet, vectors: Floats, *, seed: int) -> Scores:
    """ROC of the cosines of the pairs; intervals over drawn pairs. Raises MetricError."""
    rows = torch.from_numpy(np.stack([pairs.first, pairs.second]))
    unit = torch.from_numpy(vectors)
    cosines = pair_scores(unit, unit, rows).numpy()
    pooled = pool_pairs(cosines, pairs.same)
    measures: dict[str, Callable[[Counts | None], float]] = {
        "roc_area": lambda weights: roc_area(pooled, weights),
        **{
            name: lambda weights, fpr=fpr: tpr_at_fpr(pooled, fpr, weights)  # type: ignore[misc]
            for name, fpr in _FPRS.items()
        },
    }
    return Scores(_drawn(measures, len(cosines), seed=seed), {}, len(cosines), len(vectors))


def _ranked(
    queries: Floats, gallery: Floats, truth: Truth, metrics: Sequence[str], processes: Processes
) -> RankTable:
    """Ranks of every query's positives, each process having searched for a part of the queries."""
    own = own_slice(len(queries))
    num_positives = truth.num_positives()
    found = exact_ranks(
        _on(processes, queries[own.start : own.stop]),
        _on(processes, gallery),
        truth.part(own),
        limit=rank_metrics.highest_rank(metrics, num_positives),
    )
    ranks = [rank for part in processes.gather(found) for rank in part]
    return RankTable.of(ranks, num_positives)


def _pooled(
    queries: Floats, gallery: Floats, truth: Truth, processes: Processes, *, seed: int
) -> dict[str, Score]:
    """micro_ap and recall_at_precision_90 of the best candidates of all queries."""
    own = own_slice(len(queries))
    part = exact_search(queries[own.start : own.stop], gallery, CANDIDATES)
    parts = zip(*processes.gather(tuple(part)), strict=True)
    scores, rows = (np.concatenate(some) for some in parts)
    relevant = np.split(truth.pairs()[1], np.cumsum(truth.num_positives())[:-1])
    right = np.stack([np.isin(*pair) for pair in zip(rows, relevant, strict=True)])
    counted = ~np.stack([np.isin(*pair) for pair in zip(rows, truth.junk, strict=True)])
    query = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)[counted]
    best = np.argsort(-scores[counted], kind="stable")[:MOST_CANDIDATES]
    query, pooled = query[best], pool_pairs(scores[counted][best], right[counted][best])
    num_right = np.array([len(own) for own in relevant])

    def measure(
        function: Callable[..., float], counts: Counts | None
    ) -> float:  # as often as its query was drawn
        if counts is None:
            return function(pooled, float(num_right.sum()))
        return function(pooled, float(num_right @ counts), counts[query])

    measures: dict[str, Callable[[Counts | None], float]] = {
        "micro_ap": lambda counts: measure(micro_ap, counts),
        "recall_at_precision_90": lambda counts: measure(recall_at_precision_90, counts),
    }
    return _drawn(measures, len(queries), seed=seed)


def _drawn(
    measures: Mapping[str, Callable[[Counts | None], float]], num_drawn: int, *, seed: int
) -> dict[str, Score]:
    return {
        name: Score(
            measure(None),
            statistic_interval(measure, num_drawn, seed=seed, resamples=_RESAMPLES_OF_POOLS),
        )
        for name, measure in measures.items()
    }


def _on(processes: Processes, rows: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(rows).to(processes.device)
