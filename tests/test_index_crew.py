"""Several processes embed for one build, which ends as one process's would."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from crew_fixtures import FatedEmbedder, ThreadCrew, crew_of_processes
from index_fixtures import build, durable_state, png_of, write_mixed, write_photos
from PIL import Image
from stub_embedder import BrokenEmbedder, StubEmbedder

import index.embed
from index.current import live_manifest
from index.embedding.worker import EXIT_ALONE
from index.errors import WorkerError
from index.layout import Layout
from multigrain.embedder import Embedder

OPTIONS = {"factory": "IVF1,SQ8", "shard_rows": 70}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 photos, with copies near and far, two that are none, and one no model takes."""
    folder = tmp_path_factory.mktemp("crew") / "photos"
    return write_mixed(folder, 200, copied=(3, 4, 40, 120, 199))


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("alone") / "index"
    build(photos, out, BrokenEmbedder(), **OPTIONS)
    return out


def test_several_processes_make_what_one_makes(photos: Path, alone: Path, tmp_path: Path) -> None:
    """Ids, rows, shards, codebook and bad photos; no content is embedded twice."""
    crew = ThreadCrew([BrokenEmbedder() for _ in range(3)])
    report = build(photos, tmp_path / "index", BrokenEmbedder(), crew=crew, **OPTIONS)
    assert durable_state(tmp_path / "index") == durable_state(alone)
    listed = (alone / "quarantine.jsonl").read_text()
    assert (tmp_path / "index" / "quarantine.jsonl").read_text() == listed
    assert (report.num_new, report.num_bad) == (200, 3)
    numbers = [embedder.num_embedded for embedder in crew.embedders]
    assert sum(numbers) == 200
    assert min(numbers) > 0
    assert report.embedded
    sizes = (path.stat().st_size for path in photos.iterdir())
    assert (report.embedded.num_known, report.embedded.num_bytes) == (10, sum(sizes))


def test_an_update_by_several_processes_embeds_what_is_new(tmp_path: Path) -> None:
    """Known bytes at a new path are not decoded again; both ways to the same shards."""
    photos = write_photos(tmp_path / "photos", range(40))
    for name in ("one", "many"):
        build(photos, tmp_path / name, factory="IVF1,SQ8")
    write_photos(photos, range(60, 90))
    (photos / "0000.png").rename(photos / "moved.png")
    build(photos, tmp_path / "one", factory="IVF1,SQ8")
    crew = ThreadCrew([StubEmbedder(), StubEmbedder()])
    report = build(photos, tmp_path / "many", crew=crew, factory="IVF1,SQ8", verify_content=True)
    assert (report.num_new, report.num_live) == (30, 70)
    assert durable_state(tmp_path / "many") == durable_state(tmp_path / "one")


@pytest.mark.parametrize(
    ("fate", "told"),
    [("memory", "process 1: no room for a single photo"), ("bug", "process 1: KeyError: 'pixels'")],
)
def test_what_ends_a_process_ends_the_build_with_its_name(
    photos: Path,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fate: str,
    told: str,
) -> None:
    """What was settled is durable; one process goes on from there to the same end."""
    monkeypatch.setattr(index.embed, "DURABLE_ROWS", 30)
    settled = threading.Event()
    crew = ThreadCrew([BrokenEmbedder(), FatedEmbedder(fate, after=30, until=settled)])

    def note(action: str) -> None:
        if action == "rows committed":
            settled.set()

    with pytest.raises(WorkerError, match=told):
        build(photos, tmp_path / "index", BrokenEmbedder(), crew=crew, steps=note, **OPTIONS)
    assert settled.is_set()
    again = BrokenEmbedder()
    build(photos, tmp_path / "index", again, **OPTIONS)
    assert durable_state(tmp_path / "index") == durable_state(alone)
    assert again.num_embedded < 200


def test_processes_of_their_own_make_what_one_makes(
    photos: Path, alone: Path, tmp_path: Path
) -> None:
    """Over a socket of the loopback, and both leave with the same status."""
    with crew_of_processes() as (crew, process):
        build(photos, tmp_path / "index", BrokenEmbedder(), crew=crew, **OPTIONS)
        crew.end_with(3)
    assert process.exitcode == 3
    assert durable_state(tmp_path / "index") == durable_state(alone)


def test_a_killed_process_ends_the_build_and_the_next_goes_on(
    photos: Path, alone: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of embedding: an error at once, naming the process."""
    with (
        crew_of_processes(fate="kill") as (crew, _),
        pytest.raises(WorkerError, match=r"process 1 on .* ended; run again"),
    ):
        build(photos, tmp_path / "index", BrokenEmbedder(), crew=crew, **OPTIONS)
    build(photos, tmp_path / "index", BrokenEmbedder(), **OPTIONS)
    assert durable_state(tmp_path / "index") == durable_state(alone)


def test_a_process_that_hangs_is_given_up(photos: Path, tmp_path: Path) -> None:
    """Stopped, not dead: nothing but the time tells."""
    with crew_of_processes(fate="stop") as (crew, process):
        crew._timeout_seconds = 3.0
        with pytest.raises(WorkerError, match=r"process 1 on .* silent for 3 s over a block"):
            build(photos, tmp_path / "index", BrokenEmbedder(), crew=crew, **OPTIONS)
        process.kill()


def test_an_error_of_the_first_process_lets_the_others_leave() -> None:
    """Before anything was dealt, as when the folder is being built by someone else."""
    with crew_of_processes() as (_, process), pytest.raises(ValueError, match="of the build"):
        raise ValueError("of the build")
    assert process.exitcode == EXIT_ALONE


def write_shapes(folder: Path, num_photos: int) -> Path:
    """Drawn photos of several shapes, in an order that mixes them."""
    folder.mkdir()
    for number in range(num_photos):
        size = ((90, 60), (60, 60), (60, 90))[number % 3]
        colour = (number * 5 % 256, 255 - number * 3 % 256, number * 11 % 256)
        (folder / f"{number:03d}.png").write_bytes(png_of(Image.new("RGB", size, colour)))
    return folder


def test_a_real_model_in_several_processes_gives_the_rows_of_one(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """To the bit: each batch holds the same photos, of one shape."""
    photos = write_shapes(tmp_path / "photos", 80)
    first = Embedder.open(tiny_checkpoint, device="cpu", num_threads=1)
    second = Embedder.open(
        tiny_checkpoint,
        device="cpu",
        engine=first.engine,
        precision=first.precision,
        num_threads=1,
    )
    build(photos, tmp_path / "one", first)
    build(photos, tmp_path / "many", first, crew=ThreadCrew([first, second]))
    assert durable_state(tmp_path / "many") == durable_state(tmp_path / "one")


@pytest.mark.slow
def test_torchrun_builds_with_several_processes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """One of them speaks, all end with the status of too many bad photos; then nothing is new."""
    photos = write_shapes(tmp_path / "photos", 70)
    (photos / "bad.png").write_bytes(b"no photo")
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words += ["-m", "index.build", f"--photos={photos}", f"--checkpoint={tiny_checkpoint}"]
    words += [f"--out={tmp_path / 'index'}", "--device=cpu", "--max-bad=0"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=600, env=environ
    )
    assert "published generation 000001" in done.stdout, done.stderr
    assert done.stdout.count("rows") == 1
    assert done.stderr.count("index.build: 1 bad photos, --max-bad 0") == 1
    assert done.returncode != 0
    manifest = live_manifest(Layout(tmp_path / "index"))
    assert (manifest.counts.live, manifest.counts.quarantined) == (70, 1)
