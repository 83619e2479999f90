"""What an index folder holds, and its rows for other programs."""

import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from change_fixtures import changing
from index_fixtures import build, photo_bytes, write_photos
from stub_embedder import StubEmbedder

from index.changes.removal import remove_photos
from index.errors import IndexFolderError
from index.export import main as export_main
from index.export_rows import export_index
from index.searcher import Searcher
from index.stats import main as stats_main
from index.stats import read_stats


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos, one twice, one gone, one removed, two bad, in two shards; ids 0, 1, 2, 5 live."""
    folder = tmp_path_factory.mktemp("tools")
    photos = write_photos(folder / "photos", range(6))
    (photos / 'a "copy"\n.png').write_bytes(photo_bytes(5))
    (photos / "empty.jpg").touch()
    (photos / "notes.txt").write_text("no photo")
    build(photos, folder / "index", shard_rows=4)
    (photos / "0003.png").unlink()
    build(photos, folder / "index", shard_rows=4)
    remove_photos(folder / "index", paths=[photos / "0002.png"])
    return folder / "index"


def live(root: Path) -> dict[int, list[str]]:
    with closing(Searcher.open(root)) as searcher:
        embedder = StubEmbedder()
        query = embedder.embed_pixels([embedder.read(photo_bytes(0)).pixels])
        (found,) = searcher.search(query, 100)
    return {one.id: one.metadata["paths"] for one in sorted(found)}


def test_stats_count_what_there_is(root: Path) -> None:
    """Photos, contents, live, dead, removed and bad; sizes are those of the files."""
    stats = read_stats(root)
    assert stats["generation"] == "000003"
    names = ("photos", "contents", "live", "dead", "removed", "shards")
    assert {name: stats[name] for name in names} == {
        "photos": 5, "contents": 6, "live": 4, "dead": 2, "removed": 1, "shards": 2,
    }  # fmt: skip
    assert stats["bad"] == {"empty_image": 1, "image_undecodable": 1}
    sizes = [path.stat().st_size for path in root.glob("shards/*/emb.f16")]
    assert stats["bytes"]["embeddings"] == sum(sizes)
    assert stats["factory"] == "Flat"
    with closing(Searcher.open(root)) as searcher:
        assert stats["recall"] == searcher.manifest.search.recall


def test_stats_are_printed_in_both_forms(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is what Python gets; no index is one line and status 2."""
    assert stats_main(["--index", str(root)]) == 0
    text = capsys.readouterr().out
    assert "live         4" in text
    assert "empty_image 1, image_undecodable 1" in text
    assert stats_main(["--index", str(root), "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == read_stats(root)
    assert stats_main(["--index", str(root.parent)]) == 2
    assert "no index here" in capsys.readouterr().err


def test_npy_holds_the_live_rows_and_the_list_beside_it_their_paths(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By id, however many blocks; each row is that of its file."""
    monkeypatch.setattr("index.export_rows._BLOCK_ROWS", 3)
    assert export_index(root, tmp_path / "x.npy") == 4
    rows = np.load(tmp_path / "x.npy")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text("utf-8").splitlines()]
    assert rows.dtype == np.float16
    assert {one["id"]: [Path(path).name for path in one["paths"]] for one in lines} == live(root)
    embedder = StubEmbedder()
    for row, one in zip(rows, lines, strict=True):
        assert one["path"] == one["paths"][0]
        expected = embedder.embed_pixels([embedder.read(Path(one["path"])).pixels])[0]
        assert np.array_equal(row, expected.astype(np.float16))


def test_parquet_holds_the_same(root: Path, tmp_path: Path) -> None:
    """Ids, paths and rows of both forms agree."""
    export_index(root, tmp_path / "x.npy")
    assert export_index(root, tmp_path / "x.parquet") == 4
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text("utf-8").splitlines()]
    assert [{name: one[name] for name in ("id", "path", "paths")} for one in table] == lines
    rows = np.array([one["embedding"] for one in table], np.float32)
    assert np.array_equal(rows, np.load(tmp_path / "x.npy").astype(np.float32))


def test_an_empty_index_is_exported(tmp_path: Path) -> None:
    """No row is an answer."""
    (tmp_path / "photos").mkdir()
    build(tmp_path / "photos", tmp_path / "index")
    for name in ("x.npy", "x.parquet"):
        assert export_index(tmp_path / "index", tmp_path / name) == 0
    assert np.load(tmp_path / "x.npy").shape == (0, StubEmbedder.dim)
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").num_rows == 0


def test_what_cannot_be_exported_is_said(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A suffix nobody knows; Parquet without pyarrow; nothing is left behind."""
    assert export_main(["--index", str(root), "--out", str(tmp_path / "x.csv")]) == 2
    assert "ends in .npy or .parquet" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(IndexFolderError, match=r"install multigrain-retrieval\[parquet\]"):
        export_index(root, tmp_path / "x.parquet")
    assert export_main(["--index", str(root), "--out", str(tmp_path / "x.npy")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jsonl", "x.npy"]


def test_what_no_build_has_taken_in_is_exported_and_counted_apart(tmp_path: Path) -> None:
    """Adds with their rows and files; deleted ones, added or indexed, are left out."""
    out = tmp_path / "index"
    build(write_photos(tmp_path / "photos", range(4)), out)
    with changing(out) as serving:
        for seed in (7, 8, 9):
            serving.add(seed)
        serving.delete(1)
        serving.delete(5)
        serving.add(1)
    stats = read_stats(out)
    assert (stats["live"], stats["pending"]) == (4, {"added": 3, "deleted": 1})
    assert stats["bytes"]["uploads"] == sum(len(photo_bytes(seed)) for seed in (7, 8, 9, 1))
    assert export_index(out, tmp_path / "x.npy") == 6
    rows, embedder = np.load(tmp_path / "x.npy"), StubEmbedder()
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text("utf-8").splitlines()]
    assert [one["id"] for one in lines] == [0, 2, 3, 4, 6, 7]
    for row, one, seed in zip(rows, lines, (0, 2, 3, 7, 9, 1), strict=True):
        data = Path(one["path"]).read_bytes()
        assert data == photo_bytes(seed)
        expected = embedder.embed_pixels([embedder.read(data).pixels])[0]
        assert np.array_equal(row, expected.astype(np.float16))
