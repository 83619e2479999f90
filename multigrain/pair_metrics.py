"""Metrics of scored pairs pooled over all queries: is it the same thing, yes or no.

M pairs. Ties count against the model: of equal scores the wrong pairs come first.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from multigrain.metrics import MetricError

Floats = npt.NDArray[np.floating]
Weights = npt.NDArray[np.floating | np.integer]
Mask = npt.NDArray[np.bool_]


class Pooled(NamedTuple):
    """Pairs in descending order of their score, wrong ones first among equals.

    `right` bool [M]; `scores` [M]; `order` int64 [M], where each pair stood before;
    `last_of_score` bool [M], whether the next pair's score is another: a threshold can only
    lie behind such a pair. Weights [M], where a function takes them, say how often each pair
    counts (a bootstrap draw).
    """

    scores: Floats
    right: Mask
    order: npt.NDArray[np.int64]
    last_of_score: Mask


def pool_pairs(scores: Floats, right: Mask) -> Pooled:
    """Sort pairs of scores [M] and labels [M]; raises MetricError for a score not finite."""
    if scores.shape != right.shape:
        raise MetricError(f"{scores.shape} scores for {right.shape} labels")
    if not np.isfinite(scores).all():
        raise MetricError("a score is not finite: the embeddings are broken")
    order = np.lexsort((right, -scores))
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
    return Pooled(ranked, right[order].astype(bool), order, last)


def micro_ap(pooled: Pooled, num_positives: float, weights: Weights | None = None) -> float:
    """`1/n sum over right pairs of precision at them`, n positives in the truth (DISC21).

    Positives that are among no pair are in `num_positives` alone and add nothing.
    """
    right, count = _counts(pooled, weights)
    found = np.cumsum(right)
    precision = np.divide(found, np.cumsum(count), out=np.zeros(len(found)), where=right > 0)
    return float((precision * right).sum() / _positive(num_positives))


def recall_at_precision(
    pooled: Pooled, num_positives: float, precision: float, weights: Weights | None = None
) -> float:
    """The largest recall at a threshold of at least this precision, 0 when none has it."""
    right, count = _counts(pooled, weights)
    found, taken = np.cumsum(right), np.cumsum(count)
    kept = pooled.last_of_score & (found >= precision * taken) & (taken > 0)
    return float(found[kept].max(initial=0.0) / _positive(num_positives))


def recall_at_precision_90(
    pooled: Pooled, num_positives: float, weights: Weights | None = None
) -> float:
    """Recall at a precision of 90 %, the second figure of DISC21."""
    return recall_at_precision(pooled, num_positives, 0.9, weights)


def tpr_at_fpr(pooled: Pooled, fpr: float, weights: Weights | None = None) -> float:
    """The largest share of right pairs accepted while at most `fpr` of the wrong ones are."""
    right, wrong = _both(pooled, weights)
    accepted = pooled.last_of_score & (np.cumsum(wrong) <= fpr * wrong.sum())
    return float(np.cumsum(right)[accepted].max(initial=0.0) / right.sum())


def roc_area(pooled: Pooled, weights: Weights | None = None) -> float:
    """The share of (right, wrong) pairs of pairs in the right order, ties as half (ROC AUC)."""
    right, wrong = _both(pooled, weights)
    ends = np.flatnonzero(pooled.last_of_score)
    tpr = np.concatenate([[0.0], np.cumsum(right)[ends]]) / right.sum()
    fpr = np.concatenate([[0.0], np.cumsum(wrong)[ends]]) / wrong.sum()
    return float(np.trapezoid(tpr, fpr))


def _counts(pooled: Pooled, weights: Weights | None) -> tuple[Floats, Floats]:
    """How much each pair counts as right, and at all."""
    count = np.ones(len(pooled.right)) if weights is None else 1.0 * weights[pooled.order]
    return count * pooled.right, count


def _both(pooled: Pooled, weights: Weights | None) -> tuple[Floats, Floats]:
    right, count = _counts(pooled, weights)
    wrong = count - right
    if not right.sum() or not wrong.sum():
        raise MetricError("a ROC needs right and wrong pairs")
    return right, wrong


def _positive(num_positives: float) -> float:
    if not num_positives > 0:
        raise MetricError("no pair is right: nothing to score")
    return num_positives
