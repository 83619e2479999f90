"""Builds over damaged, lost and older parts of an index folder: no id and no number comes twice."""

import logging
import os
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, durable_state, photo_bytes, write_photos
from stub_embedder import StubEmbedder

from index.codebook.rotation import Rotation
from index.errors import IndexFolderError
from index.faiss_encode import encode_rows
from index.faiss_train import train_codebook
from index.layout import Layout
from index.searcher import Searcher
from index.stages import Stage


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three drawn photos."""
    return write_photos(tmp_path / "photos", range(3))


@pytest.fixture
def out(photos: Path, tmp_path: Path) -> Path:
    """Two generations: three rows, then a fourth; `older.sqlite` is the first one's journal."""
    build(photos, tmp_path / "index")
    shutil.copyfile(tmp_path / "index" / "build.sqlite", tmp_path / "older.sqlite")
    (photos / "new_a.png").write_bytes(photo_bytes(10))
    build(photos, tmp_path / "index")
    return tmp_path / "index"


def paths(root: Path) -> dict[int, str]:
    """The first path of every live id."""
    with closing(Searcher.open(root)) as searcher:
        (found,) = searcher.search(np.ones((1, searcher.dim), np.float32), 100)
        return {one.id: one.uri for one in found}


def break_json(root: Path, generation: str = "000002") -> bytes:
    """Cut a manifest; gives what is left."""
    path = root / "manifests" / f"{generation}.json"
    path.write_bytes(path.read_bytes()[:-9])
    return path.read_bytes()


def test_an_older_journal_put_back_reuses_no_id_and_rewrites_no_manifest(
    photos: Path, out: Path, tmp_path: Path
) -> None:
    """The journal is made again from the live catalog, so the new photo gets a new id."""
    before = (out / "manifests" / "000002.json").read_bytes()
    shutil.copyfile(tmp_path / "older.sqlite", out / "build.sqlite")
    (photos / "new_a.png").unlink()
    (photos / "new_b.png").write_bytes(photo_bytes(11))
    report = build(photos, out)
    assert (report.generation, report.is_new_generation) == ("000003", True)
    assert (out / "manifests" / "000002.json").read_bytes() == before
    assert paths(out) == {0: "0000.png", 1: "0001.png", 2: "0002.png", 4: "new_b.png"}


def test_an_older_journal_put_back_changes_nothing_where_nothing_changed(
    photos: Path, out: Path, tmp_path: Path
) -> None:
    """No photo is embedded again."""
    shutil.copyfile(tmp_path / "older.sqlite", out / "build.sqlite")
    embedder = StubEmbedder()
    assert not build(photos, out, embedder).is_new_generation
    assert embedder.num_embedded == 0


def test_a_log_left_beside_a_lost_journal_is_not_played_into_the_new_one(
    photos: Path, out: Path
) -> None:
    """Only the catalog's rows are in it."""
    (out / "build.sqlite").unlink()
    (out / "build.sqlite-wal").write_bytes(b"left over" * 1000)
    assert not build(photos, out).is_new_generation


def test_journal_and_current_lost_give_the_next_number(photos: Path, out: Path) -> None:
    """The newest manifest is the parent and stays as it is."""
    before = (out / "manifests" / "000002.json").read_bytes()
    (out / "build.sqlite").unlink()
    (out / "CURRENT").unlink()
    assert build(photos, out).generation == "000003"
    assert (out / "manifests" / "000002.json").read_bytes() == before
    assert len(paths(out)) == 4


