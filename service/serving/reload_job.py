"""One attempt to take up another generation."""

import time
from typing import Literal


class ReloadJob:
    """Written by the thread that reloads, read by others; `seconds` is None while it runs."""

    def __init__(self, job_id: str, *, started_at: float) -> None:
        self.id = job_id
        self.status: Literal["running", "done", "failed"] = "running"
        self.generation: str | None = None
        self.error: str | None = None
        self.seconds: float | None = None
        self._started_at = started_at

    def succeed(self, generation: str) -> None:
        """It answers now."""
        self.generation = generation
        self._end("done")

    def fail(self, error: str) -> None:
        """It was refused, for this reason."""
        self.error = error
        self._end("failed")

    def _end(self, status: Literal["done", "failed"]) -> None:
        self.seconds = time.monotonic() - self._started_at
        self.status = status  # last: whoever sees the end sees the rest
