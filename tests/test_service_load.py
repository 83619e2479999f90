"""Many clients at once, and slow ones: bounded, refused early, and forgotten afterwards."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from service_running import Service, running, wait_until

from service.settings import Settings

pytest_plugins = ["service_fixtures"]

Jpeg = Callable[[int], bytes]
NUM_UPLOADS, MAX_QUEUE = 150, 16
NUM_SLOW = 40
LEAST_COSINE = 0.99999


@pytest.fixture(scope="module")
def small(index_root: Path) -> Iterator[Service]:
    """A service with few places."""
    with running(Settings(index=index_root, port=0, max_queue=MAX_QUEUE)) as service:
        yield service


def test_uploads_beyond_the_queue_are_refused_and_the_service_is_itself_again(
    small: Service, jpeg: Jpeg
) -> None:
    """Each of 150 at once is answered: 200, or 429 with a time to come back."""

    async def upload_all() -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=NUM_UPLOADS)
        async with httpx2.AsyncClient(base_url=small.url, limits=limits, timeout=120) as client:
            uploads = (client.post("/search", content=jpeg(n)) for n in range(NUM_UPLOADS))
            return await asyncio.gather(*uploads)

    answers = asyncio.run(upload_all())
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    assert statuses[200] >= MAX_QUEUE
    assert all(int(one.headers["Retry-After"]) >= 1 for one in answers if one.status_code == 429)
    assert small.server.runtime.opened is not None
    batcher = small.server.runtime.opened.batcher
    wait_until(lambda: batcher.places.num_taken == batcher.num_arriving == batcher.num_queued == 0)
    assert small.search(jpeg(0)).status_code == 200


def test_clients_that_drip_are_given_up_and_delay_no_other(index_root: Path, jpeg: Jpeg) -> None:
    """Bodies that never end are a 408 each, and the places they do not hold serve others."""
    settings = Settings(index=index_root, port=0, max_queue=MAX_QUEUE, body_timeout_s=0.5)
    with running(settings) as service:
        host, port = service.url.removeprefix("http://").split(":")
        head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n"
        num_slow = MAX_QUEUE // 2

        def drip(_number: int) -> bytes:
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                connection.sendall(head)
                connection.settimeout(0.1)
                for _ in range(100):
                    connection.sendall(b"x")
                    try:
                        return connection.recv(100)
                    except TimeoutError:
                        continue
            return b"no answer"

        with ThreadPoolExecutor(num_slow) as slow:
            dripping = slow.map(drip, range(num_slow))
            assert service.server.runtime.opened is not None
            batcher = service.server.runtime.opened.batcher
            wait_until(lambda: batcher.places.num_taken == num_slow)
            assert service.search(jpeg(0)).status_code == 200
            assert {answer.split(b" ")[1] for answer in dripping} == {b"408"}
        wait_until(lambda: batcher.places.num_taken == 0)


def test_idle_connections_are_closed_and_hold_no_place(index_root: Path, jpeg: Jpeg) -> None:
    """Whoever says nothing for keep_alive_s after an answer is let go."""
    with running(Settings(index=index_root, port=0, keep_alive_s=1)) as service:
        host, port = service.url.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port)), timeout=60) for _ in range(NUM_SLOW)]
        for connection in idle:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert service.search(jpeg(0)).status_code == 200
        for connection in idle:
            assert connection.recv(1) == b""  # closed by the service
            connection.close()


def test_repeated_query_has_one_answer_alone_and_under_load(index_root: Path, jpeg: Jpeg) -> None:
    """The same photo has one embedding and finds the same ids, with whomever it shares a batch."""
    with running(Settings(index=index_root, port=0, embedding_cache=0)) as small:
        _compare_alone_and_under_load(small, jpeg)


def _compare_alone_and_under_load(small: Service, jpeg: Jpeg) -> None:
    wanted = {"include": "query_embedding"}
    alone = small.search(jpeg(5), **wanted).json()
    expected = [hit["id"] for hit in alone["results"]]
    over = threading.Event()

    def others() -> None:
        while not over.is_set():
            small.search(jpeg(int(time.monotonic() * 1000) % 1000 + 100))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            pool.submit(others)
        answers = [small.search(jpeg(5), **wanted).json() for _ in range(20)]
        over.set()
    assert max(answer["batch_size"] for answer in answers) > 1
    embeddings = np.array([answer["query_embedding"] for answer in answers])
    assert (embeddings @ np.array(alone["query_embedding"])).min() >= LEAST_COSINE
    found = [answer["results"] for answer in answers]
    assert all([hit["id"] for hit in hits] == expected for hits in found)
    assert all(hits[0]["score"] > 0.999 for hits in found)
