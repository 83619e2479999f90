"""Query expansion, k-reciprocal re-ranking and score normalisation against literal formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_reciprocal import zhong

from multigrain.background import normalised_gallery, normalised_queries
from multigrain.expansion import augmented_gallery, expanded_queries
from multigrain.ranking import Floats, RankingError, exact_search
from multigrain.reciprocal import Neighbourhood, reciprocal_distances, reranked_rows


def units(num_rows: int, dim: int = 6, *, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).normal(size=(num_rows, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(1, 24),
    k1=st.integers(1, 12),
    k2=st.integers(1, 8),
    own_weight=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_k_reciprocal_distances_of_complete_lists_are_those_of_the_paper(
    num_rows: int, k1: int, k2: int, own_weight: float, seed: int
) -> None:
    """A list that holds the gallery leaves nothing out, whatever the constants."""
    constants = Neighbourhood(k1, k2, own_weight)
    gallery, queries = units(num_rows, seed=seed), units(2, seed=seed + 1)
    listed = np.stack([gallery, gallery[::-1]])
    found = reciprocal_distances(queries, listed, constants)
    assert found[0] == pytest.approx(zhong(queries[0], gallery, constants), abs=1e-5)
    assert found[1] == pytest.approx(zhong(queries[1], gallery[::-1], constants), abs=1e-5)


def test_k_reciprocal_lists_keep_their_rows_and_gather_clusters() -> None:
    """Among clusters that overlap, more of the first nine are the query's own."""
    rng = np.random.default_rng(5)
    rows = np.repeat(units(30, 32), 10, axis=0) + rng.normal(scale=0.22, size=(300, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries, gallery = rows[::10], np.delete(rows, np.s_[::10], axis=0)
    listed = exact_search(queries, gallery, 60).rows
    again = reranked_rows(queries, gallery, listed, Neighbourhood(10, 3, 0.3))
    assert (np.sort(again, axis=1) == np.sort(listed, axis=1)).all()
    own = np.arange(30)[:, None]
    before, after = ((found[:, :9] // 9 == own).mean() for found in (listed, again))
    assert after > before + 0.05


def test_an_expanded_query_is_the_weighted_sum_of_its_neighbours() -> None:
    """The formula by hand; a neighbour on the other side weighs nothing."""
    queries, neighbours = units(2), units(6, seed=1).reshape(2, 3, 6)
    cosines = np.einsum("qd,qnd->qn", queries, neighbours)
    cosines[0, 2] = -0.5
    found = expanded_queries(queries, neighbours, cosines, alpha=2)
    for query in range(2):
        total = queries[query].copy()
        for place in range(3):
            total += max(0, cosines[query, place]) ** 2 * neighbours[query, place]
        assert found[query] == pytest.approx(total / np.linalg.norm(total), abs=1e-6)


def test_an_augmented_gallery_leaves_the_row_itself_at_weight_one() -> None:
    """Each row is expanded with its nearest others, also where equal rows stand before it."""
    gallery = units(9)
    gallery[3] = gallery[1]
    found = augmented_gallery(gallery, 3, alpha=1)
    for row in range(9):
        others = [i for i in range(9) if i != row]
        ranked = exact_search(gallery[row : row + 1], gallery[others], 3)
        rows = gallery[others][ranked.rows]
        expected = expanded_queries(gallery[row : row + 1], rows, ranked.scores, alpha=1)[0]
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_normalised_scores_are_cosines_less_the_nearness_to_the_background() -> None:
    """By one more dimension, through the same search; no query's ranking changes."""
    queries, gallery, background = units(4), units(20, seed=1), units(15, seed=2)
    plain = exact_search(queries, gallery, 20)
    found = exact_search(
        normalised_queries(queries, background, num_nearest=3, weight=0.5),
        normalised_gallery(gallery),
        20,
    )
    assert (found.rows == plain.rows).all()
    nearest = np.sort(queries @ background.T, axis=1)[:, -3:].mean(axis=1)
    assert found.scores == pytest.approx(plain.scores - 0.5 * nearest[:, None], abs=1e-6)


def test_what_cannot_be_reranked_is_refused() -> None:
    """Wrong shapes, constants out of range and an empty background say what is wrong."""
    queries, listed = units(2), units(6).reshape(2, 3, 6)
    with pytest.raises(RankingError, match="must be"):
        reciprocal_distances(queries, listed[:1])
    with pytest.raises(RankingError, match="at least 1"):
        reciprocal_distances(queries, listed, Neighbourhood(k1=0))
    with pytest.raises(RankingError, match="must be"):
        expanded_queries(queries, listed, np.ones((2, 2), np.float32))
    with pytest.raises(RankingError, match="alpha"):
        expanded_queries(queries, listed, np.ones((2, 3), np.float32), alpha=-1)
    with pytest.raises(RankingError, match="background"):
        normalised_queries(queries, queries[:0])
