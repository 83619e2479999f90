"""What a second build reads again, and what it does not."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import (
    Killed,
    build,
    photo_bytes,
    random_units,
    touch_later,
    write_photos,
    write_vectors,
)
from stub_embedder import VectorEmbedder

from index.build import main as build_main
from index.errors import IndexFolderError
from index.searcher import Searcher

VECTORS = random_units(8)


class CountingEmbedder(VectorEmbedder):
    """Counts the photos it decodes as well as those it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.num_read = 0

    def read(self, source: bytes | Path) -> object:  # type: ignore[override]
        """Count, then decode."""
        self.num_read += 1
        return super().read(source)

    def embed_pixels(self, pixels: object, batch_size: int = 8) -> np.ndarray:  # type: ignore[override]
        """Count, then give the vectors back."""
        self.num_embedded += len(pixels)  # type: ignore[arg-type]
        return super().embed_pixels(pixels, batch_size)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three files of one size, indexed."""
    folder = write_vectors(tmp_path / "photos", VECTORS[:3])
    build(folder, tmp_path / "index", VectorEmbedder())
    return folder


def replace_in_place(file: Path, number: int) -> None:
    """Write another photo of the same size into a file, and give it its old time again."""
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.write(VECTORS[number].tobytes() + str(number).encode())
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def paths(root: Path) -> dict[int, list[str]]:
    with closing(Searcher.open(root)) as searcher:
        (found,) = searcher.search(VECTORS[:1], 100)
    return {one.id: one.metadata["paths"] for one in sorted(found)}


def test_what_no_stat_shows_is_seen_by_verify_content_only(photos: Path, tmp_path: Path) -> None:
    """Same size, time and inode, other bytes: one new row; the others are hashed, not embedded."""
    replace_in_place(photos / "000001", 5)
    out, embedder = tmp_path / "index", CountingEmbedder()
    assert not build(photos, out, embedder).is_new_generation
    report = build(photos, out, embedder, verify_content=True)
    assert (report.is_new_generation, embedder.num_read, embedder.num_embedded) == (True, 1, 1)
    assert paths(out) == {0: ["000000"], 2: ["000002"], 3: ["000001"]}


def test_verify_content_publishes_nothing_where_nothing_changed(
    photos: Path, tmp_path: Path
) -> None:
    """Bad photos are hashed too, and stay what they are."""
    (photos / "bad").touch()
    out = tmp_path / "index"
    build(photos, out, VectorEmbedder())
    report = build(photos, out, VectorEmbedder(), verify_content=True)
    assert (report.generation, report.is_new_generation) == ("000002", False)
    assert (report.num_new, report.num_bad) == (0, 1)


def test_a_photo_that_went_bad_unseen_leaves(photos: Path, tmp_path: Path) -> None:
    """Hashing every file finds bytes that are no photo any more."""
    file = photos / "000001"
    stat = file.stat()
    file.write_bytes(b"")
    os.truncate(file, stat.st_size)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    report = build(photos, tmp_path / "index", VectorEmbedder(), verify_content=True)
    assert (report.num_live, report.num_bad) == (2, 1)
    assert sorted(paths(tmp_path / "index")) == [0, 2]


def test_a_file_put_in_anothers_place_is_seen_by_its_inode(photos: Path, tmp_path: Path) -> None:
    """Size and time are the old ones."""
    stat = (photos / "000001").stat()
    (photos / "new").write_bytes(VECTORS[5].tobytes() + b"5")
    os.utime(photos / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    (photos / "new").rename(photos / "000001")
    assert build(photos, tmp_path / "index", VectorEmbedder()).num_new == 1
    assert paths(tmp_path / "index")[3] == ["000001"]


@pytest.mark.parametrize("years", [-40, 40])
def test_no_order_of_times_decides(photos: Path, tmp_path: Path, years: int) -> None:
    """An edit dated long ago or in the future is an edit; the next build sees no other."""
    file = photos / "000001"
    file.write_bytes(VECTORS[5].tobytes() + b"longer")
    when = int(time.time()) + years * 365 * 86400
    os.utime(file, (when, when))
    out = tmp_path / "index"
    assert build(photos, out, VectorEmbedder()).num_new == 1
    assert not build(photos, out, VectorEmbedder()).is_new_generation
    os.utime(file, (when + 1, when + 1))
    report = build(photos, out, VectorEmbedder())
    assert (report.num_new, report.num_live) == (0, 3)


def test_a_rename_costs_a_row_and_no_decoding(photos: Path, tmp_path: Path) -> None:
    """A file, and a folder of files; the ids stay."""
    (photos / "000000").rename(photos / "zzz")
    (photos / "sub").mkdir()
    (photos / "000001").rename(photos / "sub" / "1")
    embedder = CountingEmbedder()
    report = build(photos, tmp_path / "index", embedder)
    assert (report.num_new, report.num_rows, embedder.num_read) == (0, 3, 0)
    assert paths(tmp_path / "index") == {0: ["zzz"], 1: ["sub/1"], 2: ["000002"]}


def test_the_flag_reaches_the_build(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--verify-content` from the shell."""
    (tmp_path / "photos").mkdir()
    file = tmp_path / "photos" / "a"
    file.write_bytes(b"not a photo")
    words = ["--photos", str(tmp_path / "photos"), "--checkpoint", str(tiny_checkpoint)]
    words += ["--out", str(tmp_path / "index")]
    assert build_main(words) == 0
    before = (tmp_path / "index" / "quarantine.jsonl").read_text()
    stat = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"NOT A PHOTO")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert build_main(words) == 0
    assert (tmp_path / "index" / "quarantine.jsonl").read_text() == before
    assert build_main([*words, "--verify-content"]) == 0
    assert (tmp_path / "index" / "quarantine.jsonl").read_text() != before
    capsys.readouterr()


