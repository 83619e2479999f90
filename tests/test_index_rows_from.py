"""Finished indexes become one: the same bytes keep their rows, and nothing is embedded twice."""

from contextlib import closing
from pathlib import Path

import pytest
from change_fixtures import changing, found_ids
from index_fixtures import Killed, build, durable_state, photo_bytes, random_units, write_photos
from stub_embedder import StubEmbedder

from index.build_report import BuildReport
from index.errors import IndexFolderError, OtherCheckpointError
from index.layout import Layout
from index.searcher import Searcher
from index.upkeep.check import check_folder


@pytest.fixture
def indexes(tmp_path: Path) -> list[Path]:
    """Two indexes that have two photos in common, each of photos of its own folder."""
    for name, seeds in (("a", range(8)), ("b", range(6, 14))):
        build(write_photos(tmp_path / name, list(seeds)), tmp_path / f"index-{name}")
    return [tmp_path / "index-a", tmp_path / "index-b"]


def joined(
    tmp_path: Path, indexes: list[Path], *, out: str = "both", embedder: StubEmbedder | None = None
) -> BuildReport:
    folders = [tmp_path / "a", tmp_path / "b"]
    return build(folders, tmp_path / out, embedder, rows_from=indexes)


def answers(root: Path) -> dict[str, tuple[list[str], list[float]]]:
    """What every photo finds, by its path: ids differ."""
    embedder, found = StubEmbedder(), dict[str, tuple[list[str], list[float]]]()
    with closing(Searcher.open(root)) as searcher:
        for seed in range(14):
            pixels = embedder.read(photo_bytes(seed)).pixels
            (neighbours,) = searcher.search(embedder.embed_pixels([pixels]), 10)
            paths = [min(one.metadata["paths"]) for one in neighbours]
            found[f"{seed}"] = (paths, [round(one.score, 6) for one in neighbours])
    return found


def test_indexes_become_one_without_embedding(tmp_path: Path, indexes: list[Path]) -> None:
    """It finds what one that was built at once finds, and is as whole."""
    embedder = StubEmbedder()
    report = joined(tmp_path, indexes, embedder=embedder)
    assert report.embedded is not None
    assert (report.num_photos, report.num_rows, report.num_live) == (16, 14, 14)
    assert (report.num_new, report.embedded.num_known, embedder.num_embedded) == (0, 16, 0)
    joined(tmp_path, [], out="at-once")
    assert answers(tmp_path / "both") == answers(tmp_path / "at-once")
    assert not check_folder(Layout(tmp_path / "both"), deep=True).faults


def test_photos_that_no_index_has_are_embedded(tmp_path: Path, indexes: list[Path]) -> None:
    """And an index whose photos are not asked for gives nothing."""
    write_photos(tmp_path / "a", [0, 20])
    embedder = StubEmbedder()
    report = build(tmp_path / "a", tmp_path / "out", embedder, rows_from=indexes[1:])
    assert embedder.num_embedded == report.num_new == 7  # 0 to 5 and 20; b has 6 and 7
    assert report.num_live == 9


def test_only_rows_of_contents_as_long_as_a_photo_are_copied(
    tmp_path: Path, indexes: list[Path]
) -> None:
    """One photo's worth of a large index leaves no heap of dead rows."""
    (tmp_path / "a" / "large.png").write_bytes(photo_bytes(30, side=40))
    build(tmp_path / "a", indexes[0])
    (tmp_path / "one").mkdir()
    (tmp_path / "a" / "large.png").rename(tmp_path / "one" / "photo.png")
    report = build(tmp_path / "one", tmp_path / "out", rows_from=indexes)
    assert (report.num_new, report.num_rows, report.num_live) == (0, 1, 1)


def test_a_second_build_takes_nothing_more(tmp_path: Path, indexes: list[Path]) -> None:
    """The same command again changes nothing."""
    joined(tmp_path, indexes)
    before = durable_state(tmp_path / "both")
    assert not joined(tmp_path, indexes).is_new_generation
    assert durable_state(tmp_path / "both") == before


