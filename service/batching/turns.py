"""Whose photo is decoded now: on a CPU, decoding and the model take turns."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Turns:
    """Lets work begin first come, first served, while `may_begin` says yes.

    `may_begin` is asked how many have their turn already. It is asked again when a turn ends,
    and on `look`, which whoever changes its answer has to call.
    """

    def __init__(self, may_begin: Callable[[int], bool]) -> None:
        self._may_begin = may_begin
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.num_begun = 0

    @property
    def num_waiting(self) -> int:
        """How many have not had their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold it."""
        await self._begin()
        try:
            yield
        finally:
            self._end()

    def look(self) -> None:
        """Let those begin who may."""
        while self._waiting and self._may_begin(self.num_begun):
            first = self._waiting.popleft()
            if not first.done():
                self.num_begun += 1
                first.set_result(None)

    async def _begin(self) -> None:
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self.look()
        try:
            await mine
        except asyncio.CancelledError:
            if mine in self._waiting:
                self._waiting.remove(mine)
            elif not mine.cancelled():
                self._end()  # its turn had just come
            raise

    def _end(self) -> None:
        self.num_begun -= 1
        # Not now: what this turn was for is about to be queued, and may_begin has to see it.
        asyncio.get_running_loop().call_soon(self.look)