def test_a_database_that_another_program_holds_is_waited_for_then_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is published meanwhile; the build after it goes on."""
    out = tmp_path / "index"
    monkeypatch.setattr("index.catalog_engine.BUSY_TIMEOUT_MS", 200)
    write_vectors(photos, VECTORS[:4])
    with closing(sqlite3.connect(out / "build.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(IndexFolderError, match=r"build\.sqlite: database is locked; another"):
            build(photos, out, VectorEmbedder())
        assert time.monotonic() - start >= 0.2
    assert [one.name for one in (out / "manifests").iterdir()] == ["000001.json"]
    assert build(photos, out, VectorEmbedder()).num_new == 1


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_removed_after_a_kill_costs_no_photo(tmp_path: Path, suffix: str) -> None:
    """A killed builder leaves both files; without either the build ends as it would have."""
    photos = write_vectors(tmp_path / "photos", VECTORS[:3])
    killed = Killed(tmp_path / "whole", tmp_path / "killed")
    build(photos, tmp_path / "whole", VectorEmbedder(), steps=killed)
    out = killed.at(killed.actions.index("rows committed") + 1)
    log = out / f"build.sqlite{suffix}"
    assert log.exists()
    log.unlink()
    build(photos, out, VectorEmbedder())
    assert paths(out) == {0: ["000000"], 1: ["000001"], 2: ["000002"]}


def test_names_spelled_out_are_compared_like_any_other(tmp_path: Path) -> None:
    """They do not come in the order of their paths: unchanged, then changed ones, then gone."""
    photos, out = write_photos(tmp_path / "photos", range(3)), tmp_path / "index"
    odd = [os.fsencode(photos) + name for name in (b"/\xff.png", b"/0001\xfe.png", b"/\xfd")]
    for name in odd:
        Path(os.fsdecode(name)).write_bytes(b"no photo")
    (photos / "é.png").write_bytes(photo_bytes(7))
    assert build(photos, out).scanned == (7, 7, 0)
    assert build(photos, out).scanned == (7, 0, 0)
    touch_later(photos / "0001.png")
    Path(os.fsdecode(odd[0])).unlink()
    (photos / "é.png").unlink()
    assert build(photos, out).scanned == (5, 1, 2)
    Path(os.fsdecode(odd[0])).write_bytes(b"no photo")
    assert build(photos, out).scanned == (6, 1, 0)
