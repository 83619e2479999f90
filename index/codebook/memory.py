"""The anonymous memory of this process: what no file backs, so what a machine must really have."""

import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

_STATUS = Path("/proc/self/status")
_EVERY_SECONDS = 0.05


def anonymous_bytes(status: Path = _STATUS) -> int | None:
    """RssAnon of this process; None where the system does not say."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), None)


class Taken(NamedTuple):
    """Bytes a process had before some work, and the most it had while doing it."""

    start: int
    peak: int


class PeakMemory:
    """Watches this process's anonymous memory from a thread; `peak` is the most that was seen."""

    def __init__(self, status: Path = _STATUS, *, every_seconds: float = _EVERY_SECONDS) -> None:
        self._status, self._every_seconds = status, every_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.start = self.peak = anonymous_bytes(status)

    def start_here(self) -> None:
        """Count what is taken from here on."""
        self.start = anonymous_bytes(self._status)

    @property
    def taken(self) -> Taken | None:
        """What was seen; None where the system does not say."""
        if self.start is None or self.peak is None:
            return None
        return Taken(self.start, self.peak)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Look a last time."""
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(self._every_seconds):
            self._look()

    def _look(self) -> None:
        now = anonymous_bytes(self._status)
        if now is not None and self.peak is not None:
            self.peak = max(self.peak, now)
