"""Tuning: the fastest measured search that reaches a recall, on views of the stored photos."""

import itertools
import json
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import (
    build,
    exact_neighbours,
    photo_bytes,
    random_units,
    write_photos,
    write_vectors,
)
from stub_embedder import DIM, StubEmbedder, VectorEmbedder

import index.tuning.held_out
from index.current import current_manifest
from index.errors import IndexFolderError, RecallNotReachedError
from index.layout import Layout
from index.manifest import Manifest, SearchPart
from index.searcher import Searcher
from index.searching.ranker import Ranker
from index.stages import Stage
from index.store import unpack_live
from index.tuning.held_out import view_queries
from index.tuning.tune import tune
from multigrain.photo import PhotoError

NUM_ROWS = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 400 rows in two shards of 16 lists."""
    root = tmp_path_factory.mktemp("tune")
    photos = write_vectors(root / "photos", random_units(NUM_ROWS))
    build(photos, root / "index", VectorEmbedder(), factory="IVF16,SQfp16", shard_rows=300)
    return root / "index"


def manifest_of(root: Path) -> Manifest:
    manifest = current_manifest(Layout(root))
    assert manifest is not None
    return manifest


def ranker_of(root: Path) -> Ranker:
    manifest = manifest_of(root)
    bits = np.fromfile(root / manifest.tombstones.file, np.uint8)
    live = unpack_live(bits, num_ids=manifest.counts.next_id)
    return Ranker(
        Layout(root), codebook=manifest.codebook, shards=manifest.shards, live=live, dim=DIM
    )


def views(num_rows: int, *, scale: float = 0.12, seed: int = 9) -> np.ndarray:
    """Noisy copies of the rows that `random_units` gives."""
    rows = random_units(num_rows)
    rows += np.random.default_rng(seed).normal(scale=scale, size=rows.shape).astype(np.float32)
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def seconds_by_lists(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock that goes on by the lists and candidates a search looks at."""
    now, search = [0.0], Ranker.search_in

    def timed(self: Ranker, *given: object, nprobe: int, rerank: int) -> object:
        now[0] += nprobe + rerank / 100
        return search(self, *given, nprobe=nprobe, rerank=rerank)

    monkeypatch.setattr(Ranker, "search_in", timed)
    return lambda: now[0]


def brute_recall(root: Path, queries: np.ndarray, *, nprobe: int, rerank: int) -> float:
    ranker, stored = ranker_of(root), random_units(NUM_ROWS)
    found = ranker.search(queries, 10, nprobe=nprobe, rerank=rerank)
    shares = [
        len({i for i, _ in exact_neighbours(stored, query, 10)} & set(one.ids.tolist())) / 10
        for query, one in zip(queries, found, strict=True)
    ]
    return float(np.mean(shares))


def test_a_build_writes_a_curve_whose_tuned_point_reaches_the_target(folder: Path) -> None:
    """The lower bound reaches .95, every point is written once, in order."""
    search = manifest_of(folder).search
    keys = [(point.nprobe, point.rerank) for point in search.curve]
    assert keys == sorted(set(keys))
    assert (search.nprobe, search.rerank) in keys
    assert (search.target, search.num_queries, search.sampled_rows) == (0.95, NUM_ROWS, None)
    assert search.recall is not None
    assert search.recall_lower is not None
    assert search.recall >= search.recall_lower >= 0.95
    assert all(point.recall >= point.recall_lower for point in search.curve)
    assert all(point.microseconds > 0 for point in search.curve)
    assert max(point.recall_lower for point in search.curve) >= 0.99


