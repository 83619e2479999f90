"""When a request that was refused is sent again."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from service.client.errors import ServiceError

T = TypeVar("T")


@dataclass(frozen=True)
class Retries:
    """Sends again what was refused for now (`ServiceError.is_passing`), and nothing else.

    Waits at least as long as the service's Retry-After, else `first_wait_seconds` doubled each
    time; a random part on top keeps clients that were refused together from coming back
    together. Gives up after `max_attempts`, or when the wait would end after `max_seconds`.
    """

    max_attempts: int = 4
    first_wait_seconds: float = 0.5
    max_seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform

    def run(self, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns; raises its last ServiceError."""
        give_up_at = self.clock() + self.max_seconds
        for number in count(1):
            try:
                return attempt()
            except ServiceError as error:
                wait_seconds = self._wait_seconds(number, error.retry_after_seconds)
                too_late = self.clock() + wait_seconds > give_up_at
                if not error.is_passing or number >= self.max_attempts or too_late:
                    raise
                self.sleep(wait_seconds)
        raise AssertionError("count never ends")

    def _wait_seconds(self, number: int, retry_after_seconds: float | None) -> float:
        growing = self.first_wait_seconds * 2 ** (number - 1)
        asked_for = growing if retry_after_seconds is None else retry_after_seconds
        return asked_for + self.uniform(0, growing)
