"""What a build makes of photo collections, and of their changes."""

import errno
import fcntl
import inspect
import json
import os
import sys
from contextlib import closing
from pathlib import Path

import pytest
from index_fixtures import build, durable_state, photo_bytes, png_of, touch_later, write_photos
from PIL import Image
from stub_embedder import BrokenEmbedder, StubEmbedder

from index.collection.photo_file import read_photo_file
from index.collection.sources import open_source, scan
from index.errors import IndexFolderError
from index.searcher import Searcher
from index.searching.neighbours import Neighbour
from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError


def everything(out: Path) -> list[Neighbour]:
    """Every live content, by id."""
    embedder = StubEmbedder()
    with closing(Searcher.open(out)) as searcher:
        query = embedder.embed_pixels([embedder.read(photo_bytes(0)).pixels])
        (neighbours,) = searcher.search(query, 1000)
    return sorted(neighbours)


def paths(out: Path) -> dict[int, list[str]]:
    """The live paths of every live id."""
    return {one.id: one.metadata["paths"] for one in everything(out)}


def quarantine(out: Path) -> dict[str, str]:
    """File name and code of every quarantined photo."""
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    return {Path(row["path"]).name: row["code"] for row in map(json.loads, lines)}


def test_ids_follow_the_order_of_the_paths_bytes(tmp_path: Path) -> None:
    """A folder sorts as its name and a slash, whatever order the disk gives."""
    for number, name in enumerate(["b.png", "a/z.png", "a.png", "a/B.png", "a-1.png"]):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(photo_bytes(number))
    build(tmp_path / "photos", tmp_path / "index")
    order = [one for (one,) in paths(tmp_path / "index").values()]
    assert order == ["a-1.png", "a.png", "a/B.png", "a/z.png", "b.png"]


def test_a_second_run_publishes_nothing(tmp_path: Path) -> None:
    """Nothing is read or embedded again, and the folder stays as it is."""
    photos = write_photos(tmp_path / "photos", range(5))
    first = build(photos, tmp_path / "index")
    before = durable_state(tmp_path / "index")
    embedder = StubEmbedder()
    second = build(photos, tmp_path / "index", embedder)
    assert (first.generation, first.is_new_generation, first.num_new) == ("000001", True, 5)
    assert (second.generation, second.is_new_generation, second.num_new) == ("000001", False, 0)
    assert embedder.num_embedded == 0
    assert durable_state(tmp_path / "index") == before


def test_new_photos_are_appended_and_old_shards_stay(tmp_path: Path) -> None:
    """Only the new ones are embedded; ids go on behind the last."""
    photos = write_photos(tmp_path / "photos", [5, 6])
    build(photos, tmp_path / "index")
    (old,) = (tmp_path / "index" / "shards").iterdir()
    write_photos(photos, [1, 2, 3])
    embedder = StubEmbedder()
    report = build(photos, tmp_path / "index", embedder)
    assert (report.generation, embedder.num_embedded) == ("000002", 3)
    assert old.exists()
    assert paths(tmp_path / "index") == {
        0: ["0005.png"], 1: ["0006.png"], 2: ["0001.png"], 3: ["0002.png"], 4: ["0003.png"],
    }  # fmt: skip


def test_a_vanished_photo_is_found_no_more_and_keeps_its_id(tmp_path: Path) -> None:
    """Its row is dead in the bitmap; when the bytes come back, so does the id."""
    photos = write_photos(tmp_path / "photos", range(3))
    build(photos, tmp_path / "index")
    (photos / "0001.png").unlink()
    report = build(photos, tmp_path / "index")
    assert (report.num_rows, report.num_live) == (3, 2)
    assert sorted(paths(tmp_path / "index")) == [0, 2]
    (photos / "back.png").write_bytes(photo_bytes(1))
    embedder = StubEmbedder()
    build(photos, tmp_path / "index", embedder)
    assert paths(tmp_path / "index")[1] == ["back.png"]
    assert embedder.num_embedded == 0


