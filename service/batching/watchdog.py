"""Whether the model works, asked of the model itself."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from service.batching.batch_errors import EngineDeadError
from service.batching.batcher import Batcher

logger = logging.getLogger(__name__)

# One request alone that fails may be a bad photo; after this many the model is asked.
SUSPICIOUS_FAILURES = 3
# Tests in a row that fail before only a restart is believed to help.
MAX_FAILED_TESTS = 3


class Watchdog:
    """Runs a test of the model when nothing has shown of late that it works.

    The test runs in the batcher's own thread and skips its queue: it is due when no batch has
    succeeded for `idle_seconds`, and at once when requests keep failing, so that bad photos
    alone never make a sound model look broken.
    """

    def __init__(
        self,
        batcher: Batcher[Any, Any],
        test: Callable[[], None],
        *,
        executor: Executor,
        idle_seconds: float = 10.0,
        every_seconds: float = 1.0,
    ) -> None:
        self._batcher = batcher
        self._test = test
        self._executor = executor
        self._idle_seconds = idle_seconds
        self._every_seconds = every_seconds
        self._tested_at = time.monotonic()
        self.num_failed = 0
        self.testing_since: float | None = None

    @property
    def is_content(self) -> bool:
        """Whether the last test passed, as far as there was one."""
        return self.num_failed == 0

    async def run(self) -> None:
        """Watch until the task is cancelled; raises EngineDeadError when the model is broken."""
        while True:
            await asyncio.sleep(self._every_seconds)
            if not self._batcher.alive:
                raise EngineDeadError("batches are no longer run")
            if self._is_due():
                await self._ask()
            if self.num_failed >= MAX_FAILED_TESTS:
                raise EngineDeadError(f"the model has failed its test {self.num_failed} times")

    def _is_due(self) -> bool:
        if self.num_failed or self._batcher.runs.num_failed_in_row >= SUSPICIOUS_FAILURES:
            return True
        shown_at = max(self._tested_at, self._batcher.runs.last_ok_at or 0.0)
        is_idle = time.monotonic() - shown_at >= self._idle_seconds
        return is_idle and self._batcher.runs.running_since is None

    async def _ask(self) -> None:
        self.testing_since = time.monotonic()
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._test)
        except Exception:
            self.num_failed += 1
            logger.exception("the model has failed its test")
        else:
            self.num_failed = self._batcher.runs.num_failed_in_row = 0
        finally:
            self.testing_since, self._tested_at = None, time.monotonic()
