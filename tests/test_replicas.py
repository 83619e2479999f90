"""Two services on one index folder behind nginx: reloads, changes and ends cost no search."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx2
import pytest

from index.builder import build_index
from multigrain.embedder import Embedder
from service.healthcheck import check

pytest_plugins = ["service_fixtures"]

CONFIG = Path(__file__).parents[1] / "docker" / "nginx.conf"
ADMIN = {"X-API-Key": "of-the-admin"}
ADDS_POLL_SECONDS = 0.5
# Reading what was added, and the machine's other affairs.
SLACK_SECONDS = 2.0
START_SECONDS = 300.0

Jpeg = Callable[[int], bytes]


class Cluster(NamedTuple):
    """A folder of photos, its index, two services, the first of which writes, and their door."""

    photos: Path
    index: Path
    processes: list[subprocess.Popen[bytes]]
    urls: list[str]
    door: str


def free_ports(num: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(num)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]


def start_service(index: Path, port: int, *flags: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "service", "--index", str(index), "--port", str(port)]
    options = ["--adds-poll-s", str(ADDS_POLL_SECONDS), "--drain-grace-s", "0.5", "--device", "cpu"]
    environment = os.environ | {"MULTIGRAIN_ADMIN_KEY": ADMIN["X-API-Key"]}
    return subprocess.Popen([*command, *options, *flags], env=environment)


def start_nginx(folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    """The shipped configuration with ports of our own, in a folder of its own."""
    text = CONFIG.read_text()
    for theirs, ours in zip(("8000", "8001", "8002"), ports, strict=True):
        assert f"127.0.0.1:{theirs}" in text
        text = text.replace(f"127.0.0.1:{theirs}", f"127.0.0.1:{ours}")
    (folder / "nginx.conf").write_text(text)
    # Root's workers would be another user, who may not enter pytest's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    options = ["-p", str(folder), "-c", "nginx.conf", "-g", f"daemon off; {user}", "-e", "stderr"]
    return subprocess.Popen(["nginx", *options])


def wait_for(condition: Callable[[], object], seconds: float) -> float:
    """Seconds until it came true; fails when it does not in time."""
    started_at = time.monotonic()
    while not condition():
        assert time.monotonic() - started_at < seconds, "it did not come true"
        time.sleep(0.02)
    return time.monotonic() - started_at


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def cluster(
    photos: Path, index_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Both replicas ready, and nginx before them."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: nginx-light)")
    folder = tmp_path_factory.mktemp("replicas")
    shutil.copytree(photos, folder / "photos")
    index = Path(shutil.copytree(index_root, folder / "index"))
    door, *ports = free_ports(3)
    processes = [start_service(index, ports[0], "--adds"), start_service(index, ports[1])]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        wait_for(lambda: all(check(url) is None for url in urls), START_SECONDS)
        processes.append(start_nginx(folder, [door, *ports]))
        wait_for(lambda: is_open(door), START_SECONDS)
        yield Cluster(folder / "photos", index, processes, urls, f"http://127.0.0.1:{door}")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=120)


class Load:
    """Two clients that search without a pause, and what they were answered."""

    def __init__(self, url: str, photo: bytes) -> None:
        self.answers = list[tuple[int, str]]()
        self._url, self._photo, self._over = url, photo, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def __enter__(self) -> Self:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Ask no more."""
        self._over.set()
        for thread in self._threads:
            thread.join(120)

    @property
    def failed(self) -> list[tuple[int, str]]:
        """Answers other than 200."""
        return [one for one in self.answers if one[0] != 200]

    def wait_for_more(self, num: int = 10) -> None:
        """Until so many more searches were answered."""
        wanted = len(self.answers) + num
        wait_for(lambda: len(self.answers) >= wanted, 120)

    def _ask(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=120) as client:
            while not self._over.is_set():
                answer = client.post("/search?limit=1", files={"image": self._photo})
                generation = answer.headers.get("X-Index-Generation", answer.text)
                self.answers.append((answer.status_code, generation))


def answers_from(url: str, generation: str) -> bool:
    """Whether a replica has taken a generation up."""
    return bool(httpx2.get(f"{url}/health", timeout=60).json()["generation"] == generation)


def best(url: str, photo: bytes) -> dict[str, Any]:
    """The first hit."""
    answer = httpx2.post(f"{url}/search?limit=1", files={"image": photo}, timeout=120)
    hit: dict[str, Any] = answer.json()["results"][0]
    return hit


def test_a_change_goes_through_the_writer_and_is_seen_by_all_in_time(
    cluster: Cluster, jpeg: Jpeg
) -> None:
    """The door leads to the writer; the other follows within --adds-poll-s, but for reading."""
    photo, data = jpeg(60), {"metadata": json.dumps({"label": "new"})}
    with httpx2.Client(base_url=cluster.door, timeout=120, headers=ADMIN) as client:
        added = client.post("/images", files={"image": photo}, data=data)
        assert added.status_code == 201, added.text
        number = added.json()["id"]
        assert best(cluster.urls[0], photo)["id"] == number
        seconds = wait_for(lambda: best(cluster.urls[1], photo)["id"] == number, 60)
        assert seconds < ADDS_POLL_SECONDS + SLACK_SECONDS
        assert client.get(f"/images/{number}").json()["metadata"]["label"] == "new"
        assert client.delete(f"/images/{number}").status_code == 204
    wait_for(lambda: best(cluster.urls[1], photo)["id"] != number, 60)
    refused = httpx2.delete(f"{cluster.urls[1]}/images/0", headers=ADMIN, timeout=60)
    assert refused.status_code == 403


def test_a_replicas_own_affairs_stay_inside(cluster: Cluster) -> None:
    """A reload or a scrape means one replica, not whichever nginx takes."""
    for path in ("/admin/reload", "/metrics", "/readyz"):
        assert httpx2.post(f"{cluster.door}{path}", headers=ADMIN, timeout=60).status_code == 404


def test_a_rolling_reload_costs_no_search(
    cluster: Cluster, tiny_checkpoint: Path, jpeg: Jpeg
) -> None:
    """One replica after the other takes the new generation up, under constant load."""
    (cluster.photos / "new.jpg").write_bytes(jpeg(61))
    with Load(cluster.door, jpeg(0)) as load:
        load.wait_for_more()
        embedder = Embedder.open(tiny_checkpoint)
        report = build_index([cluster.photos], tiny_checkpoint, cluster.index, embedder)
        assert report.generation is not None
        for url, process in zip(cluster.urls, cluster.processes, strict=False):
            process.send_signal(signal.SIGHUP)
            wait_for(partial(answers_from, url, report.generation), 120)
            load.wait_for_more()
        load.wait_for_more()
    assert load.failed == []
    assert load.answers[0][1] == "000001"
    assert load.answers[-1][1] == report.generation
    assert [best(url, jpeg(61))["uri"] for url in cluster.urls] == ["new.jpg", "new.jpg"]


def test_a_replica_that_ends_costs_no_search(cluster: Cluster, jpeg: Jpeg) -> None:
    """It refuses while it drains, then its port is closed: nginx asks the other one each time."""
    leaving = cluster.processes[1]
    with Load(cluster.door, jpeg(0)) as load:
        load.wait_for_more()
        leaving.terminate()
        assert leaving.wait(timeout=120) == -signal.SIGTERM
        load.wait_for_more()
    assert load.failed == []
