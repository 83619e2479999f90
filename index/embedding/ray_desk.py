"""Where Ray's workers say what they have read, and learn which photos of it are to be embedded.

The process that builds decides; the desk only carries what both say. It stands on that process's
machine.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from index.embedding.messages import Failed, Read

# Each model waits in a call of its own.
_MOST_CALLS = 10_000


class Desk:
    """Runs in a process of Ray; all calls run on one event loop."""

    def __init__(self) -> None:
        self._reads = asyncio.Queue[Read | Failed]()
        self._wanted = dict[int, asyncio.Future[Sequence[bytes]]]()

    async def report(self, read: Read | Failed) -> None:
        """From who has read a block, or cannot; told again when that is done again."""
        self._reads.put_nowait(read)

    async def next_reads(self) -> list[Read | Failed]:
        """To the process that builds: what was reported since, at least one."""
        reads = [await self._reads.get()]
        while not self._reads.empty():
            reads.append(self._reads.get_nowait())
        return reads

    async def want(self, number: int, hashes: Sequence[bytes], *, first_open: int) -> None:
        """From the process that builds: what to embed; nobody asks before `first_open` any more."""
        for done in [one for one in self._wanted if one < first_open]:
            del self._wanted[done]
        self._answer(number).set_result(hashes)

    async def wanted(self, number: int) -> Sequence[bytes]:
        """To who embeds a block: the hashes of the photos that are wanted, once that is known."""
        return await asyncio.shield(self._answer(number))

    def _answer(self, number: int) -> "asyncio.Future[Sequence[bytes]]":
        if number not in self._wanted:
            self._wanted[number] = asyncio.get_running_loop().create_future()
        return self._wanted[number]


def start_desk() -> Any:
    """A desk on this machine, in a process of its own."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(Desk)
    return remote.options(
        num_cpus=0, max_concurrency=_MOST_CALLS, scheduling_strategy=here
    ).remote()
