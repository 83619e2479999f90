"""Neighbours in another order: the index gives what the formulas give of its rows."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from index_fixtures import build, random_units, write_vectors
from stub_embedder import VectorEmbedder

from index.searcher import Searcher
from index.searching.reranking import NUM_EXPANDING, NUM_RECIPROCAL, Rerank
from index.searching.scoring import Ranked
from multigrain.expansion import expanded_queries
from multigrain.ranking import exact_search
from multigrain.reciprocal import reciprocal_distances

NUM_ROWS = 400


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """An index of 400 vectors, every one of which is compared."""
    folder = tmp_path_factory.mktemp("rerank")
    photos = write_vectors(folder / "photos", random_units(NUM_ROWS))
    build(photos, folder / "index", VectorEmbedder(), factory="Flat")
    with closing(Searcher.open(folder / "index")) as searcher:
        yield searcher


def stored(searcher: Searcher) -> np.ndarray:
    return searcher.embeddings(range(NUM_ROWS))


def test_aqe_searches_again_with_the_query_moved_towards_its_neighbours(opened: Searcher) -> None:
    """Ordered by the moved query, scored by the query itself, whatever its length."""
    rows, query = stored(opened), random_units(1, seed=7)
    first = exact_search(query, rows, NUM_EXPANDING)
    moved = expanded_queries(query, rows[first.rows], first.scores)
    expected = exact_search(moved, rows, 30).rows[0]
    (found,) = opened.rank(3 * query, 30, rerank=Rerank.AQE)
    assert found.ids.tolist() == expected.tolist()
    assert found.ids.tolist() != opened.rank(query, 30)[0].ids.tolist()
    assert found.scores == pytest.approx(rows[expected] @ query[0], abs=1e-5)


def test_kreciprocal_reorders_the_nearest_two_hundred(opened: Searcher) -> None:
    """Behind them the others follow by cosine; pages are cut from one order."""
    rows, query = stored(opened), random_units(1, seed=8)
    nearest = exact_search(query, rows, NUM_ROWS).rows[0]
    head = nearest[:NUM_RECIPROCAL]
    order = np.argsort(reciprocal_distances(query, rows[head][None])[0], kind="stable")
    expected = np.concatenate([head[order], nearest[NUM_RECIPROCAL:]])
    (whole,) = opened.rank(query, NUM_ROWS, rerank=Rerank.KRECIPROCAL)
    assert whole.ids.tolist() == expected.tolist()
    assert whole.scores == pytest.approx(rows[expected] @ query[0], abs=1e-5)
    (page,) = opened.rank(query, 12, rerank=Rerank.KRECIPROCAL)
    assert page.ids.tolist() == expected[:12].tolist()


@pytest.mark.parametrize("rerank", Rerank)
def test_only_allowed_contents_are_found_and_none_where_there_are_none(
    opened: Searcher, rerank: Rerank
) -> None:
    """Neither among what is found nor among what a query moves towards."""
    queries = random_units(3, seed=9)
    allowed = np.array([5, 17, 80, 300])
    for found in opened.rank(queries, 10, allowed=allowed, rerank=rerank):
        assert sorted(found.ids) == allowed.tolist()
    nothing: list[Ranked] = opened.rank(queries, 10, allowed=allowed[:0], rerank=rerank)
    assert [len(one.ids) for one in nothing] == [0, 0, 0]