def test_a_damaged_live_manifest_is_passed_over_and_its_number_stays_its_own(
    photos: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal knows every row: nothing is embedded again, and the ids stay."""
    left = break_json(out)
    embedder = StubEmbedder()
    with caplog.at_level(logging.WARNING):
        report = build(photos, out, embedder)
    assert "000002 is passed over" in caplog.text
    assert (report.generation, embedder.num_embedded) == ("000003", 0)
    assert not (out / "manifests" / "000002.json").exists() or (
        (out / "manifests" / "000002.json").read_bytes() == left
    )
    assert paths(out)[3] == "new_a.png"
    assert not build(photos, out).is_new_generation


def test_a_damaged_live_manifest_without_a_journal_keeps_its_ids_for_itself(
    photos: Path, out: Path
) -> None:
    """Id 3 was published, so its photo comes back as 4, also after the journal is lost again."""
    break_json(out)
    (out / "build.sqlite").unlink()
    report = build(photos, out)
    assert (report.generation, report.num_new) == ("000003", 1)
    assert paths(out) == {0: "0000.png", 1: "0001.png", 2: "0002.png", 4: "new_a.png"}
    (out / "build.sqlite").unlink()
    (photos / "more.png").write_bytes(photo_bytes(12))
    build(photos, out)
    assert paths(out)[5] == "more.png"


def test_ids_kept_back_stay_so_without_a_new_photo(photos: Path, out: Path) -> None:
    """A generation that needs no row still remembers which ids were given out."""
    break_json(out)
    (out / "build.sqlite").unlink()
    (photos / "new_a.png").unlink()
    assert build(photos, out).num_rows == 3
    (out / "build.sqlite").unlink()
    (photos / "more.png").write_bytes(photo_bytes(12))
    build(photos, out)
    assert paths(out) == {0: "0000.png", 1: "0001.png", 2: "0002.png", 4: "more.png"}


def test_a_wrong_hash_in_current_costs_no_row(photos: Path, out: Path) -> None:
    """The journal knows the manifest that stands there."""
    (out / "CURRENT").write_text(f"000002.json {'0' * 64}\n")
    embedder = StubEmbedder()
    assert build(photos, out, embedder).generation == "000003"
    assert (embedder.num_embedded, paths(out)[3]) == (0, "new_a.png")


def test_with_nothing_whole_the_build_says_what_to_do(photos: Path, out: Path) -> None:
    """Journal lost and every manifest damaged: a new folder is needed, and nothing is touched."""
    break_json(out, "000001")
    break_json(out, "000002")
    (out / "build.sqlite").unlink()
    with pytest.raises(IndexFolderError, match="build into a new --out"):
        build(photos, out)
    assert len(list((out / "shards").iterdir())) == 2


def test_a_manifest_of_another_version_is_refused_not_replaced(photos: Path, out: Path) -> None:
    """It is as it was written, so it is not damaged."""
    layout = Layout(out)
    data = layout.manifest("000002").read_bytes().replace(b'"format":1', b'"format":2')
    layout.manifest("000002").write_bytes(data)
    layout.current.write_text(f"000002.json {sha256(data).hexdigest()}\n")
    with pytest.raises(IndexFolderError, match="format 2 is unknown"):
        build(photos, out)


def test_a_damaged_manifest_that_a_reader_holds_does_not_stop_the_build(
    photos: Path, tmp_path: Path
) -> None:
    """Old files stay while what belongs to it cannot be told, and go when the reader has gone."""
    out = tmp_path / "index"
    build(photos, out)
    with closing(Searcher.open(out)):
        break_json(out, "000001")
        (photos / "20.png").write_bytes(photo_bytes(20))
        assert build(photos, out).generation == "000002"
    assert [path.stem for path in sorted((out / "catalogs").iterdir())] == ["000001", "000002"]
    (photos / "21.png").write_bytes(photo_bytes(21))
    build(photos, out)
    assert [path.stem for path in sorted((out / "catalogs").iterdir())] == ["000002", "000003"]
    assert len(paths(out)) == 5


@pytest.mark.parametrize("name", ["catalogs/000002.sqlite", "tombstones/000002.bits"])
def test_a_damaged_file_of_the_live_generation_is_written_anew(
    photos: Path, out: Path, name: str
) -> None:
    """The journal holds all of it, so readers need not stay on the generation before."""
    (out / name).write_bytes(b"")
    assert len(paths(out)) == 3
    assert build(photos, out).generation == "000003"
    assert len(paths(out)) == 4


def test_a_lost_codebook_is_trained_again(photos: Path, out: Path) -> None:
    """Its folder is completed, and readers open it."""
    (trained,) = (out / "codebooks").glob("*/trained.faiss")
    trained.unlink()
    build(photos, out)
    assert len(paths(out)) == 4


def test_a_cut_shard_is_embedded_again_from_its_photos(photos: Path, out: Path) -> None:
    """No traceback of the memory map; ids stay, whatever codebook is asked for."""
    before = paths(out)
    rows = min((out / "shards").glob("*/emb.f16"), key=lambda path: -path.stat().st_size)
    os.truncate(rows, 10)
    build(photos, out, factory="IVF1,SQfp16")
    assert paths(out) == before


def test_a_cut_shard_is_named_where_photos_are_not_read(photos: Path, out: Path) -> None:
    """The stage that lacks its rows says which one makes them."""
    rows = min((out / "shards").glob("*/emb.f16"), key=lambda path: -path.stat().st_size)
    os.truncate(rows, 10)
    with pytest.raises(IndexFolderError, match=r"emb\.f16: damaged, .*; run the stage embed"):
        build(photos, out, first=Stage.ENCODE)


def test_garbage_for_a_journal_is_named_with_its_remedy(photos: Path, out: Path) -> None:
    """Doing what the message says mends the folder."""
    (out / "build.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(IndexFolderError, match=r"build\.sqlite: .*; remove the file"):
        build(photos, out)
    (out / "build.sqlite").unlink()
    assert not build(photos, out).is_new_generation


@pytest.mark.parametrize("kibibytes", [0, 8, 24, 40, 64])
def test_a_full_disk_is_one_error_and_the_build_goes_on_later(
    photos: Path, tmp_path: Path, kibibytes: int
) -> None:
    """Whatever file does not fit, the error is the user's, and nothing is lost for good."""
    build(photos, tmp_path / "whole")
    with no_file_above(kibibytes * 1024), pytest.raises(IndexFolderError) as caught:
        build(photos, tmp_path / "index")
    assert re.search(r"/index.* needs about .* more, .* are free", str(caught.value))
    build(photos, tmp_path / "index")
    assert durable_state(tmp_path / "index") == durable_state(tmp_path / "whole")


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow above a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_faiss_cannot_write_is_named(tmp_path: Path) -> None:
    """Faiss's own error is a RuntimeError."""
    nowhere = tmp_path / "nowhere" / "file.faiss"
    rows = np.eye(4, dtype=np.float16)
    options = {"rotation": Rotation(), "num_threads": 1}
    with pytest.raises(IndexFolderError, match=r"file\.faiss: cannot be written"):
        train_codebook("Flat", rows, nowhere, seed=0, **options)
    train_codebook("Flat", rows, tmp_path / "flat.faiss", seed=0, **options)
    with pytest.raises(IndexFolderError, match=r"file\.faiss: cannot be written"):
        encode_rows(tmp_path / "flat.faiss", rows, nowhere, first_id=0, **options)
