"""Scores of a test set: exact search shared out over the processes, metrics, intervals.

Q queries, N gallery rows, M background rows, D embedding, P pairs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from multigrain import rank_metrics
from multigrain.bootstrap import Estimate, estimated_mean, statistic_interval
from multigrain.exact_ranks import exact_ranks
from multigrain.metrics import Ranks
from multigrain.pair_metrics import pool_pairs, roc_area, tpr_at_fpr
from multigrain.rank_metrics import RankTable, Values
from multigrain.ranking import Floats
from multigrain.right_pairs import pair_scores
from multigrain.truth import Truth
from trainer.engine.processes import Processes
from trainer.evaluation.compared import Compared
from trainer.evaluation.pooled import Measure, pooled_measures
from trainer.evaluation.reranked import Reranked, reranked_lists, reranked_ranks
from trainer.losses.gather import own_slice
from trainer.protocols.test_set import PairSet, QuerySet

_RESAMPLES_OF_POOLS = 200  # each looks at every pair again
_FPRS = {"tpr_at_fpr_0.1": 0.1, "tpr_at_fpr_0.01": 0.01, "tpr_at_fpr_0.001": 0.001}


class Scores(NamedTuple):
    """What a test set gives: metrics by full name, and where they are means their values."""

    metrics: dict[str, Estimate]
    per_query: dict[str, Values]
    num_queries: int
    num_gallery: int


def score_test_set(
    test_set: QuerySet,
    rows: Compared,
    processes: Processes,
    *,
    background: Floats | None = None,
    num_reranked: int = 0,
    seed: int,
) -> Scores:
    """Scores of a test set by the rows that are compared, equal on every process.

    With a background, unit rows [M, D] of photos that answer nothing, its pairs are pooled, too,
    as they are and normalised. With `num_reranked` every metric is also that of the ranking whose
    first so many are re-ranked by k-reciprocal neighbours, and what that gains. Raises
    MetricError for rows that are not finite and for a truth without answers.
    """
    metrics, per_query = dict[str, Estimate](), dict[str, Values]()
    own = own_slice(len(rows.queries))
    lists = reranked_lists(test_set, rows, own, num_listed=num_reranked) if num_reranked else None
    for name, truth in test_set.truths.items():
        prefix = f"{name}." if name else ""
        table, again = _ranked(rows, truth, test_set.metrics, processes, lists)
        for metric in test_set.metrics:
            values = rank_metrics.metric(metric)(table)
            per_query[prefix + metric] = values
            metrics[prefix + metric] = estimated_mean(values, seed=seed)
            if again is not None:
                better = rank_metrics.metric(metric)(again)
                per_query[f"{prefix}{metric}_reranked"] = better
                metrics[f"{prefix}{metric}_reranked"] = estimated_mean(better, seed=seed)
                metrics[f"{prefix}{metric}_reranked_gain"] = estimated_mean(
                    better - values, seed=seed
                )
        if test_set.pooled or background is not None:
            pooled = pooled_measures(rows, truth, processes, background)
            found = _drawn(pooled, len(rows.queries), seed=seed)
            metrics |= {prefix + metric: score for metric, score in found.items()}
    return Scores(metrics, per_query, len(rows.queries), len(rows.gallery))


def score_first(test_set: QuerySet, rows: Compared, processes: Processes) -> float:
    """The mean of a test set's first metric, of its first truth; raises MetricError."""
    metrics = test_set.metrics[:1]
    table, _ = _ranked(rows, next(iter(test_set.truths.values())), metrics, processes, None)
    return rank_metrics.mean(rank_metrics.metric(metrics[0])(table))


def pair_cosines(pairs: PairSet, vectors: Floats) -> Floats:
    """Cosines [P] of the pairs, of unit vectors [n, D] of their pictures."""
    rows = torch.from_numpy(np.stack([pairs.first, pairs.second]))
    unit = torch.from_numpy(vectors)
    cosines: Floats = pair_scores(unit, unit, rows).numpy()
    return cosines


def score_pairs(pairs: PairSet, cosines: Floats, *, seed: int) -> Scores:
    """ROC of the cosines [P] of the pairs; intervals over drawn pairs. Raises MetricError."""
    pooled = pool_pairs(cosines, pairs.same)
    measures: dict[str, Measure] = {
        "roc_area": lambda weights: roc_area(pooled, weights),
        **{
            name: lambda weights, fpr=fpr: tpr_at_fpr(pooled, fpr, weights)  # type: ignore[misc]
            for name, fpr in _FPRS.items()
        },
    }
    metrics = _drawn(measures, len(cosines), seed=seed)
    return Scores(metrics, {}, len(cosines), len(pairs.pictures))


def _ranked(
    rows: Compared,
    truth: Truth,
    metrics: Sequence[str],
    processes: Processes,
    lists: Sequence[Reranked] | None,
) -> tuple[RankTable, RankTable | None]:
    """Ranks of every query's positives, and again where this process's lists come first.

    Each process searches for a part of the queries.
    """
    own = own_slice(len(rows.queries))
    num_positives, part = truth.num_positives(), truth.part(own)
    found = exact_ranks(
        _on(processes, rows.queries[own.start : own.stop]),
        _on(processes, rows.gallery),
        part,
        limit=rank_metrics.highest_rank(metrics, num_positives),
    )

    def table(ranks: list[Ranks]) -> RankTable:
        return RankTable.of(
            [rank for one in processes.gather(ranks) for rank in one], num_positives
        )

    again = None if lists is None else table(reranked_ranks(lists, found, part))
    return table(found), again


def _drawn(measures: Mapping[str, Measure], num_drawn: int, *, seed: int) -> dict[str, Estimate]:
    return {
        name: Estimate(
            measure(None),
            statistic_interval(measure, num_drawn, seed=seed, resamples=_RESAMPLES_OF_POOLS),
        )
        for name, measure in measures.items()
    }


def _on(processes: Processes, rows: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(rows).to(processes.device)
