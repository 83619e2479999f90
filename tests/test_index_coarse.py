"""A search's lists: the nearest centroids, compared one and all or found by a graph of them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.codebook.rotation import Rotation
from index.faiss_lists import CoarseQuantizer
from index.faiss_train import train_codebook

NUM_LISTS, DIM = 256, 16


def units(num_rows: int, *, seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((num_rows, DIM), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def coarse(folder: Path, factory: str) -> CoarseQuantizer:
    sample = units(40 * NUM_LISTS, seed=0).astype(np.float16)
    path = folder / "trained.faiss"
    train_codebook(factory, sample, path, rotation=Rotation(), seed=1, num_threads=1)
    return CoarseQuantizer(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> CoarseQuantizer:
    return coarse(tmp_path_factory.mktemp("compared"), f"IVF{NUM_LISTS},SQ8")


@pytest.mark.parametrize("num_queries", [1, 40])
def test_a_graph_finds_nearly_the_lists_of_a_comparison(
    tmp_path: Path, compared: CoarseQuantizer, num_queries: int
) -> None:
    """A few lists a query, of the same centroids."""
    graph = coarse(tmp_path, f"IVF{NUM_LISTS}_HNSW16,SQ8")
    queries = units(40, seed=2)
    num_common = 0
    for start in range(0, 40, num_queries):
        part = queries[start : start + num_queries]
        found, wanted = graph.assign(part, 8), compared.assign(part, 8)
        assert found is not None
        assert wanted is not None
        pairs = zip(found.lists, wanted.lists, strict=True)
        num_common += sum(len(np.intersect1d(*pair)) for pair in pairs)
    assert num_common >= 0.95 * 8 * len(queries)


@pytest.mark.parametrize("factory", ["IVF256,SQ8", "IVF256_HNSW2,SQ8"])
def test_a_search_of_all_lists_gets_each_once(tmp_path: Path, factory: str) -> None:
    """Also where the graph has too few links to reach them all, best first."""
    found = coarse(tmp_path, factory).assign(units(40, seed=3), NUM_LISTS)
    assert found is not None
    assert np.array_equal(np.sort(found.lists, axis=1), np.tile(np.arange(NUM_LISTS), (40, 1)))
    assert (np.diff(found.scores, axis=1) <= 0).all()
