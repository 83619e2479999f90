"""A catalog made again when no database is left."""

from contextlib import closing
from pathlib import Path

import pytest
from change_fixtures import changing, found_ids
from index_fixtures import build, photo_bytes, png_of, write_photos
from PIL import Image
from stub_embedder import BrokenEmbedder, StubEmbedder

from index.build import main as build_main
from index.changes.removal import remove_photos
from index.errors import IndexFolderError
from index.recover import main as recover_main
from index.searcher import Searcher
from index.upkeep.recovery import RecoveryReport, recover_index


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos, one twice, one bad; one more in a second generation and one gone."""
    folder = write_photos(tmp_path / "photos", range(6))
    (folder / "copy.png").write_bytes(photo_bytes(2))
    (folder / "bad.png").touch()
    build(folder, tmp_path / "index", shard_rows=4)
    (folder / "0001.png").unlink()
    write_photos(folder, [9])
    build(folder, tmp_path / "index", shard_rows=4)
    return folder


@pytest.fixture
def out(photos: Path) -> Path:
    return photos.parent / "index"


def lose_databases(out: Path) -> None:
    for path in [*out.glob("build.sqlite*"), *(out / "catalogs").iterdir()]:
        path.unlink()


def paths(out: Path) -> dict[int, list[str]]:
    embedder = StubEmbedder()
    query = embedder.embed_pixels([embedder.read(photo_bytes(0)).pixels])
    with closing(Searcher.open(out)) as searcher:
        (found,) = searcher.search(query, 100)
    return {one.id: one.metadata["paths"] for one in sorted(found)}


def test_rows_and_ids_stay_when_every_database_is_lost(photos: Path, out: Path) -> None:
    """Each photo finds its row by its embedding; the next build embeds nothing and publishes."""
    before, shards = paths(out), sorted((out / "shards").iterdir())
    lose_databases(out)
    with pytest.raises(IndexFolderError, match="build into a new --out"):
        build(photos, out)
    report = recover_index(out, [photos], StubEmbedder(), decode_threads=2)
    assert report == RecoveryReport(6, 6, 0, from_catalog=False)
    embedder = StubEmbedder()
    built = build(photos, out, embedder, shard_rows=4)
    assert (built.generation, built.num_bad, embedder.num_embedded) == ("000003", 1, 0)
    assert paths(out) == before
    assert sorted((out / "shards").iterdir()) == shards
    assert not build(photos, out, shard_rows=4).is_new_generation


def test_photos_that_came_and_went_since_are_new_and_gone(photos: Path, out: Path) -> None:
    """A new one gets an id behind all others, a row without its photo is dead."""
    write_photos(photos, [20])
    (photos / "0003.png").unlink()
    lose_databases(out)
    report = recover_index(out, [photos], StubEmbedder(), decode_threads=2)
    assert report == RecoveryReport(6, 5, 1, from_catalog=False)
    assert build(photos, out).num_new == 1
    found = paths(out)
    assert found[7] == ["0020.png"]
    assert 3 not in found


def test_equal_pixels_of_other_bytes_get_the_rows_in_their_order(tmp_path: Path) -> None:
    """Two files whose embeddings are one and the same keep a row each."""
    photos = write_photos(tmp_path / "photos", range(3))
    (photos / "twin.png").write_bytes(photo_bytes(1) + b"more")
    out = tmp_path / "index"
    build(photos, out)
    before = paths(out)
    assert len(before) == 4
    lose_databases(out)
    recover_index(out, [photos], StubEmbedder(), decode_threads=2)
    assert build(photos, out).num_new == 0
    assert paths(out) == before


@pytest.mark.parametrize("is_garbage", [False, True])
def test_an_older_catalog_is_enough(photos: Path, out: Path, *, is_garbage: bool) -> None:
    """No photo is read; whatever stood in the journal's place is kept under another name."""
    before = paths(out)
    (out / "build.sqlite").unlink()
    if is_garbage:
        (out / "build.sqlite").write_text("garbage")
    embedder = StubEmbedder()
    report = recover_index(out, [photos], embedder, decode_threads=2)
    assert (report.from_catalog, report.num_found, embedder.num_embedded) == (True, 6, 0)
    assert (out / "build.sqlite.lost").exists() == is_garbage
    assert not build(photos, out).num_new
    assert paths(out) == before


