"""Searching gives the exact neighbours, whatever the shards and lists."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_fixtures import build, exact_neighbours, random_units, write_vectors
from stub_embedder import DIM, VectorEmbedder

from index.codebook.factory import factory_strings
from index.errors import IndexFolderError
from index.searcher import Searcher

NUM_ROWS = 700
EVERY_LIST = 10**6


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """An index of 700 rows in three shards of 16 lists."""
    folder = tmp_path_factory.mktemp("search")
    photos = write_vectors(folder / "photos", random_units(NUM_ROWS))
    build(photos, folder / "index", VectorEmbedder(), shard_rows=300)
    with closing(Searcher.open(folder / "index")) as searcher:
        yield searcher


def found(searcher: Searcher, query: np.ndarray, k: int) -> list[tuple[int, float]]:
    (neighbours,) = searcher.search(query[None], k, nprobe=EVERY_LIST)
    return [(one.id, one.score) for one in neighbours]


def assert_exact(searcher: Searcher, rows: np.ndarray, query: np.ndarray, k: int) -> None:
    expected = exact_neighbours(rows, query, len(rows))
    got = found(searcher, query, k)
    # The oracle sums in fp64, so rows nearer to each other than this may change places.
    error = 5e-7
    assert len({one for one, _ in got}) == len(got) == min(k, len(rows))
    cosine_of = dict(expected)
    assert [score for _, score in got] == pytest.approx(
        [cosine_of[one] for one, _ in got], abs=error
    )
    assert [score for _, score in got] == pytest.approx(
        [score for _, score in expected[:k]], abs=error
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 5, 10, 100]))
def test_three_shards_of_lists_give_the_exact_neighbours(
    opened: Searcher, seed: int, k: int
) -> None:
    """Any query finds what a product with every stored row finds, in the same order."""
    query = random_units(1, seed=seed)[0]
    assert len(opened.manifest.shards) == 3
    assert opened.manifest.factory == "IVF16,SQfp16"
    assert_exact(opened, random_units(NUM_ROWS), query, k)


def test_limit_above_the_rows_gives_every_row_once(opened: Searcher) -> None:
    """No row is missing, none comes twice, and none is -1."""
    ids = [one for one, _ in found(opened, random_units(1, seed=3)[0], 10_000)]
    assert sorted(ids) == list(range(NUM_ROWS))


def test_one_list_is_widened_until_there_are_enough(opened: Searcher) -> None:
    """A search of one list still gives the number that was asked for."""
    (neighbours,) = opened.search(random_units(1, seed=4), 400, nprobe=1)
    assert len(neighbours) == 400


@pytest.mark.parametrize("factory", ["Flat", "IVF4,SQ8", "IVF8,Flat"])
@pytest.mark.parametrize("shard_rows", [7, 1000])
def test_any_string_and_shard_size_gives_the_exact_neighbours(
    tmp_path: Path, factory: str, shard_rows: int
) -> None:
    """The lists choose candidates only; scores are of the stored rows."""
    rows = random_units(60, seed=1)
    photos = write_vectors(tmp_path / "photos", rows)
    build(photos, tmp_path / "index", VectorEmbedder(), factory=factory, shard_rows=shard_rows)
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        for query in random_units(5, seed=2):
            assert_exact(searcher, rows, query, 10)


@pytest.mark.parametrize("factory", ["Flat", "IVF4,SQfp16"])
def test_equal_rows_come_in_the_order_of_their_ids(tmp_path: Path, factory: str) -> None:
    """More equal rows than candidates: still the smallest ids, in order."""
    rows = np.repeat(random_units(3, seed=5), 60, axis=0)
    photos = write_vectors(tmp_path / "photos", rows)
    build(photos, tmp_path / "index", VectorEmbedder(), factory=factory, shard_rows=50)
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        assert [one for one, _ in found(searcher, rows[60], 5)] == [60, 61, 62, 63, 64]


def test_many_callers_at_once_get_what_one_caller_gets(opened: Searcher) -> None:
    """Eight threads searching together each get their own answer."""
    queries = random_units(40, seed=6)
    alone = [opened.search(query[None], 10) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: opened.search(query[None], 10), queries))
    assert together == alone
    assert [part for (part,) in alone] == opened.search(queries, 10)


@pytest.mark.parametrize(
    ("queries", "k", "nprobe", "word"),
    [
        (np.ones((1, DIM + 1)), 1, None, "shape"),
        (np.ones(DIM), 1, None, "shape"),
        (np.ones((1, DIM)), 0, None, "k is 0"),
        (np.ones((1, DIM)), 1, 0, "nprobe is 0"),
        (np.zeros((1, DIM)), 1, None, "zero"),
        (np.full((1, DIM), np.nan), 1, None, "finite"),
        (np.full((1, DIM), np.inf), 1, None, "finite"),
    ],
)
def test_a_wrong_question_is_refused(
    opened: Searcher, queries: np.ndarray, k: int, nprobe: int | None, word: str
) -> None:
    """The message names what is wrong."""
    with pytest.raises(IndexFolderError, match=word):
        opened.search(queries.astype(np.float32), k, nprobe=nprobe)


def test_no_query_gives_no_answer(opened: Searcher) -> None:
    """An empty batch is not an error."""
    assert opened.search(np.empty((0, DIM), np.float32), 5) == []


@pytest.mark.parametrize(
    ("num_rows", "dim", "string"),
    [
        (0, 512, "Flat"),
        (1, 512, "Flat"),
        (623, 512, "Flat"),
        (624, 512, "IVF16,SQfp16"),
        (9_999, 2048, "IVF16,SQfp16"),
        (10_000, 512, "IVF256,SQfp16"),
        (10_000, 2048, "IVF256,SQ8"),
        (19_968, 512, "IVF512,SQfp16"),
        (100_000, 512, "IVF2048_HNSW32,SQ8"),
        (10**6, 512, "IVF16384_HNSW32,SQ8"),
        (10**7, 512, "IVF65536_HNSW32,SQ8"),
    ],
)
def test_the_string_follows_the_table(num_rows: int, dim: int, string: str) -> None:
    """Lists are halved until each has 39 rows to be trained on."""
    assert factory_strings(num_rows=num_rows, dim=dim)[0] == string


@pytest.mark.parametrize("num_rows", [0, 1, 623, 624])
def test_a_boundary_size_builds_and_searches(tmp_path: Path, num_rows: int) -> None:
    """An empty folder gives an empty answer, one photo itself, and so on."""
    rows = random_units(max(num_rows, 1), seed=8)
    photos = write_vectors(tmp_path / "photos", rows[:num_rows])
    report = build(photos, tmp_path / "index", VectorEmbedder())
    assert report.factory == ("IVF16,SQfp16" if num_rows == 624 else "Flat")
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        assert_exact(searcher, rows[:num_rows], rows[0], 3)


@pytest.mark.parametrize("factory", ["HNSW32", "PCA8,IVF4,Flat", "nonsense", "IVF512,SQ8"])
def test_a_string_that_cannot_be_served_is_refused(tmp_path: Path, factory: str) -> None:
    """Unknown strings, pre-transforms, and more lists than rows."""
    photos = write_vectors(tmp_path / "photos", random_units(20))
    with pytest.raises(IndexFolderError, match=factory.split(",", maxsplit=1)[0]):
        build(photos, tmp_path / "index", VectorEmbedder(), factory=factory)


@pytest.mark.parametrize(
    "factory", ["IVF4,LSQ4x4", "IVF4,RQ2x4", "IVF4,SQ8_direct", "IVF0,Flat", "IVF4_HNSW1,SQ8"]
)
def test_a_string_that_trains_but_cannot_be_searched_is_refused_first(
    tmp_path: Path, factory: str
) -> None:
    """The message says what is allowed, and nothing is made."""
    photos = write_vectors(tmp_path / "photos", random_units(20))
    with pytest.raises(IndexFolderError, match="is not served: use Flat"):
        build(photos, tmp_path / "index", VectorEmbedder(), factory=factory)
    assert not (tmp_path / "index").exists()


def test_more_ids_than_a_statement_takes_are_hydrated(opened: Searcher) -> None:
    """SQLite's limit of values is not the caller's."""
    entries = opened._catalog.entries(range(300_000))
    assert len(entries) == NUM_ROWS


def test_a_photo_swapped_for_a_pipe_or_a_giant_file_is_not_read(tmp_path: Path) -> None:
    """Only a regular file of the indexed size is opened for its bytes."""
    photos = write_vectors(tmp_path / "photos", random_units(2))
    build(photos, tmp_path / "index", VectorEmbedder())
    first, second = sorted(photos.iterdir())
    first.unlink()
    os.mkfifo(first)
    os.truncate(second, 2**40)
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        assert searcher.read_photo(0) is None
        assert searcher.read_photo(1) is None
        assert searcher.read_photo(2) is None
