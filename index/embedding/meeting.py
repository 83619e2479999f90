"""How the processes of a build find each other: an address in torchrun's store, then connections.

On one machine they listen on the loopback alone. Whoever connects must know a key that stands in
the store, as whoever knows the store may take part in what torchrun starts.
"""

import os
import queue
import secrets
import socket
import struct
import threading
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

# TCPStore is documented there, and yet not among what it exports.
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from index.embedding.messages import Hello
from index.embedding.place import Place
from index.errors import WorkerError

_LOOPBACK, _EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 - only where there are more machines
_ALIVE_AFTER_SECONDS, _ALIVE_EVERY_SECONDS, _ALIVE_TRIES = 60, 20, 6
_KEY_BYTES = 32
_MOST_CALLERS = 100_000


class Meeting:
    """Where the first process waits for the others."""

    def __init__(self, place: Place, *, timeout_seconds: float) -> None:
        self._timeout_seconds, self._is_closed = timeout_seconds, False
        key = secrets.token_bytes(_KEY_BYTES)
        host = _LOOPBACK if place.is_one_machine else _EVERYWHERE
        self._listener = Listener((host, 0), family="AF_INET", backlog=place.world, authkey=key)
        self._store = _store(place, timeout_seconds=timeout_seconds)
        port = self._listener.address[1]
        self._store.set(_entry(place), f"{port} {key.hex()}")
        self._arrived = queue.SimpleQueue[tuple[Hello, Connection]]()
        threading.Thread(target=self._accept, daemon=True).start()

    def next(self) -> tuple[Hello, Connection]:
        """Who came next, and how to reach them; raises queue.Empty after waiting in vain."""
        return self._arrived.get(timeout=self._timeout_seconds)

    def _accept(self) -> None:
        for _ in range(_MOST_CALLERS):
            try:
                connection = self._listener.accept()
                _bound(connection, seconds=self._timeout_seconds)
                self._arrived.put((connection.recv(), connection))
            except (AuthenticationError, EOFError, OSError):
                if self._is_closed:
                    return
                # Else a stranger, or one who left again.

    def close(self) -> None:
        """Let nobody else in."""
        self._is_closed = True
        self._listener.close()


def join(place: Place, *, timeout_seconds: float) -> Connection:
    """Connect to the first process; raises WorkerError where it is not found."""
    try:
        store = _store(place, timeout_seconds=timeout_seconds)
        port, key = store.get(_entry(place)).decode().split()
        host = _LOOPBACK if place.is_one_machine else place.meeting[0]
        connection = Client((host, int(port)), family="AF_INET", authkey=bytes.fromhex(key))
        connection.send(Hello(place.rank, socket.gethostname()))
    except (OSError, EOFError, AuthenticationError, DistError) as error:
        raise WorkerError(f"process {place.rank} does not find the first one: {error}") from error
    _bound(connection, seconds=None)
    return connection


def _store(place: Place, *, timeout_seconds: float) -> TCPStore:
    host, port = place.meeting
    try:
        return TCPStore(
            host,
            port,
            place.world,
            is_master=place.is_first and not place.is_met_by_agent,
            timeout=timedelta(seconds=timeout_seconds),
            wait_for_workers=False,
        )
    except DistError as error:
        raise WorkerError(f"torchrun's store at {host}:{port} is not found: {error}") from error


def _entry(place: Place) -> str:
    return f"multigrain/index.build/{place.attempt}"


def _bound(connection: Connection, *, seconds: float | None) -> None:
    """Let the system notice a machine that vanished, and no transfer take longer than this."""
    with socket.socket(fileno=os.dup(connection.fileno())) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ALIVE_AFTER_SECONDS)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ALIVE_EVERY_SECONDS)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ALIVE_TRIES)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if seconds is not None:
            limit = struct.pack("ll", int(seconds), 0)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
