"""Several processes of a build, as threads of one process or as processes of their own."""

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.process import BaseProcess

import numpy as np
from numpy.typing import NDArray
from stub_embedder import BrokenEmbedder, StubEmbedder

from index.embedding.blocks import Work
from index.embedding.crew import Crew
from index.embedding.dealer import Dealer, Lane
from index.embedding.helper import help_build
from index.embedding.messages import Begin, End
from index.embedding.place import Place
from index.embedding.worker import Worker
from multigrain.engine import DeviceMemoryError

# Long, as another process may have to import everything on a machine that is busy.
TIMEOUT_SECONDS = 600.0


class ThreadCrew:
    """A crew whose processes are threads, each with an embedder of its own."""

    def __init__(self, embedders: Sequence[StubEmbedder], *, timeout_seconds: float = 60.0) -> None:
        self.embedders, self._timeout_seconds = embedders, timeout_seconds

    @contextmanager
    def at_work(self, work: Work) -> Iterator[Dealer]:
        """All of them at work."""
        lanes, threads = list[Lane](), list[threading.Thread]()
        for number, embedder in enumerate(self.embedders):
            near, far = Pipe()
            worker = Worker(far, embedder, num_threads=2)
            threads.append(threading.Thread(target=worker.serve, daemon=True))
            threads[-1].start()
            lanes.append(Lane(f"process {number}", near, num_threads=2))
            lanes[-1].send(Begin(work.bases, work.known_heads))
        try:
            yield Dealer(lanes, timeout_seconds=self._timeout_seconds)
        finally:
            for lane in lanes:
                lane.send(End(0))
            for thread in threads:
                thread.join(120)


class FatedEmbedder(BrokenEmbedder):
    """Meets its end when it is to embed a photo: killed, stopped, or out of memory."""

    def __init__(self, fate: str, *, after: int = 0, until: threading.Event | None = None) -> None:
        super().__init__()
        self._fate, self._after, self._until = fate, after, until

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Embed, until the end."""
        if self.num_embedded >= self._after:
            if self._until:
                self._until.wait(60)
            if self._fate == "memory":
                raise DeviceMemoryError("no room for a single photo")
            if self._fate == "bug":
                raise KeyError("pixels")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[self._fate])
        return super().embed_pixels(pixels, batch_size)


def place_of(rank: int, world: int, port: int) -> Place:
    """A place among processes of this machine that no torchrun started."""
    return Place(rank, world, rank, world, ("127.0.0.1", port), attempt=0, is_met_by_agent=False)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def help_with_stub(port: int, rank: int, world: int, fate: str | None) -> None:
    """What a process that is not the first does; exits with the build's status."""
    embedder = FatedEmbedder(fate, after=8) if fate else BrokenEmbedder()
    place = place_of(rank, world, port)
    status = help_build(
        place, lambda _model: embedder, num_threads=1, timeout_seconds=TIMEOUT_SECONDS
    )
    raise SystemExit(status)


@contextmanager
def crew_of_processes(*, fate: str | None = None) -> Iterator[tuple[Crew, BaseProcess]]:
    """A crew of this process and another one, forked by a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    # Found without pytest's own path; the tests' files are imported by each process.
    context.set_forkserver_preload(["index.builder", "index.embedding.helper"])
    port = free_port()
    process = context.Process(target=help_with_stub, args=(port, 1, 2, fate))
    process.start()
    try:
        place = place_of(0, 2, port)
        with Crew(place, num_threads=1, timeout_seconds=TIMEOUT_SECONDS) as crew:
            crew.introduce(StubEmbedder())
            yield crew, process
        process.join(TIMEOUT_SECONDS)
    finally:
        process.kill()
        process.join(TIMEOUT_SECONDS)