def test_a_build_killed_anywhere_goes_on_to_the_same_rows(
    tmp_path: Path, indexes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a block are durable together with their hashes, or not there."""
    monkeypatch.setattr("index.rows_from._BLOCK_ROWS", 3)
    out = tmp_path / "both"
    killed = Killed(out, tmp_path / "copies")
    build([tmp_path / "a", tmp_path / "b"], out, rows_from=indexes, steps=killed)
    expected, checked = durable_state(out), 0
    for step in killed.steps():
        embedder = StubEmbedder()
        again = tmp_path / "copies" / f"{step}"
        build([tmp_path / "a", tmp_path / "b"], again, embedder, rows_from=indexes)
        assert (durable_state(again), embedder.num_embedded) == (expected, 0), step
        checked += 1
    assert checked > 10


def test_another_model_s_rows_are_refused(tmp_path: Path, indexes: list[Path]) -> None:
    """Before anything is copied or embedded."""
    embedder = StubEmbedder("e" * 64)
    with pytest.raises(
        OtherCheckpointError, match="index-b was built with checkpoint ffffffffffff"
    ):
        build(tmp_path / "a", tmp_path / "out", embedder, rows_from=indexes[1:])
    assert embedder.num_embedded == 0


def test_folders_that_give_no_rows_are_refused(tmp_path: Path, indexes: list[Path]) -> None:
    """Itself, a folder without an index, one whose catalog was cut."""
    with pytest.raises(IndexFolderError, match="cannot be taken from the index that is built"):
        build(tmp_path / "a", indexes[0], rows_from=[indexes[0]])
    with pytest.raises(IndexFolderError, match="no index here"):
        joined(tmp_path, [tmp_path / "a"])
    (catalog,) = (indexes[1] / "catalogs").glob("*.sqlite")
    catalog.write_bytes(catalog.read_bytes()[:-100])
    with pytest.raises(IndexFolderError, match="damaged"):
        joined(tmp_path, indexes)


def test_a_photo_that_was_removed_there_is_embedded_here(tmp_path: Path) -> None:
    """A removal is of its index: here the photo is wanted."""
    photos = write_photos(tmp_path / "a", [0, 1])
    build(photos, tmp_path / "index-a")
    (photos / "0001.png").rename(tmp_path / "kept.png")
    build(photos, tmp_path / "index-a")
    (tmp_path / "kept.png").rename(photos / "0001.png")
    embedder = StubEmbedder()
    report = build(photos, tmp_path / "out", embedder, rows_from=[tmp_path / "index-a"])
    assert (report.num_live, embedder.num_embedded) == (2, 1)


def test_rows_are_taken_to_the_bit(tmp_path: Path, indexes: list[Path]) -> None:
    """They are not rounded again."""
    joined(tmp_path, indexes)
    rows = dict[str, set[bytes]]()
    for root in (*indexes, tmp_path / "both"):
        with closing(Searcher.open(root)) as searcher:
            (found,) = searcher.search(random_units(1), 100)
            ids = [one.id for one in found]
            for one, row in zip(found, searcher.embeddings(ids), strict=True):
                rows.setdefault(one.metadata["paths"][0].rsplit("/")[-1], set()).add(row.tobytes())
    assert len(rows) == 14
    assert all(len(kinds) == 1 for kinds in rows.values())


def test_photos_added_at_any_step_keep_their_ids(tmp_path: Path, indexes: list[Path]) -> None:
    """Rows that are taken get none of the ids that a service gives at the same time."""
    out, added = tmp_path / "both", dict[int, int]()
    build(write_photos(tmp_path / "c", [40]), out)
    with changing(out) as serving:
        added[serving.add(41).id] = 41
        seeds = iter(range(50, 98))

        def add_one(action: str) -> None:
            # Beginning a segment holds the lock that an add waits for.
            if "jsonl" not in action and (seed := next(seeds, 0)):
                added[serving.add(seed).id] = seed

        build([tmp_path / "a", tmp_path / "b"], out, rows_from=indexes, steps=add_one)
    joined(tmp_path, indexes)
    assert len(added) > 10
    found = found_ids(out)
    assert {one: found[one] for one in added} == added
    assert sorted(set(found.values()) - set(added.values())) == [*range(14), 40]
