"""Connections to a read-only catalog that stay open from one question to the next."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine


class Connections:
    """As many as there ever were callers at once; each is lent to one of them at a time.

    They belong to no thread, so that none is left when a thread ends; a child process opens its
    own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._process = engine, os.getpid()
        self._idle = deque[Connection]()
        self._is_closed = False

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection for a question; one whose question fails is not lent again."""
        if self._process != os.getpid():
            # Parent and child would move one another's place in the file.
            self._process = os.getpid()
            self._close_idle()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        if self._is_closed:
            self._close_idle()

    def close(self) -> None:
        """Close all that are not lent, and the others as they come back."""
        self._is_closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        try:
            while True:
                self._idle.pop().close()
        except IndexError:
            self._engine.dispose()