def test_equal_bytes_share_a_row_and_a_rename_changes_paths_only(tmp_path: Path) -> None:
    """Copies, hard links and new names cost no row."""
    photos = write_photos(tmp_path / "photos", range(2))
    (photos / "copy.png").write_bytes(photo_bytes(0))
    (photos / "link.png").hardlink_to(photos / "0001.png")
    build(photos, tmp_path / "index")
    assert paths(tmp_path / "index") == {0: ["0000.png", "copy.png"], 1: ["0001.png", "link.png"]}
    (photos / "0000.png").rename(photos / "zzz.png")
    report = build(photos, tmp_path / "index")
    assert (report.num_rows, report.num_new, report.is_new_generation) == (2, 0, True)
    assert paths(tmp_path / "index")[0] == ["copy.png", "zzz.png"]


def test_an_edited_photo_gets_a_new_row(tmp_path: Path) -> None:
    """An edit is seen by size or time; the old content dies."""
    photos = write_photos(tmp_path / "photos", range(2))
    build(photos, tmp_path / "index")
    (photos / "0000.png").write_bytes(photo_bytes(9))
    touch_later(photos / "0000.png")
    build(photos, tmp_path / "index")
    assert paths(tmp_path / "index") == {1: ["0001.png"], 2: ["0000.png"]}


def test_a_touched_photo_keeps_its_row(tmp_path: Path) -> None:
    """Only the bytes decide; a time alone makes no new row."""
    photos = write_photos(tmp_path / "photos", range(2))
    build(photos, tmp_path / "index")
    touch_later(photos / "0000.png")
    assert build(photos, tmp_path / "index").num_new == 0
    assert paths(tmp_path / "index") == {0: ["0000.png"], 1: ["0001.png"]}


def test_bad_photos_are_quarantined_and_tried_again_when_they_change(tmp_path: Path) -> None:
    """Each has a code and a hash; a mended one leaves the quarantine."""
    photos = write_photos(tmp_path / "photos", range(2))
    (photos / "empty.jpg").touch()
    (photos / "cut.png").write_bytes(photo_bytes(3)[:60])
    (photos / "notes.txt").write_text("no photo")
    (photos / "gone.png").symlink_to(photos / "nowhere")
    (photos / ".hidden").write_text("not even tried")
    report = build(photos, tmp_path / "index")
    assert (report.num_photos, report.num_bad) == (2, 4)
    assert quarantine(tmp_path / "index") == {
        "cut.png": "image_undecodable", "empty.jpg": "empty_image",
        "gone.png": "photo_missing", "notes.txt": "image_undecodable",
    }  # fmt: skip
    assert not build(photos, tmp_path / "index").is_new_generation
    (photos / "cut.png").write_bytes(photo_bytes(3))
    assert build(photos, tmp_path / "index").num_new == 1
    assert "cut.png" not in quarantine(tmp_path / "index")


def test_an_embedding_that_is_none_is_quarantined_alone(tmp_path: Path) -> None:
    """The other photos of its batch are embedded; its copy fails with it."""
    photos = write_photos(tmp_path / "photos", range(4))
    for name in ("0001a.png", "zz.png"):
        (photos / name).write_bytes(png_of(Image.new("RGB", (16, 16), (255, 0, 0))))
    report = build(photos, tmp_path / "index", BrokenEmbedder())
    assert (report.num_live, report.num_bad) == (4, 2)
    assert set(quarantine(tmp_path / "index").values()) == {"embedding_invalid"}


