"""How long each stage of a build took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StageTimes:
    """Seconds of the stages that were run, by name, in their order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Time a stage; one that raises has no time."""
        start = self._clock()
        yield
        self.seconds[stage] = self._clock() - start
