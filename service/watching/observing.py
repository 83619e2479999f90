"""Around everything: each answer is counted, timed and logged."""

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import CLIENT_GONE_STATUS
from service.gate import UNKNOWN_ROUTE
from service.watching.metrics import Metrics

logger = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every few seconds by balancers, supervisors and collectors: their lines would bury others.
_UNLOGGED = frozenset({"/health", "/livez", "/readyz", "/metrics"})


class ObservingMiddleware:
    """Counts and logs under the route's template; a path that is no route is `other`."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note what became of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = _Seen(scope, receive, send)
        with self._metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, seen.receive, seen.send)
            finally:
                self._note(scope, seen)

    def _note(self, scope: Scope, seen: "_Seen") -> None:
        state: dict[str, Any] = scope["state"]
        route = state.get("route", UNKNOWN_ROUTE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        seconds = time.perf_counter() - seen.started_at
        metrics = self._metrics
        metrics.requests.labels(route, method, str(seen.status)).inc()
        metrics.request_seconds.labels(route, method).observe(seconds)
        if seen.num_bytes:
            metrics.upload_bytes.observe(seen.num_bytes)
        if "problem" in state:
            metrics.note_problem(state["problem"])
        if state.get("has_left"):
            metrics.cancelled.labels(state.get("stage", "receive")).inc()
        if route not in _UNLOGGED:
            _log(scope, seen, seconds)


class _Seen:
    """What passed between a client and the application."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})
        self.started_at = time.perf_counter()
        self.status = CLIENT_GONE_STATUS
        self.num_bytes = 0
        self._receive, self._send = receive, send

    async def receive(self) -> Message:
        """Count the bytes of a body."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.num_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Remember the status."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _log(scope: Scope, seen: _Seen, seconds: float) -> None:
    if not logger.isEnabledFor(logging.INFO):
        return
    # As it was sent, still escaped: no line can be forged. The query may hold what is private.
    path = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")[:256]
    fields = {
        "request_id": scope["state"].get("request_id", ""),
        "method": scope["method"],
        "path": path,
        "status": seen.status,
        "ms": round(seconds * 1000, 1),
        "client": scope["state"].get("client"),
    }
    logger.info("%(method)s %(path)s %(status)s %(ms)s ms %(request_id)s", fields, extra=fields)
