"""Every way a request to the service can fail, as one exception."""

from http import HTTPStatus

from multigrain.errors import MultiGrainError

# Refused now, welcome later; every other status would be the same the next time.
_PASSING_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
UNREACHABLE = "unreachable"


class ServiceError(MultiGrainError):
    """The service refused a request, or could not be asked; `detail` is its own sentence.

    `code` is the problem document's. Where no such document came, it is one of `unreachable` (no
    connection), `bad_url`, `timeout`, `connection_lost`, `unexpected_answer` and
    `photo_unreadable` (a file on this side), and `status` is None unless there was an answer.
    `request_id` is what the service's log names the request by. `retry_after_seconds` is what
    the service asked for.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        facts = [code, *([str(status)] if status else [])]
        facts += [f"request {request_id}"] if request_id else []
        super().__init__(f"{detail} ({', '.join(facts)})")
        self.detail = detail
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds

    @property
    def is_passing(self) -> bool:
        """Whether the same request may succeed a little later: 429, 503, and no connection."""
        return self.status in _PASSING_STATUSES or self.code == UNREACHABLE
