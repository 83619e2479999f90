"""A build killed anywhere and run again ends as one that was never interrupted."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from index_fixtures import (
    StubEmbedder,
    VectorEmbedder,
    build,
    durable_state,
    photo_bytes,
    random_units,
    write_photos,
    write_vectors,
)

import index.embed
from index.errors import IndexFolderError
from index.searcher import Searcher
from index.stages import Stage


class Killed(BaseException):
    """Stands for a kill: no handler of ours may catch it."""


class KillAt:
    """Raises at the n-th durable action; counts them."""

    def __init__(self, step: int | None) -> None:
        self.actions, self._step = list[str](), step

    @property
    def num_steps(self) -> int:
        """How many actions there were."""
        return len(self.actions)

    def __call__(self, action: str) -> None:
        """Count an action, or die."""
        self.actions.append(action)
        if self.num_steps == self._step:
            raise Killed


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """20 drawn photos, one of them twice, one of them no photo."""
    folder = write_photos(tmp_path / "photos", range(20))
    (folder / "copy.png").write_bytes(photo_bytes(0))
    (folder / "bad.png").write_bytes(b"no photo")
    return folder


def interrupted(photos: Path, out: Path, step: int | None) -> tuple[int, int]:
    """Build, killed at a step, then build again: steps of the first, embedded by the second."""
    kill_at = KillAt(step)
    options = {"shard_rows": 12, "factory": "IVF1,SQfp16"}
    try:
        build(photos, out, StubEmbedder(), steps=kill_at, **options)
    except Killed:
        second = StubEmbedder()
        build(photos, out, second, **options)
        return kill_at.num_steps, second.num_embedded
    return kill_at.num_steps, 0


def test_a_kill_at_every_step_changes_nothing_in_the_end(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids, rows, codebook, shards and bitmap are equal; only rows not yet durable come again."""
    monkeypatch.setattr(index.embed, "_BATCHES_PER_BLOCK", 1)
    monkeypatch.setattr(index.embed, "DURABLE_ROWS", 8)
    num_steps, _ = interrupted(photos, tmp_path / "whole", None)
    expected = durable_state(tmp_path / "whole")
    again = list[int]()
    for step in range(1, num_steps + 1):
        out = tmp_path / f"killed-{step}"
        _, num_embedded = interrupted(photos, out, step)
        assert durable_state(out) == expected, step
        assert not list((out / "staging").iterdir()), step
        assert (out / "quarantine.jsonl").read_text() == (
            (tmp_path / "whole" / "quarantine.jsonl").read_text()
        )
        again.append(num_embedded)
    assert again[0] == 20
    assert again[-1] == 0
    assert again == sorted(again, reverse=True)
    assert set(again) == {20, 12, 4, 0}


def test_a_kill_at_every_step_of_an_update_that_compacts_changes_nothing(tmp_path: Path) -> None:
    """Readers have a whole generation after each kill; rerun, the shards are the same bytes.

    The update adds a row, drops a shard, merges the others and takes dead rows out.
    """
    photos = tmp_path / "photos"
    for start in range(0, 24, 6):
        build(write_photos(photos, range(start, start + 6)), tmp_path / "old", factory="IVF1,SQ8")
    for number in (0, 1, 2, *range(6, 12)):
        (photos / f"{number:04d}.png").unlink()
    write_photos(photos, [30, 31])
    build(photos, tmp_path / "old", factory="IVF1,SQ8", last=Stage.EMBED)
    write_photos(photos, [32])
    options = {"factory": "IVF1,SQ8", "shard_rows": 60}
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    build(photos, tmp_path / "whole", StubEmbedder(), **options)
    expected = durable_state(tmp_path / "whole")
    for step in range(1, 80):
        out = tmp_path / f"{step}"
        shutil.copytree(tmp_path / "old", out)
        try:
            build(photos, out, StubEmbedder(), steps=(kill_at := KillAt(step)), **options)
        except Killed:
            with closing(Searcher.open(out)) as searcher:
                assert searcher.num_live == (18 if "CURRENT written" in kill_at.actions else 24)
            build(photos, out, StubEmbedder(), **options)
        else:
            assert step == kill_at.num_steps + 1
            return
        assert durable_state(out) == expected, step


def test_a_kill_while_lost_files_are_made_again_loses_nothing(tmp_path: Path) -> None:
    """Rows of one shard come from the photos, lists of another from its rows; ids stay."""
    photos, old = write_photos(tmp_path / "photos", range(8)), tmp_path / "old"
    options = {"factory": "IVF1,SQ8", "shard_rows": 4}
    build(photos, old, **options)
    whole = durable_state(old)
    first, second = sorted((old / "shards").iterdir())
    (first / "emb.f16").unlink()
    os.truncate(second / "ivf.faiss", 10)
    for step in range(1, 80):
        out = tmp_path / f"{step}"
        shutil.copytree(old, out)
        try:
            build(photos, out, StubEmbedder(), steps=(kill_at := KillAt(step)), **options)
        except Killed:
            assert build(photos, out, StubEmbedder(), **options).num_new == 0
        restored = durable_state(out)
        assert {name: restored[name] for name in whole if "tombstones" not in name} == {
            name: data for name, data in whole.items() if "tombstones" not in name
        }, step
        if step > kill_at.num_steps:
            return


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
    photos = write_vectors(tmp_path / "photos", random_units(5))
    with pytest.raises(Killed):
        build(photos, tmp_path / "index", VectorEmbedder(), steps=_kill_before_training)
    (staged,) = (tmp_path / "index" / "staging").iterdir()
    os.truncate(staged, 10)
    with pytest.raises(IndexFolderError, match=rf"{staged.name}: .* remove .*build\.sqlite"):
        build(photos, tmp_path / "index", VectorEmbedder())
    (tmp_path / "index" / "build.sqlite").unlink()
    assert build(photos, tmp_path / "index", VectorEmbedder()).num_live == 5


def _kill_before_training(action: str) -> None:
    if action == "train":
        raise Killed
