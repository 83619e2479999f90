"""A build killed anywhere and run again ends as one that was never interrupted."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from index_fixtures import (
    Killed,
    build,
    durable_state,
    photo_bytes,
    random_units,
    write_photos,
    write_vectors,
)
from stub_embedder import StubEmbedder, VectorEmbedder

import index.embed
from index.errors import IndexFolderError
from index.searcher import Searcher
from index.stages import Stage


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 drawn photos, one of them twice, one of them no photo."""
    folder = write_photos(tmp_path / "photos", range(20))
    (folder / "copy.png").write_bytes(photo_bytes(0))
    (folder / "bad.png").write_bytes(b"no photo")
    return folder


def test_a_kill_at_every_step_changes_nothing_in_the_end(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, rows, codebook, shards and bitmap are equal; only rows not yet durable come again."""
    monkeypatch.setattr(index.embed, "BATCHES_PER_BLOCK", 1)
    monkeypatch.setattr(index.embed, "DURABLE_ROWS", 8)
    options = {"shard_rows": 12, "factory": "IVF1,SQfp16"}
    whole, killed = tmp_path / "whole", Killed(tmp_path / "whole", tmp_path / "killed")
    build(photos, whole, steps=killed, **options)
    expected, quarantine = durable_state(whole), (whole / "quarantine.jsonl").read_text()
    again = list[int]()
    for step in killed.steps():
        out = killed.at(step)
        build(photos, out, second := StubEmbedder(), **options)
        assert durable_state(out) == expected, step
        assert not list((out / "staging").iterdir()), step
        assert (out / "quarantine.jsonl").read_text() == quarantine, step
        again.append(second.num_embedded)
    assert again == sorted(again, reverse=True)
    assert set(again) == {20, 12, 4, 0}


def test_a_kill_at_every_step_of_an_update_that_compacts_changes_nothing(tmp_path: Path) -> None:
    """Readers have a whole generation after each kill; rerun, the shards are the same bytes.

    The update adds a row, drops a shard, merges the others and takes dead rows out.
    """
    photos, whole = tmp_path / "photos", tmp_path / "whole"
    for start in range(0, 24, 6):
        build(write_photos(photos, range(start, start + 6)), whole, factory="IVF1,SQ8")
    for number in (0, 1, 2, *range(6, 12)):
        (photos / f"{number:04d}.png").unlink()
    write_photos(photos, [30, 31])
    build(photos, whole, factory="IVF1,SQ8", last=Stage.EMBED)
    write_photos(photos, [32])
    options = {"factory": "IVF1,SQ8", "shard_rows": 60}
    killed = Killed(whole, tmp_path / "killed")
    build(photos, whole, steps=killed, **options)
    expected = durable_state(whole)
    for step in killed.steps():
        out = killed.at(step)
        with closing(Searcher.open(out)) as searcher:
            was_named = "CURRENT written" in killed.actions[:step]
            assert searcher.num_live == (18 if was_named else 24)
        build(photos, out, **options)
        assert durable_state(out) == expected, step


def test_a_kill_while_lost_files_are_made_again_loses_nothing(tmp_path: Path) -> None:
    """Rows of one shard come from the photos, lists of another from its rows; ids stay."""
    photos, mended = write_photos(tmp_path / "photos", range(8)), tmp_path / "mended"
    options = {"factory": "IVF1,SQ8", "shard_rows": 4}
    build(photos, mended, **options)
    whole = _shards_and_codebooks(mended)
    first, second = sorted((mended / "shards").iterdir())
    (first / "emb.f16").unlink()
    os.truncate(second / "ivf.faiss", 10)
    killed = Killed(mended, tmp_path / "killed")
    build(photos, mended, steps=killed, **options)
    assert _shards_and_codebooks(mended) == whole
    for step in killed.steps():
        assert build(photos, killed.at(step), **options).num_new == 0
        assert _shards_and_codebooks(killed.at(step)) == whole, step


def _shards_and_codebooks(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in durable_state(root).items() if "tombstones" not in name}


def test_a_sigkill_of_the_process_is_survived(photos: Path, tmp_path: Path) -> None:
    """A real SIGKILL, in the middle of writing rows."""
    script = (
        "import os, signal, sys; from pathlib import Path; from index_fixtures import build\n"
        "def steps(action):\n"
        "    if action == 'rows synced': os.kill(os.getpid(), signal.SIGKILL)\n"
        "build(Path(sys.argv[1]), Path(sys.argv[2]), steps=steps)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    killed = subprocess.run(
        [sys.executable, "-c", script, photos, tmp_path / "killed"],
        env=environment,
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL
    build(photos, tmp_path / "killed")
    build(photos, tmp_path / "whole")
    assert durable_state(tmp_path / "killed") == durable_state(tmp_path / "whole")


def test_a_lost_journal_is_made_again_from_the_catalog(photos: Path, tmp_path: Path) -> None:
    """Nothing is embedded twice and the ids stay."""
    build(photos, tmp_path / "index")
    before = durable_state(tmp_path / "index")
    (tmp_path / "index" / "build.sqlite").unlink()
    again = StubEmbedder()
    assert not build(photos, tmp_path / "index", again).is_new_generation
    assert again.num_embedded == 0
    assert durable_state(tmp_path / "index") == before


def test_staged_rows_that_vanished_are_reported(tmp_path: Path) -> None:
    """A staged file shorter than the journal promises is never filled up silently."""
    photos, out = write_vectors(tmp_path / "photos", random_units(5)), tmp_path / "index"
    build(photos, out, VectorEmbedder(), last=Stage.EMBED)
    (staged,) = (out / "staging").iterdir()
    os.truncate(staged, 10)
    with pytest.raises(IndexFolderError, match=rf"{staged.name}: .* remove .*build\.sqlite"):
        build(photos, out, VectorEmbedder())
    (out / "build.sqlite").unlink()
    assert build(photos, out, VectorEmbedder()).num_live == 5
