"""Ranks of positives: junk, ties, and a literal sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigrain.metrics import MetricError, positive_ranks
from multigrain.rank_metrics import RankTable, ap_trapezoid

NOTHING = np.zeros(6, bool)


def test_junk_is_removed_before_ranks_are_counted() -> None:
    """Ranking 1,0,2,5,3,4 with relevant 0 and 3: junk 1 and 2 lifts the score."""
    scores = np.array([5.0, 6.0, 4.0, 2.0, 1.0, 3.0])
    relevant = np.isin(np.arange(6), [0, 3])
    with_junk = positive_ranks(scores, relevant, np.isin(np.arange(6), [1, 2]))
    without = positive_ranks(scores, relevant, NOTHING)
    table = RankTable.of([with_junk, without], [2, 2])
    assert ap_trapezoid(table) == pytest.approx([0.791667, 0.2875], abs=1e-6)


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
