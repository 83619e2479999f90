"""Photos in an object store: found as files are, told apart by their marks, read when needed."""

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from index_fixtures import build, photo_bytes, write_photos
from s3fs import S3FileSystem
from stub_embedder import StubEmbedder

from index.build import main as build_main
from index.collection.photo_file import read_photo_file, read_same_bytes
from index.collection.sources import open_source, scan
from index.errors import IndexFolderError
from index.searcher import Searcher
from multigrain.fetched import local_file
from multigrain.locations import Url
from multigrain.object_store import ObjectMissingError, ObjectStore, ObjectStoreError
from multigrain.photo import PhotoError

pytest_plugins = ["object_fixtures"]

NAMES = ("a/2.png", "a-b/1.png", "a.png", "a/b/é.png", "a/%20 ?[x]*.png", "b/empty.png", "z.png")
NOWHERE = Path("nowhere")


def put_tree(files: S3FileSystem, folder: str) -> None:
    """Objects of every kind of name, one of them empty, and what no scan finds."""
    for seed, name in enumerate(NAMES):
        data = b"" if "empty" in name else photo_bytes(seed)
        files.pipe_file(f"{folder}/{name}", data)
    for hidden in (".hidden.png", "a/.git/x.png", "b/"):
        files.pipe_file(f"{folder}/{hidden}", b"")


def test_objects_are_found_in_the_order_of_files(s3: S3FileSystem, tmp_path: Path) -> None:
    """The same tree on a disk gives the same paths, sizes and classes in the same order."""
    put_tree(s3, "bucket/tree")
    for seed, name in enumerate(NAMES):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"" if "empty" in name else photo_bytes(seed))
    stored = list(scan(open_source(Url("s3://bucket/tree")), skip=NOWHERE))
    on_disk = list(scan(open_source(tmp_path), skip=NOWHERE))
    assert [(one.path, one.size, one.label, one.error) for one in stored] == [
        (one.path, one.size, one.label, one.error) for one in on_disk
    ]
    assert all(one.mtime_ns and one.ino for one in stored)


def test_a_part_without_a_name_is_told(s3: S3FileSystem) -> None:
    """What lies at "c//x.png" has no path of ours, and is listed as bad instead of left out."""
    s3.pipe_file("bucket/parts/c//x.png", b"x")
    s3.pipe_file("bucket/parts/d.png", b"x")
    found = scan(open_source(Url("s3://bucket/parts")), skip=NOWHERE)
    assert {one.path: one.error for one in found} == {"c//": "path_invalid", "d.png": None}


def test_an_index_of_objects_equals_one_of_files(s3: S3FileSystem, tmp_path: Path) -> None:
    """Ids, rows and paths agree; photos are read from the store; a second build reads nothing."""
    files = write_photos(tmp_path / "photos", range(5))
    for path in files.iterdir():
        s3.pipe_file(f"bucket/same/{path.name}", path.read_bytes())
    s3.pipe_file("bucket/same/bad.png", b"no photo")
    (files / "bad.png").write_bytes(b"no photo")
    report = build([Url("s3://bucket/same")], tmp_path / "stored")
    build(files, tmp_path / "local")
    rows = [
        next((tmp_path / name / "shards").glob("*/emb.f16")).read_bytes()
        for name in ("stored", "local")
    ]
    assert rows[0] == rows[1]
    assert (report.num_photos, report.num_bad) == (5, 1)
    assert '"s3://bucket/same/bad.png"' in (tmp_path / "stored" / "quarantine.jsonl").read_text()
    searcher = Searcher.open(tmp_path / "stored")
    assert searcher.photo_path(3) == "s3://bucket/same/0003.png"
    assert searcher.read_photo(3) == photo_bytes(3)
    searcher.check_canaries(StubEmbedder())
    searcher.close()
    again = build([Url("s3://bucket/same")], tmp_path / "stored")
    assert again.embedded is not None
    assert again.embedded.num_photos == 0
    assert not again.is_new_generation


