"""Metrics against golden values, transcriptions and the pessimism about ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigrain.metrics import (
    MetricError,
    average_precision,
    average_precision_trapezoid,
    mean_scores,
    positive_ranks,
)

NOTHING = np.zeros(6, bool)


@pytest.mark.parametrize(
    ("ranks", "num_positives", "trapezoid", "rectangular"),
    [
        ([0], 1, 1.0, 1.0),
        ([1], 1, 0.25, 0.5),
        ([0, 2], 2, 0.791667, 0.833333),
        ([1, 3], 2, 0.333333, 0.5),
        ([0, 2, 5], 3, 0.677778, 0.722222),
        ([0, 2], 4, 0.395833, 0.416667),
        ([], 2, 0.0, 0.0),
    ],
)
def test_both_average_precisions_have_their_golden_values(
    ranks: list[int], num_positives: int, trapezoid: float, rectangular: float
) -> None:
    """Trapezoid and rectangular average precision by ranks and number of positives."""
    array = np.array(ranks, np.int64)
    assert average_precision_trapezoid(array, num_positives) == pytest.approx(trapezoid, abs=1e-6)
    assert average_precision(array, num_positives) == pytest.approx(rectangular, abs=1e-6)


def test_junk_is_removed_before_ranks_are_counted() -> None:
    """Ranking 1,0,2,5,3,4 with relevant 0 and 3: junk 1 and 2 lifts the score."""
    scores = np.array([5.0, 6.0, 4.0, 2.0, 1.0, 3.0])
    relevant = np.isin(np.arange(6), [0, 3])
    with_junk = positive_ranks(scores, relevant, np.isin(np.arange(6), [1, 2]))
    without = positive_ranks(scores, relevant, NOTHING)
    assert average_precision_trapezoid(with_junk, 2) == pytest.approx(0.791667, abs=1e-6)
    assert average_precision_trapezoid(without, 2) == pytest.approx(0.2875, abs=1e-6)


def test_ties_count_against_the_model() -> None:
    """With all scores equal every positive stands behind every negative."""
    relevant = np.array([True, False, False, True, False, False])
    assert positive_ranks(np.ones(6), relevant, NOTHING).tolist() == [4, 5]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    """A model that returns NaN gets an error, not a perfect mark."""
    with pytest.raises(MetricError, match="not finite"):
        positive_ranks(np.array([1.0, value]), np.array([True, False]), np.zeros(2, bool))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=1))
def test_ranks_equal_a_literal_sort(items: list[tuple[int, bool, bool]]) -> None:
    """Sorting by score with negatives first at equal score gives the same ranks."""
    scores, relevant, junk = (np.array(column) for column in zip(*items, strict=True))
    kept = [(score, good) for score, good, bad in items if not bad]
    kept.sort(key=lambda item: (-item[0], item[1]))
    expected = [rank for rank, (_, good) in enumerate(kept) if good]
    assert positive_ranks(scores.astype(float), relevant, junk).tolist() == expected


def test_means_leave_out_queries_without_positives() -> None:
    """Recall and average precision are means over the queries that can be answered."""
    ranks = [np.array([0]), np.array([3]), np.array([], np.int64)]
    scores = mean_scores(ranks, [1, 1, 0])
    assert (scores.recall_at_1, scores.recall_at_5, scores.num_queries) == (0.5, 1.0, 2)
    assert scores.ap == pytest.approx((1 + 0.25) / 2)


def test_no_query_with_a_positive_is_an_error() -> None:
    """Nothing to score is said, not returned as 0 or NaN."""
    with pytest.raises(MetricError, match="nothing to score"):
        mean_scores([np.array([], np.int64)], [0])
