"""Another generation is taken up while searches go on, or refused with the reason."""

import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import SecretStr
from service_running import Service, running, wait_until

from index.builder import build_index
from index.current import current_manifest, write_current, write_manifest
from index.errors import IndexFolderError
from index.layout import Layout
from index.searcher import Searcher
from index.steps import no_steps
from multigrain.checkpoint import save_checkpoint
from multigrain.document import plain_document
from multigrain.embedder import Embedder
from multigrain.files import sha256_of
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from service.settings import Settings

pytest_plugins = ["service_fixtures"]

Jpeg = Callable[[int], bytes]
ADMIN = {"X-API-Key": "of-the-admin"}
NUM_RELOADS = 20


@pytest.fixture(scope="module")
def two_generations(
    index_root: Path, tiny_checkpoint: Path, jpeg: Jpeg, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An index with generation 000001, live, and 000002, which knows one photo more."""
    folder = tmp_path_factory.mktemp("reload")
    root, more = folder / "index", folder / "more"
    shutil.copytree(index_root, root)
    more.mkdir()
    (more / "99.jpg").write_bytes(jpeg(99))
    build_index([more], tiny_checkpoint, root, Embedder.open(tiny_checkpoint))
    name_current(root, "000001")
    return root


@pytest.fixture
def root(two_generations: Path, tmp_path: Path) -> Path:
    """The same, for a test that changes it."""
    return Path(shutil.copytree(two_generations, tmp_path / "index"))


def name_current(root: Path, generation: str) -> None:
    """Make a generation the live one."""
    layout = Layout(root)
    (layout.current).write_text(
        f"{generation}.json {sha256_of(layout.manifest(generation))}\n", "utf-8"
    )


@contextmanager
def serving(root: Path, *, reload_poll_s: float = 0.0) -> Iterator[Service]:
    settings = Settings(
        index=root, port=0, admin_key=[SecretStr(ADMIN["X-API-Key"])], reload_poll_s=reload_poll_s
    )
    with running(settings) as service:
        yield service


def reload(service: Service) -> dict[str, Any]:
    """Reload, and wait for what becomes of it."""
    begun = service.client.post("/admin/reload", headers=ADMIN)
    assert begun.status_code == 202, begun.text
    job = dict[str, Any]()

    def has_ended() -> bool:
        job.update(service.client.get(begun.headers["Location"], headers=ADMIN).json())
        return job["status"] != "running"

    wait_until(has_ended)
    return job


def test_live_generation_is_taken_up(root: Path, jpeg: Jpeg) -> None:
    """After a reload a photo that only the new generation knows is found."""
    with serving(root) as service:
        before = service.search(jpeg(99), limit=1).json()
        assert (before["generation"], before["results"][0]["uri"]) != ("000002", "99.jpg")
        name_current(root, "000002")
        job = reload(service)
        assert (job["status"], job["generation"], job["error"]) == ("done", "000002", None)
        after = service.search(jpeg(99), limit=1)
        assert after.json()["results"][0]["uri"] == "99.jpg"
        assert after.headers["X-Index-Generation"] == after.json()["generation"] == "000002"
        assert service.health().json()["generation"] == "000002"


def test_reloads_under_load_fail_no_search_and_leave_nothing_open(root: Path, jpeg: Jpeg) -> None:
    """20 swaps while clients search: every answer is whole and of one generation."""
    with serving(root) as service:
        answers, over = list[Any](), threading.Event()

        def ask() -> None:
            while not over.is_set():
                answers.append(service.search(jpeg(99), limit=1))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        replaced = list[weakref.ref[Searcher]]()
        for turn in range(NUM_RELOADS):
            replaced.append(weakref.ref(service.searcher))
            name_current(root, "000002" if turn % 2 == 0 else "000001")
            assert reload(service)["status"] == "done"
        over.set()
        for client in clients:
            client.join(120)
        assert {answer.status_code for answer in answers} == {200}
        found = {
            (answer.json()["generation"], answer.json()["results"][0]["uri"] == "99.jpg")
            for answer in answers
        }
        assert found == {("000001", False), ("000002", True)}
        wait_until(lambda: all(one() is None for one in replaced))


def live_shard(root: Path) -> Path:
    """The folder of a shard that generation 000001 has."""
    manifest = current_manifest(Layout(root))
    assert manifest is not None
    return Layout(root).shard_document(manifest.shards[0].folder).parent


def flip_a_byte(root: Path) -> None:
    """Damage the rows of a shard where no canary need look."""
    path = live_shard(root) / "emb.f16"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_lists(root: Path) -> None:
    """Take the end of a shard's lists."""
    path = live_shard(root) / "ivf.faiss"
    path.write_bytes(path.read_bytes()[:-10])


def lose_a_shard(root: Path) -> None:
    """Remove a shard."""
    shutil.rmtree(live_shard(root))


def lose_the_catalog(root: Path) -> None:
    """Remove the catalog of the live generation."""
    Layout(root).catalog("000001").unlink()


def cut_current(root: Path) -> None:
    """Leave half of CURRENT."""
    current = Layout(root).current
    current.write_bytes(current.read_bytes()[:20])


def publish_other(root: Path, **changes: object) -> None:
    """Make a manifest live that differs from the live one in what is given."""
    layout = Layout(root)
    manifest = current_manifest(layout)
    assert manifest is not None
    changed = manifest.model_copy(update={"generation": "000009", **changes})
    write_current(layout, write_manifest(layout, changed, steps=no_steps), steps=no_steps)


def miscount(root: Path) -> None:
    """Let the manifest count one photo more than the shards hold."""
    manifest = current_manifest(Layout(root))
    assert manifest is not None
    counts = manifest.counts
    more = {"rows": counts.rows + 1, "live": counts.live + 1}
    publish_other(root, counts=counts.model_copy(update=more))


def narrow(root: Path) -> None:
    """Let the manifest name another dimension."""
    manifest = current_manifest(Layout(root))
    assert manifest is not None
    publish_other(root, model=manifest.model.model_copy(update={"D": 256}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "emb.f16: bytes differ"),
        (cut_lists, "ivf.faiss"),
        (lose_a_shard, "SHARD.json"),
        (lose_the_catalog, "catalogs/000001.sqlite"),
        (cut_current, "CURRENT"),
        (miscount, "counts 13 rows, 13 live"),
        (narrow, "not the manifest's"),
    ],
)
def test_damaged_generation_is_refused_and_the_one_before_answers(
    root: Path, jpeg: Jpeg, damage: Callable[[Path], None], words: str
) -> None:
    """The job and the health tell what is wrong, not where the folder lies; searches go on."""
    with serving(root) as service:
        damage(root)
        job = reload(service)
        assert (job["status"], job["generation"]) == ("failed", None)
        problem = job["error"]
        assert (problem["status"], problem["code"]) == (422, "index_refused")
        assert words in problem["detail"]
        health = service.health()
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["checks"]["reload"]["last_error"] == problem["detail"]
        assert str(root) not in health.text
        assert service.client.get("/readyz").status_code == 200
        assert service.search(jpeg(3), limit=1).json()["results"][0]["uri"] == "03.jpg"


