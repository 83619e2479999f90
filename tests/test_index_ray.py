"""Ray embeds for a build, which ends as one process's would: a real Ray of this machine."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from index_fixtures import build, durable_state, photo_bytes, png_of, write_photos
from PIL import Image
from stub_embedder import BrokenEmbedder, FatedEmbedder, StubEmbedder

import index.embed
from index.embedding.ray_session import ray_session
from index.errors import WorkerError

if TYPE_CHECKING:
    from index.embedding.ray_engine import RayCrew

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    # Of Ray's own code, and of pipes to its processes that outlive what opened them.
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning:ray"),
]
OPTIONS = {"factory": "IVF1,SQ8", "shard_rows": 70}


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    """Ray with two processors and little memory, whose workers find the tests' files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        with ray_session("local", num_cpus=2, object_store_memory=100 * 2**20):
            yield


def crew_of(open_embedder: Callable[[], StubEmbedder], **options: Any) -> "RayCrew":
    """Ray with a stub model."""
    from index.embedding.ray_engine import RayCrew  # which imports Ray

    options.setdefault("timeout_seconds", 300.0)  # a busy machine starts a worker slowly
    return RayCrew(read=StubEmbedder().read, open_embedder=open_embedder, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 photos, with copies near and far, two that are none, and one no model takes."""
    folder = write_photos(tmp_path_factory.mktemp("ray") / "photos", range(120))
    for number in (3, 40, 119):
        (folder / f"{number:04d}-copy.png").write_bytes(photo_bytes(number))
        (folder / f"{119 - number:04d}-far.png").write_bytes(photo_bytes(number))
    for number in (7, 90):
        (folder / f"{number:04d}-bad.png").write_bytes(b"no photo")
    (folder / "0050-red.png").write_bytes(png_of(Image.new("RGB", (9, 9), "red")))
    return folder


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("alone") / "index"
    build(photos, out, BrokenEmbedder(), **OPTIONS)
    return out


def test_ray_makes_what_one_process_makes_though_a_worker_dies(
    photos: Path, alone: Path, tmp_path: Path
) -> None:
    """Ids, rows, shards, codebook and bad photos; over two datasets; nothing is embedded here."""
    met = tmp_path / "met"
    crew = crew_of(partial(FatedEmbedder, "kill", met), blocks_a_dataset=3)
    here = BrokenEmbedder()
    report = build(photos, tmp_path / "index", here, crew=crew, **OPTIONS)
    assert met.exists()
    assert durable_state(tmp_path / "index") == durable_state(alone)
    listed = (alone / "quarantine.jsonl").read_text()
    assert (tmp_path / "index" / "quarantine.jsonl").read_text() == listed
    assert (report.num_new, report.num_bad, here.num_embedded) == (120, 3, 0)
    assert report.embedded
    sizes = (path.stat().st_size for path in photos.iterdir())
    assert (report.embedded.num_known, report.embedded.num_bytes) == (6, sum(sizes))


class StoppedError(BaseException):
    """Ends a build where it stands: nothing of it is tidied up."""


def test_a_build_goes_on_where_a_model_failed_and_where_it_was_stopped_itself(
    photos: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three blocks are durable, then no row is lost; the last build is one process's."""
    monkeypatch.setattr(index.embed, "DURABLE_ROWS", 30)
    crew = crew_of(partial(FatedEmbedder, "memory", tmp_path / "met"))
    with pytest.raises(WorkerError, match=r"Ray's worker on .*: no room for a single photo"):
        build(photos, tmp_path / "index", BrokenEmbedder(), crew=crew, **OPTIONS)
    done = list[str]()

    def stop(action: str) -> None:
        done.append(action)
        if done.count("rows committed") == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        build(photos, tmp_path / "index", crew=crew, steps=stop, **OPTIONS)
    last = BrokenEmbedder()
    build(photos, tmp_path / "index", last, **OPTIONS)
    assert durable_state(tmp_path / "index") == durable_state(alone)
    assert last.num_embedded < 70


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    """Ray itself would go on trying for minutes."""
    with (
        pytest.raises(WorkerError, match=r"no Ray at 127\.0\.0\.1:1: .*refused"),
        ray_session("127.0.0.1:1"),
    ):
        raise AssertionError
