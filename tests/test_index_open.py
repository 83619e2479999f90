"""Opening an index folder: damage is named, an older generation serves, canaries speak."""

import logging
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, write_photos
from stub_embedder import DIM, StubEmbedder

from index.current import current_manifest
from index.errors import IndexFolderError
from index.layout import Layout
from index.searcher import Searcher


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index with two generations."""
    photos = write_photos(tmp_path / "photos", range(20))
    build(photos, tmp_path / "index")
    write_photos(photos, range(20, 40))
    build(photos, tmp_path / "index")
    return tmp_path / "index"


def new_shard(root: Path) -> Path:
    """The shard only the second generation has."""
    manifest = current_manifest(Layout(root))
    assert manifest is not None
    return root / "shards" / manifest.shards[1].folder


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [cut, halve, Path.unlink])
@pytest.mark.parametrize("name", ["emb.f16", "ivf.faiss", "SHARD.json", "bits", "sqlite", "json"])
def test_a_damaged_generation_is_named_and_the_one_before_it_opens(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], name: str
) -> None:
    """A warning names the file; searching goes on."""
    damaged = {
        "bits": folder / "tombstones" / "000002.bits",
        "sqlite": folder / "catalogs" / "000002.sqlite",
        "json": folder / "manifests" / "000002.json",
    }.get(name, new_shard(folder) / name)
    damage(damaged)
    with caplog.at_level(logging.WARNING), closing(Searcher.open(folder)) as searcher:
        assert (searcher.generation, searcher.num_live) == ("000001", 20)
    assert str(damaged) in caplog.text


@pytest.mark.parametrize(
    ("name", "damage"), [("SHARD.json", flip), ("ivf.faiss", zero), ("json", flip), ("bits", flip)]
)
def test_changed_bytes_are_noticed(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    """Hashes and headers are checked at opening."""
    damage(
        {
            "bits": folder / "tombstones" / "000002.bits",
            "json": folder / "manifests" / "000002.json",
        }.get(name, new_shard(folder) / name)
    )
    with closing(Searcher.open(folder)) as searcher:
        assert searcher.generation == "000001"


def test_shards_exchanged_are_caught_by_the_canaries(folder: Path) -> None:
    """Same sizes, other rows: the canaries' neighbours differ."""
    rows = new_shard(folder) / "emb.f16"
    rows.write_bytes(np.fromfile(rows, "<f2").reshape(-1, DIM)[::-1].tobytes())
    with closing(Searcher.open(folder)) as searcher:
        assert searcher.generation == "000001"


@pytest.mark.parametrize("text", [None, "", "nonsense", "000009.json 00\n", "\xff"])
def test_without_current_the_newest_generation_opens(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    """A lost or broken CURRENT costs a warning."""
    (folder / "CURRENT").unlink()
    if text is not None:
        (folder / "CURRENT").write_text(text, "latin-1")
    with caplog.at_level(logging.WARNING), closing(Searcher.open(folder)) as searcher:
        assert searcher.generation == "000002"
    assert "000002 is used" in caplog.text


def test_when_no_generation_opens_the_first_fault_is_raised(folder: Path) -> None:
    """The message names the newest generation's file."""
    for path in (folder / "tombstones").iterdir():
        path.unlink()
    with pytest.raises(IndexFolderError, match=r"000002\.bits"):
        Searcher.open(folder)


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path) -> None:
    """The message says how to make one."""
    with pytest.raises(IndexFolderError, match=r"index\.build"):
        Searcher.open(tmp_path)


def test_a_reader_needs_no_write_permission(folder: Path) -> None:
    """Opening and searching write nothing."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with closing(Searcher.open(folder)) as searcher:
        assert searcher.photo_path(0) is not None
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_right_model_passes_the_canaries(folder: Path) -> None:
    """On the same engine by cosine, on another by neighbours."""
    other = StubEmbedder()
    other.engine = "other"
    with closing(Searcher.open(folder)) as searcher:
        searcher.check_canaries(StubEmbedder())
        searcher.check_canaries(other)


def test_a_wrong_model_fails_the_canaries(folder: Path) -> None:
    """Another fingerprint, and the same fingerprint with other weights."""
    liar = StubEmbedder()
    liar._projection = liar._projection[::-1]
    with closing(Searcher.open(folder)) as searcher:
        with pytest.raises(IndexFolderError, match="checkpoint"):
            searcher.check_canaries(StubEmbedder("0" * 64))
        with pytest.raises(IndexFolderError, match="canary"):
            searcher.check_canaries(liar)


def test_canaries_whose_photos_are_gone_are_passed_over(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be checked is said, and is no error."""
    for photo in (folder.parent / "photos").iterdir():
        photo.unlink()
    with closing(Searcher.open(folder)) as searcher, caplog.at_level(logging.WARNING):
        searcher.check_canaries(StubEmbedder())
    assert "not checked" in caplog.text
