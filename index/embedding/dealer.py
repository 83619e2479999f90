"""Blocks dealt to several processes, and taken back in their order.

A process reports what it read before it embeds: only then is it known which contents are new, and
a content that stands in two blocks is embedded in the first of them, as one process does.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import numpy as np
from numpy.typing import NDArray

from index.catalog_photos import PendingPhoto
from index.collection.meter import Spent
from index.collection.reading import ReadPhoto
from index.embedding.blocks import Claim, EmbeddedBlock
from index.embedding.messages import Deal, Failed, FromWorker, Read, Rows, ToWorker, Wanted
from index.errors import WorkerError

# One that the model works on, one that is read, one between them.
_BLOCKS_PER_LANE = 3
_NOTHING = Spent(0.0, 0.0, 0.0, 0)


class Lane:
    """A process that embeds: its connection, the threads that read for it, and its blocks."""

    def __init__(self, name: str, connection: Connection, *, num_threads: int = 1) -> None:
        self.name, self.connection, self.num_threads = name, connection, num_threads
        self.num_blocks = 0
        self.spent = _NOTHING
        self.heard_at = 0.0

    def send(self, message: ToWorker) -> None:
        """Send; raises WorkerError when nobody takes it."""
        try:
            self.connection.send(message)
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> FromWorker:
        """The next message; raises WorkerError when the process failed or ended."""
        try:
            message: FromWorker = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(message, Failed):
            raise WorkerError(f"{self.name}: {message.reason}")
        return message

    def _lost(self) -> WorkerError:
        return WorkerError(f"{self.name} ended; run again to continue behind the last durable row")


@dataclass
class _Block:
    """A block under way: what was read of it, then which photos are wanted, then their rows."""

    number: int
    lane: Lane
    read: Sequence[ReadPhoto] | None = None
    are_wanted: Sequence[bool] | None = None
    rows: NDArray[np.float32] | None = None

    @property
    def is_owed(self) -> bool:
        """Whether its process has something to do for it."""
        return self.read is None or (self.are_wanted is not None and self.rows is None)


class Dealer:
    """Deals blocks to whoever has few, and gives them back in their order."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes, self._clock, self._timeout_seconds = lanes, clock, timeout_seconds
        self._lane_of = {lane.connection: lane for lane in lanes}
        self._start = clock()
        self._under_way = deque[_Block]()

    @property
    def num_bytes(self) -> int:
        """Bytes read by all processes."""
        return sum(lane.spent.num_bytes for lane in self._lanes)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def limit(self) -> str:
        """What the rest waits for: `decode`, `model` or `disk`, whichever is busiest in all."""
        seconds = self.seconds or 1.0
        reading = sum(lane.spent.reading / lane.num_threads for lane in self._lanes) / seconds
        opening = sum(lane.spent.opening / lane.num_threads for lane in self._lanes) / seconds
        embedding = sum(lane.spent.embedding for lane in self._lanes) / seconds
        if embedding >= reading:
            return "model"
        return "disk" if 2 * opening > reading else "decode"

    def embedded(
        self, blocks: Iterable[Sequence[PendingPhoto]], claim: Claim
    ) -> Iterator[EmbeddedBlock]:
        """The blocks in their order; each is settled before the next one is asked for.

        Raises WorkerError when a process failed, ended, or is silent for too long.
        """
        numbered = iter(enumerate(blocks))
        while True:
            self._deal(numbered)
            if not self._under_way:
                return
            self._hear()
            self._claim(claim)
            while self._under_way and self._under_way[0].rows is not None:
                block = self._under_way.popleft()
                assert block.read is not None
                assert block.are_wanted is not None
                assert block.rows is not None
                yield EmbeddedBlock(block.read, block.are_wanted, block.rows)

    def _deal(self, numbered: Iterator[tuple[int, Sequence[PendingPhoto]]]) -> None:
        # One that is slow must not let the others run ahead without end.
        most = 2 * _BLOCKS_PER_LANE * len(self._lanes)
        while len(self._under_way) < most:
            lane = min(self._lanes, key=lambda one: one.num_blocks)
            if lane.num_blocks == _BLOCKS_PER_LANE:
                return
            number, photos = next(numbered, (-1, None))
            if photos is None:
                return
            self._under_way.append(_Block(number, lane))
            lane.num_blocks += 1
            self._send(lane, Deal(number, photos))

    def _send(self, lane: Lane, message: ToWorker) -> None:
        lane.heard_at = self._clock()  # from here on it has something to do
        lane.send(message)

    def _hear(self) -> None:
        owing = {block.lane.connection: block.lane for block in self._under_way if block.is_owed}
        give_up_at = min(lane.heard_at for lane in owing.values()) + self._timeout_seconds
        ready = wait(list(self._lane_of), timeout=max(0.0, give_up_at - self._clock()))
        for connection in ready:
            assert isinstance(connection, Connection)
            lane = self._lane_of[connection]
            lane.heard_at = self._clock()
            self._take(lane, lane.receive())
        for connection, lane in owing.items():
            silent = self._clock() - lane.heard_at
            if connection not in ready and silent >= self._timeout_seconds:
                raise WorkerError(
                    f"{lane.name} has been silent for {silent:.0f} s over a block of photos: see "
                    "what holds it (its device, its folder); run again to continue"
                )

    def _take(self, lane: Lane, message: FromWorker) -> None:
        assert isinstance(message, Read | Rows)
        block = self._under_way[message.number - self._under_way[0].number]
        if isinstance(message, Read):
            block.read = message.photos
        else:
            block.rows, lane.spent = message.rows, message.spent
            lane.num_blocks -= 1

    def _claim(self, claim: Claim) -> None:
        """Say what is wanted of each block before which all are read: claims go in scan order."""
        for block in self._under_way:
            if block.read is None:
                return
            if block.are_wanted is None:
                block.are_wanted = claim(block.read)
                self._send(block.lane, Wanted(block.number, block.are_wanted))
