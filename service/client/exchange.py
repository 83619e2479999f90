"""One request and its answer: timeouts, keys, and failures as ServiceError."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from service.client.errors import UNREACHABLE, ServiceError

A = TypeVar("A", bound=BaseModel)

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0


class Exchange:
    """Connections to one service, kept open between requests; safe to use from many threads."""

    def __init__(
        self, url: str, *, api_key: str | None, transport: httpx2.BaseTransport | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._url = url
        self._http = httpx2.Client(
            base_url=url,
            headers=headers,
            # Waiting for a free connection is not the service's fault.
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Return the answer whatever its status; raises ServiceError when none comes."""
        try:
            return self._http.request(method, path, **request)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise ServiceError(f"{self._url!r} is no address: {error}", code="bad_url") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            detail = f"{self._url} cannot be reached: {error}"
            raise ServiceError(detail, code=UNREACHABLE) from error
        except httpx2.TimeoutException as error:
            detail = f"{self._url} did not answer within {ANSWER_SECONDS:g} s"
            raise ServiceError(detail, code="timeout") from error
        except httpx2.TransportError as error:
            detail = f"the connection to {self._url} broke: {error}"
            raise ServiceError(detail, code="connection_lost") from error

    def ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Return the answer; raises ServiceError for every status but 2xx."""
        response = self.send(method, path, **request)
        if not response.is_success:
            raise error_of(response)
        return response


def read_answer(kind: type[A], response: httpx2.Response) -> A:
    """Read a JSON body; raises ServiceError unexpected_answer when it is something else."""
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise _unexpected(response) from error


def error_of(response: httpx2.Response) -> ServiceError:
    """The problem document of an answer, or what can be said of one that carries none."""
    try:
        problem = response.json()
        detail, code = str(problem["detail"]), str(problem["code"])
    except (ValueError, KeyError, TypeError):
        return _unexpected(response)
    return ServiceError(
        detail,
        code=code,
        status=response.status_code,
        request_id=problem.get("request_id"),
        retry_after_seconds=retry_after_seconds(response.headers),
    )


def _unexpected(response: httpx2.Response) -> ServiceError:
    """What stands before a service, such as a proxy, answers in its own words."""
    return ServiceError(
        f"{response.url} answered {response.status_code} with {response.text[:200]!r}",
        code="unexpected_answer",
        status=response.status_code,
        request_id=response.headers.get("x-request-id"),
        retry_after_seconds=retry_after_seconds(response.headers),
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for; a date counts from the answer's own Date.

    None where the header is missing or unreadable.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
        return max(0.0, (until - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError):
        return None
