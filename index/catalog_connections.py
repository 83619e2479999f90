"""Connections to a read-only catalog that stay open from one question to the next."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from index.catalog_dialects import SQLITE

T = TypeVar("T")


class Connections:
    """As many as there ever were callers at once; each is lent to one of them at a time.

    They belong to no thread, so that none is left when a thread ends; a child process opens its
    own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._process = engine, os.getpid()
        self._idle, self._of_parent = deque[Connection](), deque[Connection]()
        self._is_closed = False

    def asked(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question, asked once more where the connection had been lost.

        A database that was started again has lost all of them. One whose question fails is not
        lent again.
        """
        try:
            with self._lent() as connection:
                return question(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        self._close_idle()
        with self._lent() as connection:
            return question(connection)

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._leave_to_parent()
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

    def _leave_to_parent(self) -> None:
        """Let a child process go without the connections it was forked with.

        Parent and child would move one another's place in a file. What is closed of a server's
        here, ends there: such a connection is only forgotten.
        """
        if self._engine.dialect.name == SQLITE:
            self._close_idle()
        else:
            # Kept: its end would be the parent's connection's end.
            self._of_parent, self._idle = self._idle, deque()
            self._engine.dispose(close=False)

    def _close_idle(self) -> None:
        try:
            while True:
                self._idle.pop().close()
        except IndexError:
            self._engine.dispose()
