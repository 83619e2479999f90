"""Faults of disks, processes and models that a build or a reader meets: docs/index-faults.md."""

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import (
    build,
    durable_state,
    photo_bytes,
    random_units,
    write_photos,
    write_vectors,
)
from stub_embedder import DIM, StubEmbedder, VectorEmbedder

from index.build import main as build_main
from index.changes.writer import ChangeWriter
from index.codebook.footprint import human_bytes
from index.errors import BuilderBusyError, ChangesRefusedError, DiskFullError
from index.layout import Layout
from index.searcher import Searcher
from index.verify import main as verify_main

OPTIONS = {"factory": "IVF1,SQ8", "shard_rows": 4}


class FullDisk:
    """Raises ENOSPC at the n-th durable action."""

    def __init__(self, step: int) -> None:
        self.actions = list[str]()
        self._step = step

    def __call__(self, action: str) -> None:
        """Count an action, or find the disk full."""
        self.actions.append(action)
        if len(self.actions) == self._step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_at_any_step_publishes_nothing_and_is_gone_on_from(tmp_path: Path) -> None:
    """Readers keep the generation they have; with space again the build ends as if never full."""
    photos = write_photos(tmp_path / "photos", range(6))
    build(photos, tmp_path / "old", **OPTIONS)
    write_photos(photos, range(6, 12))
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    build(photos, tmp_path / "whole", steps=(seen := FullDisk(0)), **OPTIONS)
    # The first of each kind of action.
    for action in dict.fromkeys(seen.actions):
        out = tmp_path / action.replace(" ", "-")
        shutil.copytree(tmp_path / "old", out)
        disk = FullDisk(seen.actions.index(action) + 1)
        with pytest.raises(DiskFullError, match=r"No space left.* needs about .* free"):
            build(photos, out, steps=disk, **OPTIONS)
        was_named = "CURRENT written" in disk.actions
        with closing(Searcher.open(out)) as searcher:
            assert searcher.num_live == (12 if was_named else 6), action
        build(photos, out, **OPTIONS)
        assert durable_state(out) == durable_state(tmp_path / "whole"), action


def test_a_full_disk_is_one_line_that_names_the_place(
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And says that the build goes on when it is run again."""

    def full(_source: object, _target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    photos, out = write_photos(tmp_path / "photos", range(2)), tmp_path / "index"
    flags = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint), "--out", str(out)]
    flags += ["--device", "cpu"]
    assert build_main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"index.build: {out}: No space left on device; make room, ")
    needed, free = line.partition("needs about ")[2].split(" more, ")
    assert needed == human_bytes(tiny_checkpoint.stat().st_size)
    assert free.endswith(" are free")


def test_a_disk_that_will_be_full_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is embedded; with room for all nothing is said."""
    photos, lines = write_photos(tmp_path / "photos", range(3)), list[str]()
    build(photos, tmp_path / "one", announce=lines.append)
    assert not any("free" in line for line in lines)
    usage = shutil.disk_usage(tmp_path)._replace(free=40)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    build(photos, tmp_path / "two", announce=lines.append)
    (line,) = [line for line in lines if "free" in line]
    assert line.startswith(f"{tmp_path / 'two'}: the build needs about ")
    assert line.endswith(" more, 40 B are free")


def test_a_second_builder_is_refused_while_readers_go_on(tmp_path: Path) -> None:
    """It is told the pid of the first, which is not disturbed."""
    photos = write_photos(tmp_path / "photos", range(3))
    build(photos, tmp_path / "index")
    write_photos(photos, [3])
    refused = list[str]()

    def meanwhile(action: str) -> None:
        if action == "rows synced":
            with pytest.raises(BuilderBusyError, match=f"pid {os.getpid()}") as caught:
                build(photos, tmp_path / "index")
            refused.append(str(caught.value))
            with closing(Searcher.open(tmp_path / "index")) as searcher:
                assert searcher.num_live == 3

    assert build(photos, tmp_path / "index", steps=meanwhile).num_live == 4
    assert refused


@contextmanager
def nobody() -> Iterator[Path]:
    """A folder whose files may not be changed inside the context; as root, by being nobody."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


def give_up_writing(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.getuid() == 0:
        os.seteuid(65534)


def test_a_reader_without_write_permission_opens_and_searches() -> None:
    """SQLite needs no lock file, and the flock needs no write."""
    with nobody() as folder:
        photos = write_vectors(folder / "photos", rows := random_units(5))
        build(photos, folder / "index", VectorEmbedder())
        give_up_writing(folder)
        with pytest.raises(PermissionError):
            (folder / "index" / "new").touch()
        with pytest.raises(ChangesRefusedError, match="Permission denied"):
            ChangeWriter(folder / "index")
        with closing(Searcher.open(folder / "index")) as searcher:
            (found,) = searcher.search(rows[2:3], 1)
            assert found[0].id == 2
            assert searcher.photo_path(2) == photos / "000002"
        assert verify_main(["--index", str(folder / "index")]) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, 1.01, 0.99])
def test_an_embedding_that_is_no_unit_vector_is_quarantined(tmp_path: Path, bad: float) -> None:
    """Never a row: counts, lists and neighbours know the others only."""
    rows = random_units(9)
    rows[4] *= bad
    photos = write_vectors(tmp_path / "photos", rows)
    report = build(photos, tmp_path / "index", VectorEmbedder(), factory="IVF1,SQfp16")
    assert (report.num_rows, report.num_live, report.num_bad) == (8, 8, 1)
    (line,) = (tmp_path / "index" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["code"] == "embedding_invalid"
    assert Path(json.loads(line)["path"]).name == "000004"
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        (found,) = searcher.search(random_units(1, seed=3), 20)
    assert sorted(int(one.uri) for one in found) == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("fault", ["canary", "missing file"])
def test_a_bad_generation_put_live_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    """Who has the old one open goes on; who opens anew gets it too, and the reason is logged."""
    photos = write_photos(tmp_path / "photos", range(3))
    layout = Layout(tmp_path / "index")
    build(photos, layout.root)
    with closing(Searcher.open(layout.root)) as serving:
        (photos / "new.png").write_bytes(photo_bytes(9))
        build(photos, layout.root)
        document = json.loads(layout.manifest("000002").read_text())
        if fault == "canary":
            document["canaries"][0]["ids"].reverse()
        else:
            document["catalog"]["file"] = "catalogs/000009.sqlite"
        data = json.dumps(document).encode()
        layout.manifest("000002").write_bytes(data)
        layout.current.write_text(f"000002.json {sha256(data).hexdigest()}\n")
        with caplog.at_level(logging.WARNING), closing(Searcher.open(layout.root)) as anew:
            assert anew.generation == "000001"
        assert {"canary": "canary 0 finds", "missing file": "000009.sqlite"}[fault] in caplog.text
        assert len(serving.search(np.ones((1, DIM), np.float32), 9)[0]) == 3


def test_only_rows_that_were_not_durable_are_embedded_again(tmp_path: Path) -> None:
    """After a disk that was full behind the last durable row, none is."""
    photos = write_photos(tmp_path / "photos", range(12))
    with pytest.raises(DiskFullError, match="No space left"):
        build(photos, tmp_path / "index", steps=_full_at_encoding, **OPTIONS)
    embedder = StubEmbedder()
    assert build(photos, tmp_path / "index", embedder, **OPTIONS).num_live == 12
    assert embedder.num_embedded == 0


def _full_at_encoding(action: str) -> None:
    if action == "encode":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
