"""How many requests may be on their way: refused early, before their bodies are read."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.batching.batch_errors import ClientLimitError, QueueFullError


class Places:
    """Places for `max_queue` requests, of which one client may hold `max_of_client`.

    `retry_after_seconds` is asked when a request is refused: in how many whole seconds as many
    as hold a place will have been answered.
    """

    def __init__(
        self,
        max_queue: int,
        *,
        max_of_client: int | None = None,
        retry_after_seconds: Callable[[int], int],
    ) -> None:
        self.max_queue = max_queue
        self._max_of_client = max_queue if max_of_client is None else max_of_client
        self._retry_after_seconds = retry_after_seconds
        self._of_client = Counter[str]()
        self.num_taken = 0

    def check(self, client: str | None = None) -> None:
        """Raise QueueFullError when no place is left, or none for this client."""
        if self.num_taken >= self.max_queue:
            raise QueueFullError(self.max_queue, self._retry_after_seconds(self.num_taken))
        if client is not None and self._of_client[client] >= self._max_of_client:
            wait_seconds = self._retry_after_seconds(self.num_taken)
            raise ClientLimitError(self._max_of_client, wait_seconds)

    @contextmanager
    def take(self, client: str | None = None) -> Iterator[None]:
        """Hold a place, of a client or (None) of nobody; raises QueueFullError."""
        self.check(client)
        self.num_taken += 1
        if client is not None:
            self._of_client[client] += 1
        try:
            yield
        finally:
            self.num_taken -= 1
            if client is not None:
                self._of_client[client] -= 1
