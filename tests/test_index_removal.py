"""Photos taken out by hand stay away; added again they are new."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from change_fixtures import changing, hits
from index_fixtures import build, photo_bytes, write_photos
from stub_embedder import StubEmbedder

from index.add import main as add_main
from index.build import main as build_main
from index.changes.addition import add_photos
from index.changes.removal import RemovalReport, remove_photos
from index.errors import IndexFolderError
from index.remove import main as remove_main
from index.searcher import Searcher
from index.steps import Steps, no_steps
from multigrain.photo import PhotoError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos, indexed; the first lies there twice."""
    folder = write_photos(tmp_path / "photos", range(4))
    (folder / "copy.png").write_bytes(photo_bytes(0))
    build(folder, tmp_path / "index")
    return folder


@pytest.fixture
def out(photos: Path) -> Path:
    return photos.parent / "index"


def paths(out: Path) -> dict[int, list[str]]:
    """The live paths of every live id."""
    embedder = StubEmbedder()
    query = embedder.embed_pixels([embedder.read(photo_bytes(0)).pixels])
    with closing(Searcher.open(out)) as searcher:
        (found,) = searcher.search(query, 100)
        assert searcher.num_live == len(found)
        assert [one.id for one in sorted(found)] == searcher.matching([]).tolist()
    return {one.id: one.metadata["paths"] for one in sorted(found)}


def test_a_removed_photo_stays_away_while_its_bytes_lie_there(photos: Path, out: Path) -> None:
    """Under every path, after builds that see new copies of it and read every file."""
    assert remove_photos(out, ids=[0]) == RemovalReport(1, 3, "000002")
    assert paths(out) == {1: ["0001.png"], 2: ["0002.png"], 3: ["0003.png"]}
    (photos / "another.png").write_bytes(photo_bytes(0))
    (photos / "0000.png").rename(photos / "renamed.png")
    embedder = StubEmbedder()
    report = build(photos, out, embedder, verify_content=True)
    assert (report.num_photos, report.num_live, embedder.num_embedded) == (3, 3, 0)
    assert sorted(paths(out)) == [1, 2, 3]


