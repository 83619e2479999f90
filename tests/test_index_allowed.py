"""Searching within chosen contents gives the exact neighbours among them, and no others."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, exact_neighbours, random_units, write_vectors
from pydantic import SecretStr
from stub_embedder import VectorEmbedder

import index.searching.filters
from index.backend import Backend
from index.errors import IndexFolderError
from index.searcher import Searcher
from index.searching.filters import plan_filter
from index.searching.neighbours import Neighbour

NUM_ROWS = 360
EVERY_LIST = 10**6
DEAD = range(0, NUM_ROWS, 12)


@pytest.fixture(scope="module", params=["Flat", "IVF8,SQfp16"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """360 rows in three shards, some of them dead, the second half as copies of the first.

    They are put into Milvus, too.
    """
    folder = tmp_path_factory.mktemp("filters")
    photos = write_vectors(folder / "photos", rows())
    milvus = Backend("milvus", SecretStr(str(folder / "milvus.db")))
    options = {"factory": request.param, "shard_rows": 150, "backend": milvus}
    build(photos, folder / "index", VectorEmbedder(), **options)
    for number in DEAD:
        (photos / f"{number:06d}").unlink()
    build(photos, folder / "index", VectorEmbedder(), **options)
    return folder / "index"


@pytest.fixture(params=["in memory", "mapped", "milvus"])
def searcher(root: Path, request: pytest.FixtureRequest) -> Iterator[Searcher]:
    """A searcher that has the lists in memory, one that maps them, and one on Milvus."""
    backend = Backend("milvus" if request.param == "milvus" else "faiss")
    with closing(Searcher.open(root, mapped=request.param == "mapped", backend=backend)) as opened:
        yield opened


@pytest.fixture(params=["scanned", "in lists"])
def planned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways a filter is searched; a collection this small is scanned by itself."""
    if request.param == "in lists":
        monkeypatch.setattr(index.searching.filters, "_MOST_SCANNED_ROWS", 0)


