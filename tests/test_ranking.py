"""Exact search against a literal sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigrain.ranking import RankingError, exact_search


@given(
    num_rows=st.integers(1, 30),
    num_queries=st.integers(1, 4),
    k=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_exact_search_equals_a_stable_sort(
    num_rows: int, num_queries: int, k: int, seed: int
) -> None:
    """Few distinct values make many ties; they come in row order."""
    rng = np.random.default_rng(seed)
    gallery = rng.integers(-1, 2, (num_rows, 3)).astype(np.float32)
    queries = rng.integers(-1, 2, (num_queries, 3)).astype(np.float32)
    found = exact_search(queries, gallery, k)
    for query, rows in zip(queries, found.rows, strict=True):
        order = sorted(range(num_rows), key=lambda row: (-float(query @ gallery[row]), row))
        assert rows.tolist() == order[:k]


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.zeros((1, 4), np.float32), 1, "must be"),
        (np.zeros((1, 3), np.float32), 0, "at least one"),
        (np.full((1, 3), np.nan, np.float32), 1, "not finite"),
    ],
)
def test_what_cannot_be_ranked_is_refused(queries: np.ndarray, k: int, message: str) -> None:
    """Wrong shapes, k = 0 and NaN are errors with a reason."""
    with pytest.raises(RankingError, match=message):
        exact_search(queries, np.ones((2, 3), np.float32), k)