def test_a_kill_at_any_step_leaves_a_recovery_to_do_again(photos: Path, out: Path) -> None:
    """Nothing half made is taken for a journal."""
    before = paths(out)
    lose_databases(out)
    num_kills = 0
    for kill_at in range(99):
        left = iter(range(kill_at))

        def die(_action: str) -> None:
            if next(left, None) is None:  # noqa: B023 - called within the same turn
                raise KeyboardInterrupt

        try:
            recover_index(out, [photos], StubEmbedder(), decode_threads=2, steps=die)
        except KeyboardInterrupt:
            num_kills += 1
            if (out / "build.sqlite").exists():
                break
        else:
            break
    assert num_kills > 6
    assert build(photos, out, shard_rows=4).num_new == 0
    assert paths(out) == before


def test_a_photo_the_model_refuses_stops_nothing(photos: Path, out: Path) -> None:
    """The others of its batch find their rows."""
    (photos / "red.png").write_bytes(png_of(Image.new("RGB", (16, 16), (255, 0, 0))))
    lose_databases(out)
    report = recover_index(out, [photos], BrokenEmbedder(), decode_threads=2)
    assert (report.num_found, report.num_unknown) == (6, 1)


def test_another_model_recovers_nothing(photos: Path, out: Path) -> None:
    """Its embeddings would be nobody's."""
    with pytest.raises(IndexFolderError, match="give the one it was built with"):
        recover_index(out, [photos], StubEmbedder("0" * 64), decode_threads=2)


def test_recovering_from_the_shell(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the folder's own checkpoint, a real model and the build after it."""
    photos = write_photos(tmp_path / "photos", range(3))
    out = tmp_path / "index"
    words = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint), "--out", str(out)]
    assert build_main(words) == 0
    lose_databases(out)
    assert recover_main(["--index", str(out), "--photos", str(photos)]) == 0
    text = capsys.readouterr().out
    assert "rows 3, found again 3, photos without a row 0" in text
    assert "now run index.build" in text
    assert build_main(words) == 0
    assert "  new           0" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("is_catalog_whole", [False, True])
def test_added_photos_are_recovered_with_the_others(
    photos: Path, out: Path, *, is_catalog_whole: bool
) -> None:
    """Those a build has taken in by their bytes, the others from the journal; ids stay."""
    with changing(out) as serving:
        for seed in (20, 21, 22):
            serving.add(seed)
        serving.delete(8)
    build(photos, out, shard_rows=4)
    with changing(out) as serving:
        serving.add(23)
        serving.add(24)
        serving.delete(11)
        serving.delete(0)
    before = found_ids(out)
    assert before == {2: 2, 3: 3, 4: 4, 5: 5, 6: 9, 7: 20, 9: 22, 10: 23}
    if is_catalog_whole:
        (out / "build.sqlite").unlink()
        max((out / "catalogs").iterdir()).unlink()
    else:
        lose_databases(out)
    recover_index(out, [photos], StubEmbedder(), decode_threads=2)
    embedder = StubEmbedder()
    report = build(photos, out, embedder, shard_rows=4)
    assert (report.num_new, embedder.num_embedded) == (0, 0)
    assert found_ids(out) == before
    with changing(out) as serving:
        assert serving.add(8).id >= 12
    remove_photos(out, ids=[3])
    build(photos, out)
    assert sorted(found_ids(out).values()) == [2, 4, 5, 8, 9, 20, 22, 23]
