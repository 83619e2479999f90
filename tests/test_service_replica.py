"""The service on an index in an object store: opened through a copy, new generations taken up."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from service_running import Service, running, wait_until

from index.builder import build_index
from index.replica.push import push
from multigrain.embedder import Embedder
from multigrain.locations import Url
from multigrain.object_store import ObjectStore
from service.settings import Settings

pytest_plugins = ["object_fixtures", "service_fixtures"]

Jpeg = Callable[[int], bytes]
ADMIN = {"X-API-Key": "of-the-admin"}
NEW_SEED = 99
ADDRESS = Url("memory://tests/served")


@pytest.fixture(scope="module")
def next_root(
    index_root: Path, tiny_checkpoint: Path, jpeg: Jpeg, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The index with a second generation, which knows one photo more."""
    folder = tmp_path_factory.mktemp("replica")
    root, more = folder / "index", folder / "more"
    shutil.copytree(index_root, root)
    more.mkdir()
    (more / "99.jpg").write_bytes(jpeg(NEW_SEED))
    build_index([more], tiny_checkpoint, root, Embedder.open(tiny_checkpoint))
    return root


@contextmanager
def serving(url: Url, cache_dir: Path, *, reload_poll_s: float | None = None) -> Iterator[Service]:
    settings = Settings(
        index=url,
        cache_dir=cache_dir,
        port=0,
        adds=True,
        admin_key=[SecretStr(ADMIN["X-API-Key"])],
        reload_poll_s=reload_poll_s,
    )
    with running(settings) as service:
        yield service


def test_new_generations_of_a_url_are_taken_up(
    memory: Url, index_root: Path, next_root: Path, tmp_path: Path, jpeg: Jpeg
) -> None:
    """The service polls the address; what was pushed is found, and nobody had to ask."""
    push(index_root, memory)
    with serving(memory, tmp_path, reload_poll_s=0.02) as service:
        found = service.search(jpeg(3), limit=1).json()
        assert (found["generation"], found["results"][0]["uri"]) == ("000001", "03.jpg")
        push(next_root, memory)
        wait_until(lambda: service.searcher.generation == "000002")
        found = service.search(jpeg(NEW_SEED), limit=1).json()
        assert (found["generation"], found["results"][0]["uri"]) == ("000002", "99.jpg")
    # A restart finds the copy whole.
    with serving(memory, tmp_path) as service:
        assert service.health().json()["generation"] == "000002"


@pytest.fixture(scope="module")
def service(index_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on an address, which its tests leave as it was."""
    push(index_root, ADDRESS)
    with serving(ADDRESS, tmp_path_factory.mktemp("cache")) as service:
        yield service


def reloaded(service: Service) -> dict[str, Any]:
    """What became of a reload."""
    where = service.client.post("/admin/reload", headers=ADMIN).headers["Location"]
    job = dict[str, Any]()

    def has_ended() -> bool:
        job.update(service.client.get(where, headers=ADMIN).json())
        return job["status"] != "running"

    wait_until(has_ended)
    return job


def test_changes_of_a_copy_are_refused_with_the_reason(service: Service, jpeg: Jpeg) -> None:
    """Even with --adds: the answer says that the index is only read here."""
    photo = {"image": jpeg(NEW_SEED)}
    for answer in (
        service.client.post("/images", files=photo, headers=ADMIN),
        service.client.delete("/images/0", headers=ADMIN),
    ):
        assert answer.status_code == 403
        assert "only read" in answer.json()["detail"]


def test_a_reload_fails_where_nothing_is_found(service: Service, jpeg: Jpeg) -> None:
    """The job tells it without the address, and the generation before answers on."""
    line = ObjectStore(ADDRESS).read("CURRENT")
    ObjectStore(ADDRESS).remove("CURRENT")
    job = reloaded(service)
    ObjectStore(ADDRESS).write("CURRENT", line)
    assert job["status"] == "failed"
    assert "no index here" in job["error"]["detail"]
    assert ADDRESS not in str(job)
    assert service.search(jpeg(3), limit=1).json()["results"][0]["uri"] == "03.jpg"
    assert reloaded(service)["status"] == "done"


def test_a_damaged_copy_is_fetched_again_by_a_reload(service: Service) -> None:
    """A byte that flips on this machine's disk does not keep a generation away."""
    cache_dir = service.server.runtime.settings.cache_dir
    assert cache_dir is not None
    (rows,) = cache_dir.rglob("emb.f16")
    whole = rows.read_bytes()
    damaged = rows.with_name("damaged")
    damaged.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    damaged.rename(rows)  # the service has the whole one mapped
    assert reloaded(service)["status"] == "done"
    assert rows.read_bytes() == whole