def test_only_bad_photos_give_an_empty_index(tmp_path: Path) -> None:
    """Nothing to find is an answer, not an error."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no photo")
    report = build(tmp_path / "photos", tmp_path / "index")
    assert (report.num_rows, report.num_bad, report.factory) == (0, 1, "Flat")
    assert everything(tmp_path / "index") == []


def test_odd_names_and_links_are_safe(tmp_path: Path) -> None:
    """Loops end, quotes and newlines are names, a name that is no UTF-8 is reported."""
    photos = write_photos(tmp_path / "photos", [0])
    (photos / "loop").symlink_to(photos)
    (photos / "self").symlink_to(photos / "self")
    os.mkfifo(photos / "pipe")
    name = 'it\'s "a"\nname; DROP TABLE photo?#%.png'
    (photos / name).write_bytes(photo_bytes(1))
    Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png")).write_bytes(photo_bytes(2))
    build(photos, tmp_path / "index")
    assert paths(tmp_path / "index") == {0: ["0000.png"], 1: [name]}
    assert quarantine(tmp_path / "index") == {
        "caf\\xe9.png": "path_not_utf8", "self": "photo_unreadable",
    }  # fmt: skip
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        assert searcher.photo_path(1) == photos / name
        assert searcher.photo_path(2) is None


def test_an_index_inside_the_photos_is_not_scanned(tmp_path: Path) -> None:
    """The folder's own files are no candidates."""
    photos = write_photos(tmp_path / "photos", range(2))
    build(photos, photos / "index")
    assert set(quarantine(photos / "index")) == {"stub.safetensors"}
    assert not build(photos, photos / "index").is_new_generation


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_list_names_photos_and_their_attributes(tmp_path: Path, kind: str) -> None:
    """Paths start at the list's folder; other columns become metadata."""
    write_photos(tmp_path / "set" / "sub", range(3))
    rows = [{"path": f"sub/{number:04d}.png", "label": f"l{number}"} for number in (2, 0)]
    rows.append({"path": "sub/none.png", "label": "x"})
    text = {
        "csv": "label,path\n" + "".join(f"{row['label']},{row['path']}\n" for row in rows),
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
    }[kind]
    photos = tmp_path / "set" / f"list.{kind}"
    photos.write_text(text)
    build(photos, tmp_path / "index")
    assert [(one.uri, one.metadata) for one in everything(tmp_path / "index")] == [
        ("sub/0000.png", {"paths": ["sub/0000.png"], "label": "l0"}),
        ("sub/0002.png", {"paths": ["sub/0002.png"], "label": "l2"}),
    ]
    assert quarantine(tmp_path / "index") == {"none.png": "photo_missing"}
    assert not build(photos, tmp_path / "index").is_new_generation
    photos.write_text(text.replace("l2", "other"))
    assert build(photos, tmp_path / "index").num_new == 0
    assert everything(tmp_path / "index")[1].metadata["label"] == "other"


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.csv", "name\nx.png\n", "no `path`"),
        ("a.jsonl", "{", "row 1: not JSON"),
        ("a.jsonl", "[1]", "not a JSON object"),
        ("a.txt", "x", "give a folder"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, name: str, text: str, word: str) -> None:
    """The message names the list and the row."""
    (tmp_path / name).write_text(text)
    with pytest.raises(MultiGrainError, match=word):
        build(tmp_path / name, tmp_path / "index")
    with pytest.raises(IndexFolderError, match="no such folder"):
        build(tmp_path / "nothing", tmp_path / "index")


def test_several_collections_share_contents(tmp_path: Path) -> None:
    """A collection that is not named again stays as it is."""
    first = write_photos(tmp_path / "first", [0, 1])
    second = write_photos(tmp_path / "second", [1, 2])
    build([first, second], tmp_path / "index")
    (second / "0002.png").unlink()
    build(first, tmp_path / "index")
    assert paths(tmp_path / "index") == {0: ["0000.png"], 1: ["0001.png"], 2: ["0002.png"]}
    build(second, tmp_path / "index")
    assert sorted(paths(tmp_path / "index")) == [0, 1]


def test_growing_past_the_table_trains_a_codebook_and_keeps_the_rows(tmp_path: Path) -> None:
    """Old rows get new lists in new folders; their bytes are the same files."""
    photos = write_photos(tmp_path / "photos", range(40))
    build(photos, tmp_path / "index")
    rows = {path.stat().st_ino for path in (tmp_path / "index" / "shards").glob("*/emb.f16")}
    report = build(photos, tmp_path / "index", factory="IVF1,SQfp16")
    assert (report.generation, report.num_new) == ("000002", 0)
    everywhere = {path.stat().st_ino for path in (tmp_path / "index/shards").glob("*/emb.f16")}
    assert everywhere == rows
    assert len(everything(tmp_path / "index")) == 40


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    """Embeddings of two models never mix, not even where someone takes the first one's file out."""
    photos = write_photos(tmp_path / "photos", range(2))
    build(photos, tmp_path / "index")
    for _ in range(2):
        with pytest.raises(IndexFolderError, match="give a new --out"):
            build(photos, tmp_path / "index", StubEmbedder("0" * 64))
        for path in (tmp_path / "index" / "models").iterdir():
            path.unlink()


def test_a_second_builder_is_told_who_is_building(tmp_path: Path) -> None:
    """The LOCK names the process."""
    photos = write_photos(tmp_path / "photos", range(2))
    build(photos, tmp_path / "index")
    with (tmp_path / "index" / "LOCK").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(IndexFolderError, match=f"pid {os.getpid()}"):
            build(photos, tmp_path / "index")