@pytest.mark.parametrize("given", ["catalog", "absolute", "relative"])
def test_a_path_names_what_stands_there(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """As a search prints it, or as a file; the content leaves with all its paths."""
    monkeypatch.chdir(photos.parent)
    path = {
        "catalog": Path("copy.png"),
        "absolute": photos / "copy.png",
        "relative": Path("photos/copy.png"),
    }[given]
    assert remove_photos(out, paths=[path, photos / "0002.png"]).num_removed == 2
    assert sorted(paths(out)) == [1, 3]


def test_a_path_of_a_list_is_found(tmp_path: Path) -> None:
    """One that leads out of the list's folder, and an absolute one."""
    write_photos(tmp_path / "photos", range(3))
    (tmp_path / "lists").mkdir()
    rows = f"path\n../photos/0000.png\n{tmp_path / 'photos' / '0001.png'}\n../photos/0002.png\n"
    (tmp_path / "lists" / "list.csv").write_text(rows)
    build(tmp_path / "lists" / "list.csv", tmp_path / "index")
    files = [tmp_path / "photos" / name for name in ("0000.png", "0001.png")]
    assert remove_photos(tmp_path / "index", paths=files).num_removed == 2
    assert len(paths(tmp_path / "index")) == 1


def test_bytes_name_what_has_them(out: Path, tmp_path: Path) -> None:
    """A file that is in no collection will do."""
    (tmp_path / "elsewhere.png").write_bytes(photo_bytes(2))
    assert remove_photos(out, photos=[tmp_path / "elsewhere.png"]).num_removed == 1
    assert sorted(paths(out)) == [0, 1, 3]


def test_removing_costs_no_embedding_and_no_shard(out: Path) -> None:
    """Shards and codebook stay the files they are; twice is once."""
    before = sorted(path.stat().st_ino for path in (out / "shards").rglob("*"))
    assert remove_photos(out, ids=[1]).generation == "000002"
    assert sorted(path.stat().st_ino for path in (out / "shards").rglob("*")) == before
    assert remove_photos(out, ids=[1]) == RemovalReport(0, 3, "000002")


@pytest.mark.parametrize(
    ("named", "word"),
    [
        ({"ids": [1, 99]}, "id 99: no such photo"),
        ({"paths": [Path("nothing.png")]}, "no photo of this index stands there"),
        ({"photos": [Path(__file__)]}, "no photo of this index has these bytes"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_is_removed(
    out: Path, named: dict[str, list[object]], word: str
) -> None:
    """Also what is there beside it stays."""
    with pytest.raises(IndexFolderError, match=word):
        remove_photos(out, **named)  # type: ignore[arg-type]
    assert sorted(paths(out)) == [0, 1, 2, 3]


def test_deleted_then_added_again_is_a_new_row(photos: Path, out: Path) -> None:
    """A new id, embedded once, with the paths it had; the old id stays dead, build after build."""
    remove_photos(out, ids=[3, 0])
    embedder = StubEmbedder()
    report = add_photos(out, [photos / "0000.png"], embedder)
    assert (report.num_new, report.num_live, embedder.num_embedded) == (1, 3, 1)
    names = ["0000.png", "copy.png", str(photos / "0000.png")]
    assert paths(out) == {1: ["0001.png"], 2: ["0002.png"], 4: names}
    assert build(photos, out).num_new == 0
    assert paths(out)[4] == names
    with closing(Searcher.open(out)) as searcher:
        assert searcher.read_photo(4) == photo_bytes(0)
        assert searcher.read_photo(0) is None
        assert searcher.photo_path(0) is None


def test_remove_and_add_may_go_on_for_ever(photos: Path, out: Path) -> None:
    """No id is given twice, whichever was the last one."""
    seen = {3}
    for _ in range(3):
        remove_photos(out, photos=[photos / "0003.png"])
        assert sorted(paths(out)) == [0, 1, 2]
        add_photos(out, [photos / "0003.png"], StubEmbedder())
        (new,) = set(paths(out)) - {0, 1, 2}
        assert new not in seen
        assert new > max(seen)
        seen.add(new)


def test_a_removed_photo_that_vanished_and_was_added_comes_back_under_its_new_id(
    photos: Path, out: Path, tmp_path: Path
) -> None:
    """Its file is read again when it is back, since its link was to the dead row."""
    remove_photos(out, ids=[2])
    (photos / "0002.png").rename(tmp_path / "aside.png")
    build(photos, out)
    add_photos(out, [tmp_path / "aside.png"], StubEmbedder())
    os.link(tmp_path / "aside.png", photos / "0002.png")
    build(photos, out)
    assert paths(out)[4] == ["0002.png", str(tmp_path / "aside.png")]


def test_single_photos_are_a_collection_of_their_own(photos: Path, out: Path) -> None:
    """They stay when other collections are built, and leave when the list is built without them."""
    extra = write_photos(photos.parent / "extra", [7, 8])
    assert add_photos(out, [extra / "0007.png"], StubEmbedder()).num_new == 1
    assert add_photos(out, [extra / "0008.png", extra / "0007.png"], StubEmbedder()).num_new == 1
    assert not build(photos, out).is_new_generation
    added = out / "added.jsonl"
    rows = [json.loads(line) for line in added.read_text().splitlines()]
    assert rows == [{"path": str(extra / name)} for name in ("0007.png", "0008.png")]
    added.write_text(json.dumps(rows[1] | {"label": "dog"}) + "\n")
    build(added, out)
    assert list(paths(out)) == [0, 1, 2, 3, 5]
    add_photos(out, [extra / "0007.png"], StubEmbedder())
    assert json.loads(added.read_text().splitlines()[0])["label"] == "dog"
    assert len(paths(out)) == 6


def test_adding_keeps_the_codebook_it_finds(photos: Path, out: Path) -> None:
    """Also one of a string that was asked for by hand."""
    build(photos, out, factory="IVF1,SQfp16")
    extra = write_photos(photos.parent / "extra", [7])
    report = add_photos(out, [extra / "0007.png"], StubEmbedder())
    assert report.factory == "IVF1,SQfp16"


def test_what_cannot_be_added_changes_nothing(photos: Path, out: Path) -> None:
    """A folder, and a file that is not there."""
    with pytest.raises(IndexFolderError, match=r"a folder; give it to index\.build"):
        add_photos(out, [photos], StubEmbedder())
    with pytest.raises(PhotoError, match="vanished"):
        add_photos(out, [photos / "none.png"], StubEmbedder())
    assert not (out / "added.jsonl").exists()


@pytest.mark.parametrize("step", ["scan committed", "rows committed", "encode", "shard committed"])
def test_a_folder_whose_build_was_cut_off_is_built_first(
    photos: Path, out: Path, step: str
) -> None:
    """A removal would publish half of what the build had begun."""
    write_photos(photos, [9])

    def cut(action: str) -> None:
        if action == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, out, steps=cut)
    with pytest.raises(IndexFolderError, match=r"cut off .* end it with index\.build"):
        remove_photos(out, ids=[0])
    build(photos, out)
    assert remove_photos(out, ids=[0]).num_live == 4


@pytest.mark.parametrize(("verb", "expected"), [("remove", [1, 2, 3]), ("add", [1, 2, 3, 4])])
def test_a_kill_at_any_step_of_remove_and_add_changes_nothing_in_the_end(
    photos: Path, out: Path, tmp_path: Path, verb: str, expected: list[int]
) -> None:
    """The same call again ends it: the photo away, or back under one new id."""

    def act(copy: Path, steps: Steps = no_steps) -> None:
        if verb == "remove":
            remove_photos(copy, ids=[0], steps=steps)
        else:
            add_photos(copy, [photos / "0000.png"], StubEmbedder(), steps=steps)

    if verb == "add":
        remove_photos(out, ids=[0])
    num_kills = 0
    for kill_at in range(0, 99, 3):
        copy = shutil.copytree(out, tmp_path / f"killed{kill_at}")
        left = iter(range(kill_at))

        def die(_action: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        try:
            act(copy, die)
        except KeyboardInterrupt:
            num_kills += 1
            act(copy)
            assert sorted(paths(copy)) == expected
        else:
            break
    assert num_kills >= 4


def test_remove_and_add_from_the_shell(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's own checkpoint is used; nothing named is an error of the user's."""
    photos = write_photos(tmp_path / "photos", range(3))
    out = str(tmp_path / "index")
    words = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint), "--out", out]
    assert build_main(words) == 0
    assert remove_main(["--index", out, "--path", "0001.png"]) == 0
    assert "removed 1, 2 live; generation 000002" in capsys.readouterr().out
    assert add_main(["--index", out, str(photos / "0001.png"), str(photos / "0002.png")]) == 0
    assert "new 1, 3 live, bad 0; generation 000003" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        remove_main(["--index", out])
    assert stopped.value.code == 2
    assert "--id, --path or --photo" in capsys.readouterr().err
    assert add_main(["--index", str(tmp_path), str(photos / "0001.png")]) == 2
    assert "no index here" in capsys.readouterr().err


def test_a_removed_photo_stays_away_when_its_shard_is_dropped(photos: Path, out: Path) -> None:
    """Compaction forgets the contents of a shard without a live row, but not removed ones."""
    write_photos(photos, [9])
    build(photos, out)
    remove_photos(out, ids=[4])
    assert build(photos, out).num_rows == 4
    embedder = StubEmbedder()
    build(photos, out, embedder, verify_content=True)
    assert embedder.num_embedded == 0
    assert sorted(paths(out)) == [0, 1, 2, 3]
    add_photos(out, [photos / "0009.png"], embedder)
    assert sorted(paths(out)) == [0, 1, 2, 3, 5]


def test_adding_keeps_the_recall_that_was_asked_for(photos: Path, out: Path) -> None:
    """A build with another target would tune again."""
    build(photos, out, factory="IVF1,SQfp16", target_recall=0.5)
    extra = write_photos(photos.parent / "extra", [7])
    add_photos(out, [extra / "0007.png"], StubEmbedder())
    with closing(Searcher.open(out)) as searcher:
        assert searcher.manifest.search.target == 0.5
    remove_photos(out, ids=[0])
    with closing(Searcher.open(out)) as searcher:
        assert searcher.manifest.search.target == 0.5


def test_what_was_added_while_serving_is_removed_too(photos: Path, out: Path) -> None:
    """By id, by the name a search gives, by its file and by its bytes, before any build."""
    with changing(out) as serving:
        added = [serving.add(seed).id for seed in (7, 8, 9, 10)]
        names = [hits(serving.searcher, seed)[0].uri for seed in (8, 9)]
        (photos.parent / "same.png").write_bytes(photo_bytes(10))
        report = remove_photos(
            out,
            ids=added[:1],
            paths=[Path(names[0]), out / "uploads" / names[1]],
            photos=[photos.parent / "same.png"],
        )
        assert report == RemovalReport(4, 4, "000001")
        serving.searcher.refresh()
        assert serving.searcher.num_live == 4
        assert serving.add(11).id == 8
    assert sorted(paths(out)) == [0, 1, 2, 3, 8]
    assert remove_photos(out, ids=added).num_removed == 0
    build(photos, out)
    assert sorted(paths(out)) == [0, 1, 2, 3, 8]
    assert {path.read_bytes() for path in (out / "uploads").iterdir()} == {photo_bytes(11)}


def test_removed_bytes_that_were_deleted_and_added_again_leave(photos: Path, out: Path) -> None:
    """By the path they stood at, or the id they had."""
    with changing(out) as serving:
        for old in (1, 2):
            assert serving.delete(old)
            serving.add(old)
    assert remove_photos(out, ids=[1], paths=[photos / "0002.png"]).num_live == 2
    for _ in range(2):
        assert sorted(paths(out)) == [0, 3]
        build(photos, out)


def test_bytes_of_a_deleted_photo_leave_the_disk_with_the_next_generation(
    photos: Path, out: Path
) -> None:
    """Not those that were added again, and not those that others hold."""
    uploads = out / "uploads"
    with changing(out) as serving:
        for seed in (7, 8, 9):
            serving.add(seed)
        serving.delete(4)
    build(photos, out)
    assert {path.read_bytes() for path in uploads.iterdir()} == {photo_bytes(8), photo_bytes(9)}
    with changing(out) as serving:
        serving.delete(5)
        serving.add(8)
        serving.delete(6)
        build(photos, out, steps=(seen := list[str]()).append)
        assert seen.index("CURRENT written") < seen.index("remove upload")
        assert serving.searcher.read_photo(7) == photo_bytes(8)
    assert {path.read_bytes() for path in uploads.iterdir()} == {photo_bytes(8)}
    remove_photos(out, ids=[7])
    assert not list(uploads.iterdir())


def test_a_kill_before_bytes_leave_lets_the_next_build_remove_them(photos: Path, out: Path) -> None:
    """Although nothing else is to be done."""
    with changing(out) as serving:
        serving.add(7)
        serving.delete(4)

    def die(action: str) -> None:
        if action == "remove upload":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, out, steps=die)
    assert list((out / "uploads").iterdir())
    assert not build(photos, out).is_new_generation
    assert not list((out / "uploads").iterdir())
