"""Starting a real service inside the test process, on a free port."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from index.searcher import Searcher
from service.server import DrainingServer
from service.settings import Settings

START_SECONDS = 300.0


class Service:
    """A running service and a client that speaks to it."""

    def __init__(self, server: DrainingServer) -> None:
        self.server = server
        self.url = server.url
        self.client = httpx2.Client(base_url=server.url, timeout=120)

    def search(self, photo: bytes, **parameters: Any) -> httpx2.Response:
        """Send a photo as a form, the way curl -F does."""
        return self.client.post("/search", files={"image": photo}, params=parameters)

    @property
    def searcher(self) -> Searcher:
        """The generation that answers, for a test to tamper with."""
        assert self.server.runtime.opened is not None
        with self.server.runtime.opened.engine.generations.lease() as searcher:
            return searcher

    def health(self) -> httpx2.Response:
        """Ask how it is."""
        return self.client.get("/health")


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Come back when something has come true; fail when it does not in time."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come true"
        time.sleep(0.005)


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """Serve in a thread until the block ends; raises what kept the service from opening."""
    server = DrainingServer(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [server.listener]})
    thread.start()
    service = Service(server)
    try:
        _wait_until_ready(server)
        yield service
    finally:
        service.client.close()
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive()


def _wait_until_ready(server: DrainingServer) -> None:
    def is_ready() -> bool:
        if server.failure is not None:
            raise server.failure
        return server.runtime.answers

    wait_until(is_ready, START_SECONDS)
