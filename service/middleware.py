"""Around every request: its id, the headers of its answer, early refusal, and the last resort."""

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.batching.batch_errors import QueueFullError
from service.errors import INTERNAL, ProblemError, problem_response
from service.gate import Gate
from service.serving.runtime import Runtime
from service.translations import full_queue_problem

logger = logging.getLogger(__name__)

_SEARCHES = frozenset({"/search", "/search/batch", "/embed"})
_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(headers: Headers) -> str:
    """Take the client's X-Request-ID when it is harmless, else make one."""
    given = headers.get("x-request-id", "")
    return given if _ACCEPTED_REQUEST_ID.fullmatch(given) else secrets.token_hex(13)


def _refuse_when_full(scope: Scope) -> None:
    """Refuse a search there is no room for before it is routed.

    In a burst of hundreds each refusal delays those behind it, and routing is most of its cost.
    """
    runtime: Runtime | None = scope["state"].get("runtime")
    is_search = scope["method"] == "POST" and scope["path"] in _SEARCHES
    if is_search and runtime is not None and runtime.answers and runtime.opened is not None:
        runtime.opened.batcher.places.check(scope["state"]["client"])


def _is_draining(scope: Scope) -> bool:
    runtime: Runtime | None = scope["state"].get("runtime")
    return runtime is not None and runtime.draining


class RequestMiddleware:
    """Gives a request its id, its answer the common headers, and a crash its problem document.

    Left to Starlette, an exception would be answered, raised again, and cost the connection.
    """

    def __init__(self, app: ASGIApp, *, gate: Gate) -> None:
        self.app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request on under its id; anything else untouched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = request_id_of(headers)
        # Files are small and sent whole; Starlette would answer a bad Range in plain text.
        scope["headers"] = [header for header in scope["headers"] if header[0] != b"range"]
        scope.setdefault("state", {})["request_id"] = request_id
        answering = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                answering = True
                answered = MutableHeaders(scope=message)
                answered["X-Request-ID"] = request_id
                answered["X-Content-Type-Options"] = "nosniff"
                if _is_draining(scope):  # a kept connection would be cut in its next request
                    answered["Connection"] = "close"
            await send(message)

        try:
            route = self._gate.route_of(scope["method"], scope["path"])
            scope["state"]["route"] = route.path
            scope["state"]["client"] = self._gate.client_of(route.access, headers)
            _refuse_when_full(scope)
            await self.app(scope, receive, send_with_headers)
        except (QueueFullError, ProblemError) as error:
            problem = error if isinstance(error, ProblemError) else full_queue_problem(error)
            scope["state"]["problem"] = problem.code
            response = problem_response(request_id, problem)
            await response(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s failed", request_id, extra={"request_id": request_id})
            if answering:
                raise  # half an answer is out: the server has to close the connection
            response = problem_response(request_id, INTERNAL)
            await response(scope, receive, send_with_headers)
