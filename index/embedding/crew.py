"""The processes of a build in the hands of the first: told what to open, at work, sent home."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from types import TracebackType
from typing import Self

import torch

from index.collection.reading import PhotoEmbedder
from index.embedding.blocks import Work
from index.embedding.dealer import Dealer, Lane
from index.embedding.meeting import Meeting
from index.embedding.messages import Begin, End, Joined, ModelName
from index.embedding.place import Place
from index.embedding.worker import EXIT_ALONE, Worker
from index.errors import WorkerError
from multigrain.cpus import num_cpus

_LEAVE_SECONDS = 5.0


class Crew:
    """All processes of a build but the first, which holds this; a context that sends them home."""

    def __init__(self, place: Place, *, num_threads: int, timeout_seconds: float) -> None:
        self.place = place
        self._num_threads, self._timeout_seconds = num_threads, timeout_seconds
        self._lanes: list[Lane] = []
        self._meeting = Meeting(place, timeout_seconds=timeout_seconds)
        self._status = EXIT_ALONE

    def introduce(self, embedder: PhotoEmbedder) -> None:
        """Wait for the others, and name the model they are to open; raises WorkerError."""
        self._meet()
        for lane in self._lanes:
            lane.send(ModelName.of(embedder))

    @contextmanager
    def at_work(self, work: Work) -> Iterator[Dealer]:
        """All processes, this one too, ready to read and embed; raises WorkerError.

        Behind it, all cores of the machine are this process's again.
        """
        for lane in self._lanes:
            self._require_model(lane, ModelName.of(work.embedder))
        with self._own_lane(work.embedder) as own:
            lanes = [own, *self._lanes]
            for lane in lanes:
                lane.send(Begin(work.bases, work.known_heads))
            yield Dealer(lanes, timeout_seconds=self._timeout_seconds)
        torch.set_num_threads(num_cpus())

    def end_with(self, status: int) -> None:
        """Let the others leave with this exit status instead of 1."""
        self._status = status

    def _meet(self) -> None:
        while len(self._lanes) < self.place.world - 1:
            try:
                hello, connection = self._meeting.next()
            except queue.Empty as error:
                raise WorkerError(
                    f"{len(self._lanes) + 1} of {self.place.world} processes came within "
                    f"{self._timeout_seconds:.0f} s: see what became of the others"
                ) from error
            self._lanes.append(Lane(f"process {hello.rank} on {hello.host}", connection))

    def _require_model(self, lane: Lane, wanted: ModelName) -> None:
        if not lane.connection.poll(self._timeout_seconds):
            raise WorkerError(
                f"{lane.name} did not open the model in {self._timeout_seconds:.0f} s"
            )
        message = lane.receive()
        assert isinstance(message, Joined)
        if message.model != wanted:
            raise WorkerError(
                f"{lane.name} runs {' '.join(message.model)}, the first {' '.join(wanted)}: "
                "give all of them the same checkpoint and the same packages"
            )
        lane.num_threads = message.num_threads

    @contextmanager
    def _own_lane(self, embedder: PhotoEmbedder) -> Iterator[Lane]:
        """This process's own part, in threads."""
        near, far = Pipe()
        worker = Worker(far, embedder, num_threads=self._num_threads)
        thread = threading.Thread(target=worker.serve, daemon=True)
        thread.start()
        try:
            yield Lane("the first process", near, num_threads=self._num_threads)
        finally:
            near.send(End(0))
            thread.join(_LEAVE_SECONDS)
            near.close()
            far.close()

    def __enter__(self) -> Self:
        """Have the others near."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Send everyone home."""
        if self._status == 0:
            self._meet()  # also those that come late leave with this status
        self._meeting.close()
        for lane in self._lanes:
            _dismiss(lane, self._status)
        for lane in self._lanes:
            _see_off(lane)


def _dismiss(lane: Lane, status: int) -> None:
    try:
        lane.send(End(status))
    except WorkerError:  # it left before
        return


def _see_off(lane: Lane) -> None:
    """Wait a while until a process has left; what it still says is not heard."""
    try:
        while lane.connection.poll(_LEAVE_SECONDS):
            lane.connection.recv()
    except (EOFError, OSError):  # it left
        pass
    lane.connection.close()