@pytest.mark.parametrize("target", [0.5, 0.9, 0.99, 1.0])
def test_the_fewest_lists_that_reach_the_target_are_taken(
    folder: Path, target: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where time is lists, no search of fewer lists reaches the target, as brute force sees it."""
    queries = views(NUM_ROWS)[::3]
    clock = seconds_by_lists(monkeypatch)
    tuned = tune(ranker_of(folder), queries, target=target, num_threads=1, clock=clock)
    assert tuned.nprobe is not None
    assert tuned.rerank is not None
    measured = brute_recall(folder, queries, nprobe=tuned.nprobe, rerank=tuned.rerank)
    assert measured == pytest.approx(tuned.recall, abs=1e-3)
    assert measured >= target
    if tuned.nprobe > 1:
        fewer = brute_recall(folder, queries, nprobe=tuned.nprobe - 1, rerank=tuned.rerank)
        assert fewer < target + 0.03  # the bound is below the mean


def test_the_points_measured_do_not_depend_on_the_time(folder: Path) -> None:
    """A clock that stands still gives the same recalls as one that runs."""
    first, second = (
        tune(ranker_of(folder), views(200), target=0.95, num_threads=1, clock=clock)
        for clock in (lambda: 0.0, itertools.count().__next__)
    )
    assert [point.model_dump(exclude={"microseconds"}) for point in first.curve] == [
        point.model_dump(exclude={"microseconds"}) for point in second.curve
    ]


def test_a_search_is_the_tuned_one_and_a_recall_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The depth comes from the manifest, from the curve for a recall, from nprobe if given."""
    depths = list[tuple[int | None, int | None]]()
    search = Ranker.search

    def noted(self: Ranker, *given: object, **named: object) -> object:
        depths.append((named["nprobe"], named["rerank"]))
        return search(self, *given, **named)

    tuned = manifest_of(folder).search
    with closing(Searcher.open(folder)) as searcher:
        monkeypatch.setattr(Ranker, "search", noted)
        query = views(1)
        searcher.search(query, 5)
        searcher.search(query, 5, recall=0.99)
        searcher.search(query, 5, nprobe=3)
    reached = [point for point in tuned.curve if point.recall_lower >= 0.99]
    fastest = min(reached, key=lambda point: point.microseconds)
    assert depths == [
        (tuned.nprobe, tuned.rerank),
        (fastest.nprobe, fastest.rerank),
        (3, tuned.rerank),
    ]


def hard_codes(tmp_path: Path, num_rows: int = 300, **options: object) -> Path:
    """An index whose codes of one byte lose so much that no search is perfect."""
    photos = write_vectors(tmp_path / "photos", random_units(num_rows))
    options |= {"factory": "IVF2,PQ1x4np"}
    build(photos, tmp_path / "index", VectorEmbedder(), **options)
    return tmp_path / "index"


def test_a_target_out_of_reach_takes_the_best_search_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both numbers are in the warning; a request for more names what can be had."""
    monkeypatch.setattr("index.tuning.tune.RERANKS", (20, 30))
    with caplog.at_level(logging.WARNING):
        root = hard_codes(tmp_path, target_recall=0.999)
    search = manifest_of(root).search
    assert search.recall_lower == max(point.recall_lower for point in search.curve) < 0.999
    assert f"recall 0.999 was asked for, the best search reaches {search.recall_lower:.4f}" in (
        caplog.text
    )
    with closing(Searcher.open(root)) as searcher:
        with pytest.raises(RecallNotReachedError, match=r"recall 0\.999 is not reached") as raised:
            searcher.search(views(1), 5, recall=0.999)
        best = str(raised.value).split("reach ")[1].split(";")[0].split(", ")[-1]
        assert len(searcher.search(views(1), 5, recall=float(best))[0]) == 5


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.01, float("nan")])
def test_a_recall_that_is_none_is_refused(folder: Path, recall: float) -> None:
    """The message names it."""
    with (
        closing(Searcher.open(folder)) as searcher,
        pytest.raises(IndexFolderError, match=f"recall is {recall}"),
    ):
        searcher.search(views(1), 5, recall=recall)


def test_where_every_row_is_compared_any_recall_is_had(tmp_path: Path) -> None:
    """Flat has nothing to tune, and no photo is read for it."""
    photos = write_vectors(tmp_path / "photos", random_units(30))
    build(photos, tmp_path / "index", VectorEmbedder())
    search = manifest_of(tmp_path / "index").search
    assert (search.nprobe, search.recall, search.recall_lower, search.curve) == (None, 1, 1, [])
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        assert len(searcher.search(views(1), 5, recall=1.0)[0]) == 5


def test_a_curve_of_a_sample_says_so(folder: Path) -> None:
    """Truth and answers are those among the sampled rows."""
    tuned = tune(ranker_of(folder), views(100), target=0.95, num_threads=1, max_truth_rows=250)
    assert tuned.sampled_rows == 250
    assert tuned.recall_lower is not None
    assert tuned.recall_lower >= 0.95


def test_without_a_readable_photo_the_start_values_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, once, and a request for a recall is told what to do."""
    rows = random_units(60)
    photos = write_vectors(tmp_path / "photos", rows)

    class Forgetful(VectorEmbedder):
        def read_view(self, source: bytes, *, kind: str, seed: int) -> object:
            raise PhotoError("image_undecodable", f"{len(source)} {kind} {seed}")

    options = {"factory": "IVF2,SQfp16"}
    with caplog.at_level(logging.WARNING):
        build(photos, tmp_path / "index", Forgetful(), **options)
    assert "was not tuned" in caplog.text
    assert not build(photos, tmp_path / "index", Forgetful(), **options).is_new_generation
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        assert len(searcher.search(rows[:1], 5)[0]) == 5
        with pytest.raises(RecallNotReachedError, match=r"run index\.build again"):
            searcher.search(rows[:1], 5, recall=0.5)


def spread(num_rows: int, scales: list[float], *, seed: int) -> np.ndarray:
    """Random unit rows whose dimensions are scaled."""
    rows = random_units(num_rows, seed=seed) * np.array(scales, np.float32)
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_a_distribution_that_changes_needs_more_lists(tmp_path: Path) -> None:
    """Rows from elsewhere than the codebook was trained on: more lists keep the target."""
    photos = write_vectors(tmp_path / "photos", spread(320, [1.0] * 4 + [0.02] * 12, seed=1))
    options = {"factory": "IVF8,SQfp16"}
    before = build(photos, tmp_path / "index", VectorEmbedder(), **options).search
    for number, row in enumerate(spread(320, [0.02] * 4 + [1.0] * 12, seed=2)):
        (photos / f"away-{number}").write_bytes(row.tobytes() + str(number).encode())
    after = build(photos, tmp_path / "index", VectorEmbedder(), **options).search
    for search in (before, after):
        assert search.recall_lower is not None
        assert search.recall_lower >= 0.95
    assert before.nprobe is not None
    assert after.nprobe is not None
    assert after.nprobe > before.nprobe


def add_vectors(photos: Path, numbers: range) -> None:
    rows = random_units(len(numbers), seed=numbers.start)
    for number, row in zip(numbers, rows, strict=True):
        (photos / f"{number:06d}").write_bytes(row.tobytes() + str(number).encode())


def test_a_small_update_keeps_the_tuning_and_a_large_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a tenth of the live rows may come or go; changes add up over generations."""
    root = hard_codes(tmp_path, 100)
    photos = tmp_path / "photos"
    views_read = list[int]()
    read_view = VectorEmbedder.read_view

    def counted(self: VectorEmbedder, source: bytes, *, kind: str, seed: int) -> object:
        views_read.append(seed)
        return read_view(self, source, kind=kind, seed=seed)

    monkeypatch.setattr(VectorEmbedder, "read_view", counted)
    options = {"factory": "IVF2,PQ1x4np"}

    def update() -> SearchPart:
        return build(photos, root, VectorEmbedder(), **options).search

    tuned = manifest_of(root).search
    assert tuned.tuned_live == 100
    add_vectors(photos, range(100, 106))
    assert update() == tuned
    for number in range(4):
        (photos / f"{number:06d}").unlink()
    assert update() == tuned
    assert views_read == []
    (photos / "000010").unlink()
    again = update()
    assert (again.tuned_live, again.tuned_next_id) == (101, 106)
    assert len(views_read) == 101


def test_a_tuning_is_kept_until_a_generation_carries_it(tmp_path: Path) -> None:
    """The stage run alone leaves its measurements; the next one takes them, and measures none."""
    photos, root, options = tmp_path / "photos", tmp_path / "index", {"factory": "IVF2,SQfp16"}
    write_vectors(photos, random_units(60))
    build(photos, root, VectorEmbedder(), last=Stage.TUNE, **options)
    left = json.loads((root / "tuned.json").read_text())["search"]
    build(photos, root, VectorEmbedder(), first=Stage.TUNE, **options)
    assert manifest_of(root).search.model_dump(mode="json") == left
    assert not (root / "tuned.json").exists()
    (root / "tuned.json").write_text("nonsense")
    assert not build(photos, root, VectorEmbedder(), **options).is_new_generation


def test_another_target_tunes_again_and_the_same_does_not(tmp_path: Path) -> None:
    """A generation is published for it, with the rows and the codebook as they were."""
    root = hard_codes(tmp_path)
    photos, options = tmp_path / "photos", {"factory": "IVF2,PQ1x4np"}
    assert not build(photos, root, VectorEmbedder(), **options).is_new_generation
    before = manifest_of(root)
    report = build(photos, root, VectorEmbedder(), target_recall=0.6, **options)
    after = manifest_of(root)
    assert report.is_new_generation
    assert (after.shards, after.codebook) == (before.shards, before.codebook)
    assert (before.search.target, after.search.target) == (0.95, 0.6)


def test_a_generation_of_before_tuning_opens_and_is_tuned_by_the_next_build(
    tmp_path: Path,
) -> None:
    """Its manifest has none of the keys tuning writes."""
    root = hard_codes(tmp_path)
    layout = Layout(root)
    old = manifest_of(root).model_dump(mode="json")
    old["search"] = {
        key: None if key != "curve" else []
        for key in ("nprobe", "rerank", "recall", "recall_lower", "curve")
    }
    layout.manifest("000001").write_bytes(Manifest.model_validate(old).to_bytes())
    layout.current.unlink()
    with closing(Searcher.open(root)) as searcher:
        assert len(searcher.search(views(1), 5)[0]) == 5
    build(tmp_path / "photos", root, VectorEmbedder(), factory="IVF2,PQ1x4np")
    assert manifest_of(root).search.nprobe is not None


def test_views_of_photos_that_vanished_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others take their place, as long as there are others."""
    embedder = StubEmbedder()  # with the real decoder and the real edits
    files = sorted(write_photos(tmp_path, range(40)).iterdir())
    gone = set(range(0, 40, 4))

    def read(content_id: int) -> bytes | None:
        if content_id in gone:
            return None
        return b"no photo" if content_id == 5 else files[content_id].read_bytes()

    def queries(num_queries: int) -> np.ndarray:
        found = view_queries(
            embedder, read, np.arange(40), num_queries=num_queries, num_threads=2, seed=1
        )
        assert len(found.ids) == len(set(found.ids) - gone - {5}) == len(found.rows)
        return found.rows

    few = queries(20)
    assert few.shape == (20, DIM)
    assert np.array_equal(few, queries(20))
    assert not caplog.text
    assert len(queries(40)) == 29
    assert "29 of 40 held-out photos can be read" in caplog.text
    monkeypatch.setattr(index.tuning.held_out, "_MOST_TRIED", 1)
    assert len(queries(20)) < 20
    stored = embedder.embed_pixels([embedder.read(photo_bytes(seed)).pixels for seed in range(40)])
    cosines = (few @ stored.T).max(axis=1)
    assert (cosines > 0.5).mean() > 0.5  # views of the photos,
    assert (cosines < 0.9999).mean() > 0.8  # few of which leave so small a photo as it is
