"""How far long work has come: one rewritten line on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

_TERMINAL_SECONDS = 0.2


class Progress:
    """Rate and time left of work that counts `unit`s; `total` None when it is not known."""

    def __init__(
        self,
        total: int | None,
        unit: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        every_seconds: float = 10.0,
    ) -> None:
        self._total = total
        self._unit = unit
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._on_terminal = self._stream.isatty()
        self._every_seconds = _TERMINAL_SECONDS if self._on_terminal else every_seconds
        self._start = self._last = clock()
        self._first: int | None = None
        self._line = ""

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` units are done in all; prints when it is time to."""
        now = self._clock()
        if self._first is None:
            self._first = done  # what an earlier run did is not this run's rate
        self._line = self._format(done, now, note)
        if now - self._last >= self._every_seconds:
            self._last = now
            self._print()

    def close(self) -> None:
        """Print the last state and end the line."""
        if self._line:
            self._print()
            if self._on_terminal:
                self._stream.write("\n")

    def _print(self) -> None:
        if self._on_terminal:
            self._stream.write(f"\r{self._line}\x1b[K")
        else:
            self._stream.write(f"{self._line}\n")
        self._stream.flush()

    def _format(self, done: int, now: float, note: str) -> str:
        elapsed = now - self._start
        rate = (done - (self._first or 0)) / elapsed if elapsed > 0 else 0.0
        parts = [f"{done}/{self._total}" if self._total is not None else str(done), self._unit]
        if rate > 0:
            parts.append(f"{rate:.1f}/s")
            if self._total is not None:
                parts.append(f"{duration((self._total - done) / rate)} left")
        return " ".join(parts + ([note] if note else []))


def duration(seconds: float) -> str:
    """Seconds in words: `12s`, `3m05s`, `2h10m`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
