"""Which end of embedding the other waits for: the threads that read photos, or who takes them."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, ParamSpec, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Given = ParamSpec("Given")


class Spent(NamedTuple):
    """Seconds that threads read, of these waited for the disk, that the model ran; bytes read."""

    reading: float
    opening: float
    embedding: float
    num_bytes: int

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        return Spent(
            self.reading + other.reading,
            self.opening + other.opening,
            self.embedding + other.embedding,
            self.num_bytes + other.num_bytes,
        )


class Meter:
    """Seconds spent by `num_threads` readers and by the one loop that takes what they read.

    The end that waits less is the slower one. `reading` and `opening` wrap what threads call,
    `taking` and `embedding` what the loop does.
    """

    def __init__(self, *, num_threads: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._num_threads, self._clock = num_threads, clock
        self._lock = threading.Lock()
        self._reading = self._opening = self._waiting = self._embedding = 0.0
        self.num_bytes = 0
        self._start = clock()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def spent(self) -> Spent:
        """What was measured so far, but for waiting."""
        return Spent(self._reading, self._opening, self._embedding, self.num_bytes)

    def reading(self, read: Callable[Given, Result]) -> Callable[Given, Result]:
        """Time all that a thread does for a photo."""

        def timed(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            start = self._clock()
            result = read(*args, **kwargs)
            seconds = self._clock() - start
            with self._lock:
                self._reading += seconds
            return result

        return timed

    def opening(self, read_file: Callable[Given, bytes]) -> Callable[Given, bytes]:
        """Time the part of it that waits for the disk, and count the bytes."""

        def timed(*args: Given.args, **kwargs: Given.kwargs) -> bytes:
            start, data = self._clock(), b""
            try:
                data = read_file(*args, **kwargs)
            finally:
                seconds = self._clock() - start
                with self._lock:
                    self._opening += seconds
                    self.num_bytes += len(data)
            return data

        return timed

    def taking(self, items: Iterable[Item]) -> Iterator[Item]:
        """Time how long the loop waits for the next item."""
        remaining, clock = iter(items), self._clock
        while True:
            start = clock()
            try:
                item = next(remaining)
            except StopIteration:
                return
            finally:
                self._waiting += clock() - start
            yield item

    def embedding(self, embed: Callable[Given, Result]) -> Callable[Given, Result]:
        """Time the model."""

        def timed(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            start = self._clock()
            try:
                return embed(*args, **kwargs)
            finally:
                self._embedding += self._clock() - start

        return timed

    def limit(self) -> str:
        """What the rest waits for: `decode`, `model` or `disk`."""
        seconds = self.seconds or 1.0
        readers_wait = 1 - self._reading / (self._num_threads * seconds)
        if self._waiting / seconds > readers_wait:
            return "disk" if 2 * self._opening > self._reading else "decode"
        storing = seconds - self._waiting - self._embedding
        return "disk" if storing > self._embedding else "model"
