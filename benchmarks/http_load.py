"""A load of photos on a server, from a process of its own: closed or open loop.

    python -m benchmarks.http_load --url http://127.0.0.1:8000/search --photos DIR --clients 8

Closed loop: each client sends its next photo when the last was answered. Open loop (`--rate`):
photos are due at fixed times, whatever was answered, and their latency counts from when they
were due; how late this process itself was is printed beside it. Every photo sent is another file
to the server: a few bytes behind its end differ. Only the standard library is used, so that the
load takes little of the cores it shares with the server. Prints one JSON document.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

BOUNDARY = "photo-boundary"
# Far beyond any deadline of a server: a load must end.
_PATIENCE_SECONDS = 60.0
_REFUSED = 429
# The least that a Retry-After asks for, and as much again by chance: clients that were refused
# together would come back together.
_PAUSE_AFTER_REFUSAL_SECONDS = 1.0


class Target(NamedTuple):
    """Where photos are sent, and the form field they lie in."""

    host: str
    port: int
    path: str
    field: str


class Reply(NamedTuple):
    """One answer: seconds since the load began, seconds it took, status, batch size if told."""

    at: float
    seconds: float
    status: int
    batch_size: int | None


def request_of(target: Target, photo: bytes, serial: int) -> bytes:
    """A multipart request; `serial` makes its photo another file."""
    head = (
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
        f'name="{target.field}"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    ).encode()
    tail = b"%016d\r\n--%s--\r\n" % (serial, BOUNDARY.encode())
    return b"".join(
        (
            f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            f"Content-Length: {len(head) + len(photo) + len(tail)}\r\n\r\n".encode(),
            head,
            photo,
            tail,
        )
    )


class Connection:
    """One keep-alive connection, opened again when the server closes it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._target.host, self._target.port)
        reader, writer = self._streams
        writer.write(request)  # not waited for: a refusal comes before the whole photo is sent
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if "connection: close" in head or length is None:
            self.close()
        return int(head.split(" ", 2)[1]), body

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    """Sends photos and keeps what came back."""

    def __init__(self, target: Target, photos: list[bytes]) -> None:
        self.replies = list[Reply]()
        self.late = list[float]()
        self.num_broken = 0
        self._target = target
        self._photos = itertools.cycle(photos)
        self._serial = itertools.count(time.time_ns())
        self._began = time.perf_counter()

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.perf_counter() - self._began

    async def closed(self, *, num_clients: int, seconds: float) -> None:
        """Each client sends its next photo when the last was answered."""
        await asyncio.gather(*(self._client(seconds) for _ in range(num_clients)))

    async def _client(self, seconds: float) -> None:
        connection = Connection(self._target)
        while self.now < seconds:
            status = await self._send(connection, due=self.now)
            if status == _REFUSED:
                await asyncio.sleep(_PAUSE_AFTER_REFUSAL_SECONDS * (1 + random.random()))  # noqa: S311 - no secret
        connection.close()

    async def open(self, *, rate: float, seconds: float) -> None:
        """A photo is due every 1 / rate seconds."""
        idle = list[Connection]()

        async def send(due: float) -> None:
            self.late.append(self.now - due)
            connection = idle.pop() if idle else Connection(self._target)
            await self._send(connection, due=due)
            idle.append(connection)

        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = number / rate
                await asyncio.sleep(max(0.0, due - self.now))
                group.create_task(send(due))
        for connection in idle:
            connection.close()

    async def _send(self, connection: Connection, *, due: float) -> int | None:
        request = request_of(self._target, next(self._photos), next(self._serial))
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                status, body = await connection.send(request)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.num_broken += 1
            connection.close()
            return None
        told = re.search(rb'"batch_size": ?(\d+)', body)
        self.replies.append(Reply(self.now, self.now - due, status, int(told[1]) if told else None))
        return status


def photos_of(folder: Path) -> Iterator[bytes]:
    """The files of a folder, in the order of their names."""
    return (path.read_bytes() for path in sorted(folder.iterdir()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--field", default="image", help="form field of the photo")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rate", type=float, help="photos a second, in an open loop")
    return parser.parse_args()


def main() -> None:
    """Load a server and print what came back."""
    given = _arguments()
    address = urlsplit(given.url)
    target = Target(address.hostname or "", address.port or 80, address.path, given.field)
    load = Load(target, list(photos_of(given.photos)))
    if given.rate:
        asyncio.run(load.open(rate=given.rate, seconds=given.seconds))
    else:
        asyncio.run(load.closed(num_clients=given.clients, seconds=given.seconds))
    found: dict[str, Any] = {"replies": load.replies, "late": load.late}
    print(json.dumps(found | {"num_broken": load.num_broken}))


if __name__ == "__main__":
    main()