@pytest.fixture
def lone(index_root: Path, tmp_path: Path) -> Path:
    """An index of one generation, for a test that changes it."""
    return Path(shutil.copytree(index_root, tmp_path / "lone"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_lists, "ivf.faiss"),
        (lose_a_shard, "SHARD.json"),
        (lose_the_catalog, "catalogs/000001.sqlite"),
    ],
)
def test_service_does_not_start_on_an_index_that_is_not_whole(
    lone: Path, damage: Callable[[Path], None], words: str
) -> None:
    """What is wrong is named; no search is answered from the rest."""
    damage(lone)
    with pytest.raises(IndexFolderError, match=words), serving(lone):
        pass


@pytest.mark.parametrize("damage", [cut_current, miscount, narrow])
def test_service_starts_on_the_generation_before_a_damaged_one(
    root: Path, jpeg: Jpeg, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Where the live one cannot be opened and another is whole, with a warning."""
    name_current(root, "000002")
    damage(root)
    with serving(root) as service:
        assert service.searcher.generation == ("000001" if damage is cut_current else "000002")
        assert service.search(jpeg(3), limit=1).json()["results"][0]["uri"] == "03.jpg"
    assert any(record.levelname == "WARNING" for record in caplog.records)


def test_catalog_destroyed_while_it_is_served_gives_no_wrong_answer(lone: Path, jpeg: Jpeg) -> None:
    """What the database keeps in memory is right; the rest is a 503, and the process goes on."""
    with serving(lone) as service:
        catalog = Layout(lone).catalog("000001")
        with catalog.open("r+b") as file:  # in place: a new file would not be seen
            file.write(bytes(catalog.stat().st_size))
        for path in ("/images/3", "/images/3/thumbnail", "/images/3/similar", "/images?limit=3"):
            answer = service.client.get(path)
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 503:
                assert answer.json()["code"] == "index_unavailable"
                assert int(answer.headers["Retry-After"]) >= 1
                assert str(lone) not in answer.text
        found = service.search(jpeg(3), limit=1)
        assert found.status_code == 503 or found.json()["results"][0]["uri"].endswith("03.jpg")
        assert service.client.get("/livez").status_code == 200


def test_folder_of_another_model_is_refused_with_both_fingerprints(
    root: Path, photos: Path, tmp_path: Path, jpeg: Jpeg
) -> None:
    """An index that another checkpoint built cannot be searched with this one."""
    torch.manual_seed(1)
    document = plain_document(
        backbone_name="squeezenet1_1", feature_dim=512, preprocessing=Preprocessing(size=64), p=3.0
    )
    checkpoint = tmp_path / "other.safetensors"
    fingerprint = save_checkpoint(checkpoint, MultiGrain.build(document), document)
    other = tmp_path / "other"
    build_index([photos], checkpoint, other, Embedder.open(checkpoint))
    with serving(root) as service:
        shutil.copytree(other, root, dirs_exist_ok=True)
        job = reload(service)
        assert job["status"] == "failed"
        assert fingerprint[:12] in job["error"]["detail"]
        assert service.searcher.fingerprint[:12] in job["error"]["detail"]
        assert service.search(jpeg(3)).status_code == 200


def test_mended_folder_is_taken_up_and_health_is_ok_again(root: Path) -> None:
    """A refused reload is forgotten by one that succeeds."""
    with serving(root) as service:
        line = Layout(root).current.read_bytes()
        cut_current(root)
        assert reload(service)["status"] == "failed"
        Layout(root).current.write_bytes(line)
        assert reload(service)["status"] == "done"
        health = service.health().json()
        assert (health["status"], health["checks"]["reload"]) == ("ok", {"last_error": None})


def test_second_reload_is_refused_while_one_runs(
    two_generations: Path, jpeg: Jpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """409 until the first has ended; searches are answered meanwhile."""
    may_go_on = threading.Event()
    check_files = Searcher.check_files

    def check_late(searcher: Searcher) -> None:
        assert may_go_on.wait(10)
        check_files(searcher)

    with serving(two_generations) as service:
        monkeypatch.setattr(Searcher, "check_files", check_late)
        first = service.client.post("/admin/reload", headers=ADMIN).headers["Location"]
        second = service.client.post("/admin/reload", headers=ADMIN)
        assert (second.status_code, second.json()["code"]) == (409, "reload_in_progress")
        assert service.search(jpeg(0)).status_code == 200
        assert service.client.get(first, headers=ADMIN).json()["status"] == "running"
        may_go_on.set()
        wait_until(lambda: service.client.get(first, headers=ADMIN).json()["status"] == "done")
        assert reload(service)["status"] == "done"


def test_unknown_job_is_not_found(two_generations: Path) -> None:
    """A job that never was is a 404."""
    with serving(two_generations) as service:
        answer = service.client.get("/admin/reload/7", headers=ADMIN)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_watching_takes_up_what_current_names_and_tries_a_bad_one_once(root: Path) -> None:
    """With reload_poll_s nobody has to ask; a refused generation is not read again and again."""
    with serving(root, reload_poll_s=0.02) as service:
        name_current(root, "000002")
        wait_until(lambda: service.searcher.generation == "000002")
        lose_the_catalog(root)
        name_current(root, "000001")
        wait_until(lambda: service.health().json()["status"] == "degraded")
        assert service.server.runtime.opened is not None
        num_begun = service.server.runtime.opened.reloader._num_begun
        time.sleep(0.2)
        assert service.server.runtime.opened.reloader._num_begun == num_begun == 2
        assert service.searcher.generation == "000002"


def test_reload_writes_nothing_into_the_folder(root: Path) -> None:
    """Killed in the middle it leaves the folder as it was: there is nothing to mend."""
    with serving(root) as service:
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        assert reload(service)["status"] == "done"
        assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_reload_that_outlives_the_service_opens_nothing(
    two_generations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a late reload has opened is closed, not left behind."""
    opened, may_go_on = list[Searcher](), threading.Event()
    check_files = Searcher.check_files

    def check_late(searcher: Searcher) -> None:
        opened.append(searcher)
        may_go_on.wait(10)
        check_files(searcher)

    monkeypatch.setattr(Searcher, "check_files", check_late)
    with serving(two_generations) as service:
        assert service.client.post("/admin/reload", headers=ADMIN).status_code == 202
        wait_until(lambda: bool(opened))
    may_go_on.set()
    wait_until(lambda: opened[0]._held.closed)


def test_reload_ends_whatever_goes_wrong_behind_the_swap(
    two_generations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ran for ever would keep out every later one."""
    refresh = Searcher.refresh

    def fail_once_taken_up(searcher: Searcher) -> bool:
        if service.searcher is searcher:
            raise ValueError("a fault nobody foresaw")
        return refresh(searcher)

    with serving(two_generations) as service:
        monkeypatch.setattr(Searcher, "refresh", fail_once_taken_up)
        assert reload(service)["status"] == "done"
        assert reload(service)["id"] == "2"


def test_watching_survives_what_nobody_foresaw(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One look that fails is logged; the next sees what was published."""

    def fail(_layout: Layout) -> None:
        raise ValueError("a fault nobody foresaw")

    with serving(root, reload_poll_s=0.02) as service:
        monkeypatch.setattr("service.serving.reload.read_current", fail)
        wait_until(lambda: "a fault nobody foresaw" in caplog.text)
        monkeypatch.undo()
        name_current(root, "000002")
        wait_until(lambda: service.searcher.generation == "000002")