def rows() -> np.ndarray:
    return np.tile(random_units(NUM_ROWS // 2), (2, 1))


def oracle(query: np.ndarray, allowed: np.ndarray, k: int) -> list[tuple[int, float]]:
    """The k best allowed live rows, by comparing every one."""
    chosen = set(allowed.tolist()) - set(DEAD)
    return [hit for hit in exact_neighbours(rows(), query, NUM_ROWS) if hit[0] in chosen][:k]


def hits(neighbours: list[Neighbour]) -> list[tuple[int, float]]:
    return [(one.id, one.score) for one in neighbours]


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize("num_allowed", [1, 7, 40, 200, NUM_ROWS])
def test_a_filtered_search_finds_what_comparing_every_allowed_row_finds(
    searcher: Searcher, num_allowed: int
) -> None:
    """At any selectivity, over shards; equal rows by id, dead ones not, fewer when fewer are."""
    random = np.random.default_rng(num_allowed)
    allowed = np.sort(random.choice(NUM_ROWS, num_allowed, replace=False))
    queries = np.concatenate([random_units(4, seed=5), rows()[:4]])
    found = searcher.search(queries, 12, nprobe=EVERY_LIST, allowed=allowed)
    for query, neighbours in zip(queries, found, strict=True):
        expected = oracle(query, allowed, 12)
        assert [one.id for one in neighbours] == [one for one, _ in expected]
        scores = [one.score for one in neighbours]
        assert scores == pytest.approx([score for _, score in expected], abs=5e-7)


@pytest.mark.parametrize("allowed", [None, np.arange(3, NUM_ROWS, 5)])
def test_an_exact_search_compares_every_row(searcher: Searcher, allowed: np.ndarray | None) -> None:
    """However few lists would be searched."""
    queries = random_units(6, seed=9)
    found = searcher.search(queries, 15, nprobe=1, exact=True, allowed=allowed)
    chosen = np.arange(NUM_ROWS) if allowed is None else allowed
    for query, neighbours in zip(queries, found, strict=True):
        assert [one.id for one in neighbours] == [one for one, _ in oracle(query, chosen, 15)]


def test_stored_embeddings_are_read_by_id(searcher: Searcher) -> None:
    """Unit rows in the order asked for; none for an id that is dead or unknown."""
    np.testing.assert_allclose(searcher.embeddings([7, 5]), rows()[[7, 5]], atol=1e-3)
    one = searcher.embedding(5)
    assert one is not None
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    for missing in (DEAD[1], NUM_ROWS, -1, 2**63):
        assert searcher.embedding(missing) is None


@pytest.mark.usefixtures("planned")
def test_of_many_equal_rows_the_smallest_allowed_ids_are_found(tmp_path: Path) -> None:
    """More equal rows than candidates are looked at: the first ids all the same."""
    equal = np.repeat(random_units(2, seed=5), 150, axis=0)
    photos = write_vectors(tmp_path / "photos", equal)
    build(photos, tmp_path / "index", VectorEmbedder(), factory="IVF2,SQfp16", shard_rows=120)
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        (found,) = searcher.search(equal[:1], 5, nprobe=2, allowed=np.arange(90, 300))
    assert [one.id for one in found] == [90, 91, 92, 93, 94]


@pytest.mark.usefixtures("planned")
@pytest.mark.parametrize(
    "allowed", [[], list(DEAD), [-1, -5], [NUM_ROWS, 10**12], [DEAD[1], NUM_ROWS]]
)
def test_with_nothing_left_there_are_no_neighbours(searcher: Searcher, allowed: list[int]) -> None:
    """No allowed id, or only dead and unknown ones: an empty answer, and no -1."""
    found = searcher.search(random_units(2), 5, allowed=np.array(allowed, dtype=np.int64))
    assert found == [[], []]


@pytest.mark.usefixtures("planned")
def test_dead_and_unknown_ids_are_passed_over(searcher: Searcher) -> None:
    """They cost no place; the order of the ids and a repeated one do not matter."""
    clean = np.array([5, 7, 9])
    mixed = np.array([9, 5, -1, DEAD[2], 7, 5, 10**15])
    queries = random_units(3)
    expected = searcher.search(queries, 5, allowed=clean)
    assert [len(one) for one in expected] == [3, 3, 3]
    assert searcher.search(queries, 5, allowed=mixed) == expected


@pytest.mark.parametrize("allowed", [np.ones((2, 2), np.int64), np.array([1.5]), np.array(["1"])])
def test_what_are_no_ids_is_refused(searcher: Searcher, allowed: np.ndarray) -> None:
    """The message gives shape and type."""
    with pytest.raises(IndexFolderError, match="allowed ids have shape"):
        searcher.search(random_units(1), 5, allowed=allowed)


@pytest.mark.parametrize(
    ("num_live", "num_allowed", "is_scan", "widening"),
    [
        (100_000, 20_000, True, None),
        (100_000, 20_001, False, 100_000 / 20_001),
        (100_000, 100_000, False, 1.0),
        (1_000_000, 50_000, False, 8.0),
        (12_000_000, 24_000, True, None),
        (12_000_000, 24_001, False, 8.0),
    ],
)
def test_a_filter_is_planned_by_how_much_it_leaves(
    num_live: int, num_allowed: int, *, is_scan: bool, widening: float | None
) -> None:
    """Few rows are scanned; of many the lists are widened, eightfold at most."""
    plan = plan_filter(np.arange(num_allowed), np.ones(num_live, bool))
    assert plan.is_scan == is_scan
    if widening is not None:
        assert plan.widening == pytest.approx(widening)


def test_a_widened_search_looks_at_more_lists(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the rows is found in eight times the lists: all of them, of one here."""
    monkeypatch.setattr(index.searching.filters, "_MOST_SCANNED_ROWS", 0)
    allowed = np.arange(5, NUM_ROWS, 12)
    with closing(Searcher.open(root)) as searcher:
        narrow = searcher.search(rows()[:20], 3, nprobe=1, allowed=allowed)
    for query, neighbours in zip(rows()[:20], narrow, strict=True):
        assert [one.id for one in neighbours] == [one for one, _ in oracle(query, allowed, 3)]


def test_mapped_lists_give_the_answers_of_lists_in_memory(root: Path) -> None:
    """To the last bit, tuned and not."""
    queries = random_units(20, seed=8)
    with closing(Searcher.open(root)) as first, closing(Searcher.open(root, mapped=True)) as second:
        assert first.search(queries, 10) == second.search(queries, 10)
        assert first.search(queries, 10, nprobe=1) == second.search(queries, 10, nprobe=1)


@pytest.mark.parametrize("mapped", [False, True])
def test_callers_with_different_questions_get_their_own_answers(
    root: Path, *, mapped: bool
) -> None:
    """Eight threads, each with another filter, depth and number: as one after the other."""
    queries = random_units(48, seed=6)

    def ask(searcher: Searcher) -> Callable[[int], list[tuple[int, float]]]:
        def one(number: int) -> list[tuple[int, float]]:
            allowed = np.arange(number % 5, NUM_ROWS, 1 + number % 4) if number % 3 else None
            nprobe = None if number % 2 else 1 + number % 8
            (found,) = searcher.search(
                queries[number : number + 1], 1 + number % 11, nprobe=nprobe, allowed=allowed
            )
            return hits(found)

        return one

    with closing(Searcher.open(root, mapped=mapped)) as searcher, ThreadPoolExecutor(8) as pool:
        alone = [ask(searcher)(number) for number in range(48)]
        for _ in range(3):
            assert list(pool.map(ask(searcher), range(48))) == alone