def test_a_replaced_object_is_read_again(s3: S3FileSystem, tmp_path: Path) -> None:
    """Other bytes of the same size, and one that left, are seen by the next build."""
    url, embedder = Url("s3://bucket/changing"), StubEmbedder()
    for seed in range(3):
        s3.pipe_file(f"bucket/changing/{seed}.png", photo_bytes(seed))
    build([url], tmp_path / "index", embedder)
    s3.pipe_file("bucket/changing/1.png", photo_bytes(9))
    s3.rm_file("bucket/changing/2.png")
    report = build([url], tmp_path / "index", embedder)
    assert (report.num_new, report.num_live) == (1, 2)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/none", "no such folder"),
        ("s3://no-such-bucket/x", "no such folder"),
        ("s3://bucket/photos.csv", "lists are read from this machine"),
        ("gs://bucket/x", "gcsfs"),
        ("nothing://x", "nothing"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_what_is_no_folder_of_objects_is_refused(url: str, message: str) -> None:
    """The error names the address, and what is missing."""
    with pytest.raises((IndexFolderError, ObjectStoreError), match=message) as caught:
        open_source(Url(url))
    assert url in str(caught.value)


def test_reading_an_object(s3: S3FileSystem) -> None:
    """Bytes, none, too many, and none there; a photo of other bytes is not the one asked for."""
    s3.pipe_file("bucket/read/x.png", b"12345")
    s3.pipe_file("bucket/read/empty.png", b"")
    assert read_photo_file("s3://bucket/read/x.png", max_bytes=5) == b"12345"
    assert read_photo_file("s3://bucket/read/empty.png", max_bytes=5) == b""
    with pytest.raises(PhotoError, match="over 4 bytes"):
        read_photo_file("s3://bucket/read/x.png", max_bytes=4)
    with pytest.raises(PhotoError, match="vanished"):
        read_photo_file("s3://bucket/read/gone.png", max_bytes=4)
    assert read_same_bytes([Url("s3://bucket/read/x.png")], b"other", num_bytes=5) is None


def test_a_store_that_gives_no_answer_ends_a_build_that_goes_on_later(
    memory: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No photo counts as bad for it; what was embedded before stays."""
    for seed in range(40):
        ObjectStore(memory).write(f"{seed:02}.png", photo_bytes(seed))
    cat_file = MemoryFileSystem.cat_file

    def fail_late(files: MemoryFileSystem, path: str, **options: object) -> bytes:
        if path.endswith("39.png"):
            raise TimeoutError("nobody there")
        return bytes(cat_file(files, path, **options))

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail_late)
    with pytest.raises(ObjectStoreError, match=r"39\.png: no answer \(TimeoutError"):
        build([memory], tmp_path / "index")
    monkeypatch.undo()
    embedder = StubEmbedder()
    report = build([memory], tmp_path / "index", embedder)
    assert (report.num_live, report.num_bad) == (40, 0)
    assert embedder.num_embedded < 40


def test_a_checkpoint_of_a_url_is_fetched_once_for_each_state(
    memory: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file is given while nothing changed there; none of it where nothing is."""
    url = Url(f"{memory}/model.safetensors")
    ObjectStore(memory).write("model.safetensors", b"first")
    path = local_file(url, cache_dir=tmp_path)
    assert (path.name, path.read_bytes()) == ("model.safetensors", b"first")
    fetched = list[str]()
    download = ObjectStore.download

    def count(store: ObjectStore, name: str, target: Path) -> None:
        fetched.append(store.url)
        download(store, name, target)

    monkeypatch.setattr(ObjectStore, "download", count)
    assert local_file(url, cache_dir=tmp_path) == path
    assert not fetched
    path.write_bytes(b"fir")  # a disk that lost the end
    assert local_file(url, cache_dir=tmp_path).read_bytes() == b"first"
    ObjectStore(memory).write("model.safetensors", b"second")
    assert local_file(url, cache_dir=tmp_path).read_bytes() == b"second"
    assert local_file(tmp_path / "x") == tmp_path / "x"
    with pytest.raises(ObjectMissingError, match="not there"):
        local_file(Url(f"{memory}/none"), cache_dir=tmp_path)


def test_the_shell_builds_from_urls(
    s3: S3FileSystem, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """index.build takes photos and checkpoint of a URL, and refuses to write to one."""
    for seed in range(3):
        s3.pipe_file(f"bucket/shell/photos/{seed}.png", photo_bytes(seed, side=80))
    s3.put_file(str(tiny_checkpoint), "bucket/shell/tiny.safetensors")
    given = ["--photos", "s3://bucket/shell/photos/", "--checkpoint"]
    given += ["s3://bucket/shell/tiny.safetensors", "--out"]
    assert build_main([*given, str(tmp_path / "index")]) == 0
    searcher = Searcher.open(tmp_path / "index")
    assert searcher.num_live == 3
    searcher.close()
    with pytest.raises(SystemExit):
        build_main([*given, "s3://bucket/index"])
    assert "--out takes a path of this machine, not the URL" in capsys.readouterr().err
