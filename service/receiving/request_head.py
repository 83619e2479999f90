"""The head of a request, its line and headers, bounded in size and time.

uvicorn bounds neither: a client that never ends its headers would hold memory, or a connection,
for as long as it likes.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 2**10
HEAD_TIMEOUT_SECONDS = 15.0
LINGER_SECONDS, LINGER_BYTES = 2.0, 8 * 2**20


class BoundedHeadProtocol(HttpToolsProtocol):
    """Gives up a connection whose request has no end of head in time or in size."""

    head_timeout_seconds = HEAD_TIMEOUT_SECONDS

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._in_head = self._has_just_begun = self._is_refused = False
        self._num_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Count the head of another request."""
        self._in_head = self._has_just_begun = True
        self._num_bytes = 0
        if self._timer is None:
            self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head has ended; its body has bounds of its own."""
        self._in_head = False
        self._wait_no_more()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse a head that goes on after that many bytes.

        Those a head has begun in are not counted: before it the last of a body may have come.
        """
        if self._is_refused:
            self._num_bytes += len(data)
            if self._num_bytes > LINGER_BYTES:
                self.transport.close()
            return
        self._has_just_begun = False
        super().data_received(data)
        is_going_on = self._in_head and not self._has_just_begun
        if is_going_on and not self._is_ending():
            self._num_bytes += len(data)
            if self._num_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"The headers have more than {MAX_HEAD_BYTES} bytes.")

    def send_400_response(self, msg: str) -> None:
        """Answer with 400, and close when the client stops sending, after 2 s or after 8 MiB.

        To close on bytes that were not read resets the connection, and the answer is lost.
        """
        self._wait_no_more()
        lines = [
            "HTTP/1.1 400 Bad Request",
            "content-type: text/plain; charset=utf-8",
            f"content-length: {len(msg)}",
            "connection: close",
        ]
        self.transport.write("\r\n".join([*lines, "", msg]).encode("ascii"))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._is_refused, self._num_bytes = True, 0
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _is_ending(self) -> bool:
        return self._is_refused or self.transport.is_closing()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.head_timeout_seconds, self._give_up)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._in_head and not self._is_ending():
            self.send_400_response("The headers did not arrive in time.")
        else:
            self.transport.close()
