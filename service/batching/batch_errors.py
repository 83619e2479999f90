"""Why a request gets no answer from a batch."""

from multigrain.errors import MultiGrainError


class QueueFullError(MultiGrainError):
    """As many requests as are allowed are on their way; come back later."""

    def __init__(self, max_queue: int, retry_after_seconds: int) -> None:
        super().__init__(
            f"{max_queue} requests are already waiting: try again in {retry_after_seconds} s"
        )
        self.retry_after_seconds = retry_after_seconds


class ClientLimitError(QueueFullError):
    """One client has as many requests on their way as one client may have."""


class BatchTooLargeError(MultiGrainError):
    """The device has no memory for a batch of this size."""


class DeadlineExceededError(MultiGrainError):
    """The answer did not come before the request's deadline."""


class EngineDeadError(MultiGrainError):
    """Batches are no longer run: the service has to be restarted."""
