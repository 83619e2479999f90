"""Ray embeds for a build, which ends as one process's would: a real Ray of this machine."""

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from index_fixtures import build, durable_state, write_mixed, write_photos
from s3fs import S3FileSystem
from stub_embedder import BrokenEmbedder, FailingRead, FatedEmbedder, StubEmbedder

import index.embed
from index.catalog_photos import PendingPhoto
from index.embedding.messages import Failed
from index.embedding.ray_session import ray_session
from index.errors import WorkerError
from multigrain.locations import Url
from multigrain.object_store import ObjectStoreError

if TYPE_CHECKING:
    from index.embedding.ray_engine import RayCrew

pytest_plugins = ["object_fixtures"]
pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    # Of Ray's own code, and of pipes to its processes that outlive what opened them.
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning:ray"),
]
OPTIONS = {"factory": "IVF1,SQ8", "shard_rows": 70}


@pytest.fixture(scope="module", autouse=True)
def session(s3: S3FileSystem) -> Iterator[None]:
    """Ray with two processors and little memory, whose workers find tests' files and objects."""
    del s3  # the environment leads there, and is the workers' too
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        with ray_session("local", num_cpus=2, object_store_memory=100 * 2**20):
            yield


def crew_of(open_embedder: Callable[[], StubEmbedder], **options: Any) -> "RayCrew":
    """Ray with a stub model."""
    from index.embedding.ray_engine import RayCrew  # which imports Ray

    options.setdefault("timeout_seconds", 900.0)  # a busy machine starts a worker slowly
    options.setdefault("read", StubEmbedder().read)
    return RayCrew(open_embedder=open_embedder, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 photos, with copies near and far, two that are none, and one no model takes."""
    folder = tmp_path_factory.mktemp("ray") / "photos"
    return write_mixed(folder, 120, copied=(3, 40, 119))


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them."""
    out = tmp_path_factory.mktemp("alone") / "index"
    build(photos, out, BrokenEmbedder(), **OPTIONS)
    return out


def test_ray_makes_of_objects_what_one_process_makes_of_files_though_a_worker_dies(
    photos: Path, alone: Path, s3: S3FileSystem, tmp_path: Path
) -> None:
    """Ids, rows, shards, codebook and bad photos; over two datasets; nothing is embedded here."""
    for path in photos.iterdir():
        s3.pipe_file(f"bucket/ray/{path.name}", path.read_bytes())
    met, here = tmp_path / "met", BrokenEmbedder()
    crew = crew_of(partial(FatedEmbedder, "kill", met), blocks_a_dataset=3)
    report = build([Url("s3://bucket/ray")], tmp_path / "index", here, crew=crew, **OPTIONS)
    assert met.exists()
    assert durable_state(tmp_path / "index") == durable_state(alone)
    listed = (alone / "quarantine.jsonl").read_text().replace(str(photos), "s3://bucket/ray")
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


def test_a_store_that_fails_a_reader_ends_the_build_with_the_stores_own_words(
    tmp_path: Path,
) -> None:
    """As the local engine says it, and on which machine; Ray's own error says neither."""
    crew = crew_of(StubEmbedder, read=FailingRead(ObjectStoreError("s3://bucket/x: no answer")))
    with pytest.raises(WorkerError, match=r"^Ray's worker on [^:]+: s3://bucket/x: no answer$"):
        build(write_photos(tmp_path / "photos", range(3)), tmp_path / "index", crew=crew)


class StubDesk:
    """Hears what is reported; called as an actor of Ray's."""

    def __init__(self) -> None:
        self.heard = list[Any]()
        self.report = self

    def remote(self, told: object) -> Any:
        """Take it in."""
        import ray

        self.heard.append(told)
        return ray.put(None)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ObjectStoreError("s3://bucket/x: no answer"), "s3://bucket/x: no answer"),
        (KeyError("pixels"), "KeyError: 'pixels'"),
    ],
)
def test_what_a_reader_cannot_do_is_told_to_the_desk_and_takes_the_blocks_place(
    tmp_path: Path, error: Exception, reason: str
) -> None:
    """At once, for who embeds may be waiting for a block behind it."""
    import ray

    from index.embedding.ray_stages import Reading, read_block

    desk, no_heads = StubDesk(), ray.put(np.empty(0, np.uint64))
    reading = Reading({1: write_photos(tmp_path, [0])}, FailingRead(error), no_heads)
    photos = [PendingPhoto(1, 1, "0000.png", None)]
    done = read_block({"number": 5, "content": pickle.dumps(photos)}, desk=desk, reading=reading)
    (told,) = desk.heard
    assert isinstance(told, Failed)
    assert told.reason.endswith(f": {reason}")
    assert (done["number"], pickle.loads(done["content"])) == (5, told)  # noqa: S301 - our own


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    """Ray itself would go on trying for minutes."""
    with (
        pytest.raises(WorkerError, match=r"no Ray at 127\.0\.0\.1:1: .*refused"),
        ray_session("127.0.0.1:1"),
    ):
        raise AssertionError
