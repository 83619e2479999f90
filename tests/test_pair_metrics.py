"""Metrics of pooled pairs against golden values, literal loops, and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigrain.metrics import MetricError
from multigrain.pair_metrics import (
    micro_ap,
    pool_pairs,
    recall_at_precision,
    recall_at_precision_90,
    roc_area,
    tpr_at_fpr,
)

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30).filter(
    lambda pairs: len({right for _, right in pairs}) > 1
)


def split(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([float(score) for score, _ in pairs]), np.array([right for _, right in pairs])


@pytest.mark.parametrize(
    ("scores", "right", "num_positives", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [True, False, True, False], 2, 0.833333),
        ([0.5, 0.5, 0.5, 0.5], [True, False, True, False], 2, 0.416667),
        ([0.9], [True], 2, 0.5),
    ],
)
def test_micro_ap_has_its_golden_values(
    scores: list[float], right: list[bool], num_positives: int, expected: float
) -> None:
    """Ordered, all scores tied, and one of two positives not among the predictions."""
    pooled = pool_pairs(np.array(scores), np.array(right))
    assert micro_ap(pooled, num_positives) == pytest.approx(expected, abs=1e-6)


@given(PAIRS)
def test_micro_ap_and_recall_at_precision_equal_a_loop(pairs: list[tuple[int, bool]]) -> None:
    """Precision at each right pair, wrong pairs of its score before it; recall by threshold."""
    pooled = pool_pairs(*split(pairs))
    n = sum(right for _, right in pairs)
    ranked = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    hits = [place for place, (_, right) in enumerate(ranked, start=1) if right]
    expected = sum(j / place for j, place in enumerate(hits, start=1)) / n
    assert micro_ap(pooled, n) == pytest.approx(expected)
    best = 0.0
    for threshold in {score for score, _ in pairs}:
        taken = [right for score, right in pairs if score >= threshold]
        if sum(taken) / len(taken) >= 0.5:
            best = max(best, sum(taken) / n)
    assert recall_at_precision(pooled, n, 0.5) == pytest.approx(best)


@given(PAIRS, st.sampled_from([0.0, 0.1, 0.3, 1.0]))
def test_the_roc_equals_a_loop_over_thresholds(pairs: list[tuple[int, bool]], fpr: float) -> None:
    """The accepted right pairs while no more wrong ones are accepted than asked."""
    scores, right = split(pairs)
    best = 0.0
    for threshold in set(scores):
        accepted = scores >= threshold
        if accepted[~right].mean() <= fpr:
            best = max(best, accepted[right].mean())
    pooled = pool_pairs(scores, right)
    assert tpr_at_fpr(pooled, fpr) == pytest.approx(best)
    order = np.sign(scores[right][:, None] - scores[~right])
    assert roc_area(pooled) == pytest.approx(((order + 1) / 2).mean())


def test_the_roc_equals_scikit_learn() -> None:
    """Its area and its points, with ties."""
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the dev extra")
    random = np.random.default_rng(0)
    right = random.random(500) < 0.4
    scores = np.round(random.normal(size=500) + right, 1)
    pooled = pool_pairs(scores, right)
    assert roc_area(pooled) == pytest.approx(sklearn.roc_auc_score(right, scores))
    fpr, tpr, _ = sklearn.roc_curve(right, scores)
    assert tpr_at_fpr(pooled, 0.1) == pytest.approx(tpr[fpr <= 0.1].max())


def test_a_pair_drawn_twice_counts_like_two() -> None:
    """Weights are what the bootstrap draws."""
    scores, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    weights = np.array([2, 0, 1, 3])
    drawn = np.repeat(np.arange(4), weights)
    twice = pool_pairs(scores[drawn], right[drawn])
    once = pool_pairs(scores, right)
    assert tpr_at_fpr(once, 0.1, weights) == tpr_at_fpr(twice, 0.1)
    assert roc_area(once, weights) == pytest.approx(roc_area(twice))
    assert recall_at_precision_90(once, 3, weights) == recall_at_precision_90(twice, 3)


def test_pairs_that_cannot_be_scored_are_refused() -> None:
    """Scores that are no numbers, nothing right, nothing wrong."""
    with pytest.raises(MetricError, match="not finite"):
        pool_pairs(np.array([np.nan]), np.array([True]))
    only_wrong = pool_pairs(np.array([0.1]), np.array([False]))
    with pytest.raises(MetricError, match="nothing to score"):
        micro_ap(only_wrong, 0)
    with pytest.raises(MetricError, match="right and wrong"):
        tpr_at_fpr(only_wrong, 0.1)