def test_old_generations_leave_unless_they_are_read(tmp_path: Path) -> None:
    """The live one, its parent and one that a reader has open stay."""
    photos = write_photos(tmp_path / "photos", [0])
    build(photos, tmp_path / "index")
    reader = Searcher.open(tmp_path / "index")
    for seed in (1, 2):
        write_photos(photos, [seed])
        build(photos, tmp_path / "index")
    names = [path.stem for path in sorted((tmp_path / "index" / "manifests").iterdir())]
    assert names == ["000001", "000002", "000003"]
    assert reader.num_live == 1
    reader.close()
    write_photos(photos, [3])
    build(photos, tmp_path / "index")
    names = [path.stem for path in sorted((tmp_path / "index" / "catalogs").iterdir())]
    assert names == ["000003", "000004"]


def test_a_list_that_names_a_pipe_ends_and_says_so_once(tmp_path: Path) -> None:
    """What is no file is never opened, and the next build does not try it again."""
    write_photos(tmp_path, [0])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "list.csv").write_text("path\n0000.png\npipe\n")
    build(tmp_path / "list.csv", tmp_path / "index")
    assert quarantine(tmp_path / "index") == {"pipe": "not_a_file"}
    assert not build(tmp_path / "list.csv", tmp_path / "index").is_new_generation


def test_a_photo_that_became_a_pipe_after_the_scan_is_not_waited_for(tmp_path: Path) -> None:
    """Reading asks what the file is before it reads."""
    photos = write_photos(tmp_path / "photos", range(2))

    def swap(action: str) -> None:
        if action == "scan committed":
            (photos / "0001.png").unlink()
            os.mkfifo(photos / "0001.png")

    assert build(photos, tmp_path / "index", steps=swap).num_bad == 1
    assert quarantine(tmp_path / "index") == {"0001.png": "not_a_file"}


def test_a_path_no_file_can_have_is_a_photo_error() -> None:
    """An embedded null byte is answered like any other unusable photo."""
    with pytest.raises(PhotoError) as caught:
        read_photo_file(Path("a\0b"), max_bytes=9)
    assert caught.value.code == "path_invalid"


def test_quarantine_names_the_file_an_absolute_path_means(tmp_path: Path) -> None:
    """A list's absolute path is not put below the list's folder."""
    bad = tmp_path / "elsewhere" / "bad.png"
    bad.parent.mkdir()
    bad.write_text("no photo")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.csv").write_text(f"path\n{bad}\n")
    build(tmp_path / "lists" / "list.csv", tmp_path / "index")
    (row,) = map(json.loads, (tmp_path / "index" / "quarantine.jsonl").read_text().splitlines())
    assert row["path"] == str(bad)


def test_a_file_system_without_hard_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the refusal is called there."""

    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    build(write_photos(tmp_path / "photos", range(2)), tmp_path / "index")
    assert len(everything(tmp_path / "index")) == 2


def test_a_tree_deeper_than_pythons_stack_is_walked(tmp_path: Path) -> None:
    """The deepest photo is found; the stack is made small, as no tool could remove a real one."""
    deepest = tmp_path / "photos" / Path(*["d"] * 300)
    deepest.mkdir(parents=True)
    (deepest / "a.png").touch()
    (tmp_path / "out").mkdir()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = list(scan(open_source(tmp_path / "photos"), skip=tmp_path / "out"))
    finally:
        sys.setrecursionlimit(limit)
    assert [one.path for one in found] == ["d/" * 300 + "a.png"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_root_that_cannot_be_listed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Its photos stay, whether it goes before the build starts or just after."""
    photos = write_photos(tmp_path / "photos", range(2))
    build(photos, tmp_path / "index")
    scandir, calls = os.scandir, list[Path]()

    def refuse(path: Path) -> object:
        if Path(path) == photos:
            calls.append(path)
            if when == "before" or len(calls) > 1:
                raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(IndexFolderError, match="cannot be listed"):
        build(photos, tmp_path / "index")
    monkeypatch.undo()
    assert sorted(paths(tmp_path / "index")) == [0, 1]
    assert not build(photos, tmp_path / "index").is_new_generation
