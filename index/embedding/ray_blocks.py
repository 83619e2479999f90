"""Blocks of photos given to Ray, and taken back in their order.

Two threads hear what Ray says: the desk's word of what was read, and the rows that come out.
"""

import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import ray
import ray.data

from index.catalog_photos import PendingPhoto
from index.collection.meter import Spent
from index.embedding.blocks import Claim, EmbeddedBlock
from index.embedding.messages import Failed, Read
from index.embedding.ray_stages import Block, Embedded
from index.errors import WorkerError

_MOST_WAITING = 64
_LEAVE_SECONDS = 10.0


class Power(NamedTuple):
    """What a cluster reads and embeds with."""

    num_cpus: float
    num_models: int


@dataclass
class _UnderWay:
    """A block that Ray has: what was read of it, what is wanted of that."""

    number: int
    read: Read | None = None
    are_wanted: list[bool] | None = None


class RayBlocks:
    """Blocks given to Ray, and taken back in their order."""

    def __init__(
        self,
        desk: Any,
        dataset: Callable[[Sequence[Block]], ray.data.Dataset],
        *,
        power: Power,
        blocks_a_dataset: int,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._dataset, self._power = desk, dataset, power
        self._blocks_a_dataset, self._timeout_seconds = blocks_a_dataset, timeout_seconds
        self._clock, self._start = clock, clock()
        self._spent = Spent(0.0, 0.0, 0.0, 0)
        self._said = queue.Queue[Read | Embedded | Failed](_MOST_WAITING)
        self._blocks = deque[_UnderWay]()
        self._is_closed = threading.Event()
        self._threads = list[threading.Thread]()
        self._in_thread(self._hear_reads)

    @property
    def num_bytes(self) -> int:
        """Bytes read by all workers."""
        return self._spent.num_bytes

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def limit(self) -> str:
        """What the rest waits for: `decode`, `model` or `disk`, whichever takes longest in all."""
        spent = self._spent
        if spent.embedding / self._power.num_models >= spent.reading / self._power.num_cpus:
            return "model"
        return "disk" if 2 * spent.opening > spent.reading else "decode"

    def embedded(
        self, blocks: Iterable[Sequence[PendingPhoto]], claim: Claim
    ) -> Iterator[EmbeddedBlock]:
        """The blocks in their order; each is settled before the next one is asked for.

        A worker that dies has its block done by another. Raises WorkerError when one fails, or
        dies over and over, or nothing is heard of any for too long.
        """
        numbered, first = iter(blocks), 0
        while some := list(islice(numbered, self._blocks_a_dataset)):
            given: list[Block] = [
                {"number": first + at, "content": pickle.dumps(photos, protocol=5)}
                for at, photos in enumerate(some)
            ]
            first += len(some)
            del some  # a million photos
            self._blocks.extend(_UnderWay(block["number"]) for block in given)
            self._in_thread(self._hear_rows, given)
            yield from self._in_order(claim)

    def close(self) -> None:
        """End what Ray still does for this build."""
        self._is_closed.set()
        ray.kill(self._desk)  # whoever waits for an answer fails, and so its dataset
        for thread in self._threads:
            thread.join(_LEAVE_SECONDS)

    def _in_order(self, claim: Claim) -> Iterator[EmbeddedBlock]:
        while self._blocks:
            match self._next_said():
                case Failed(reason):
                    raise WorkerError(reason)
                case Read() as read:
                    self._take(read)
                    self._claim(claim)
                case Embedded(number, rows, spent):
                    self._spent = self._spent.plus(spent)
                    block = self._blocks.popleft()
                    assert block.number == number
                    assert block.read is not None
                    assert block.are_wanted is not None
                    yield EmbeddedBlock(block.read.photos, block.are_wanted, rows)

    def _next_said(self) -> Read | Embedded | Failed:
        try:
            return self._said.get(timeout=self._timeout_seconds)
        except queue.Empty as error:
            raise WorkerError(
                f"nothing was heard of Ray's workers for {self._timeout_seconds:.0f} s: see "
                "what holds them (ray status); run again to continue"
            ) from error

    def _take(self, read: Read) -> None:
        place = read.number - self._blocks[0].number
        # Read again behind a claim: who embeds it compares the hashes.
        if place >= 0 and self._blocks[place].are_wanted is None:
            self._blocks[place].read = read

    def _claim(self, claim: Claim) -> None:
        """Say what is wanted of each block before which all are read: claims go in scan order."""
        for block in self._blocks:
            if block.read is None:
                return
            if block.are_wanted is None:
                photos = block.read.photos
                block.are_wanted = claim(photos)
                both = zip(photos, block.are_wanted, strict=True)
                hashes = [photo.sha256 for photo, is_wanted in both if is_wanted]
                first_open = self._blocks[0].number
                self._desk.want.remote(block.number, hashes, first_open=first_open)

    def _in_thread(self, work: Callable[..., None], *given: Any) -> None:
        thread = threading.Thread(target=self._guarded, args=(work, *given), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guarded(self, work: Callable[..., None], *given: Any) -> None:
        """Do it, or say why not: nobody looks at what a thread raises."""
        try:
            work(*given)
        except Exception as error:  # noqa: BLE001 - whatever it is, the build is told
            lines = str(error).strip().splitlines() or [""]
            said = f"Ray ended it: {type(error).__name__}: {lines[0]}; run again to continue"
            self._say(Failed(said))

    def _hear_reads(self) -> None:
        while not self._is_closed.is_set():
            for read in ray.get(self._desk.next_reads.remote()):
                self._say(read)

    def _hear_rows(self, given: Sequence[Block]) -> None:
        for block in self._dataset(given).iter_rows():
            if self._is_closed.is_set():
                return
            self._say(pickle.loads(block["content"]))  # noqa: S301 - our own

    def _say(self, said: Read | Embedded | Failed) -> None:
        """Wait until there is room: rows of a build that is slow stay with Ray."""
        while not self._is_closed.is_set():
            with suppress(queue.Full):
                self._said.put(said, timeout=1.0)
                return
