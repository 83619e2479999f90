"""Decoding and the model take turns where they share the cores."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.batching.batch_errors import EngineDeadError
from service.batching.batcher import Batcher
from service.batching.turns import Turns

MAX_BATCH = 4
Body = Callable[[Batcher[int, int], "HeldModel"], Awaitable[None]]


class HeldModel:
    """Returns what it is given once it may, and remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.sizes = list[int]()
        self.may_go_on = threading.Event()
        self.is_lost = False

    def __call__(self, payloads: Sequence[int]) -> list[int]:
        """Run one batch."""
        self.may_go_on.wait(10)
        if self.is_lost:
            raise EngineDeadError("lost")
        self.sizes.append(len(payloads))
        return list(payloads)


def run_with(body: Body, *, decode_between: bool = True) -> HeldModel:
    model = HeldModel()

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher[int, int](
                model,
                executor=executor,
                max_batch=MAX_BATCH,
                max_wait_seconds=5,
                max_queue=64,
                decode_between=decode_between,
            )
            batcher.start()
            await body(batcher, model)
            model.may_go_on.set()
            await batcher.close()

    asyncio.run(main())
    return model


async def ask(batcher: Batcher[int, int], payload: int) -> int:
    deadline = asyncio.get_running_loop().time() + 5
    return (await batcher.submit(payload, deadline=deadline)).result


async def decode_and_ask(batcher: Batcher[int, int], payload: int, decoded: list[int]) -> int:
    """What a request with a photo does."""
    with batcher.arriving():
        async with batcher.turns.turn():
            decoded.append(payload)
            await asyncio.sleep(0.001)
    return await ask(batcher, payload)


def test_no_photo_is_decoded_while_a_batch_runs() -> None:
    """The next batch's photos are decoded when the one before has ended, and share a batch."""

    async def body(batcher: Batcher[int, int], model: HeldModel) -> None:
        decoded = list[int]()
        running = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.01)
        behind = [asyncio.create_task(decode_and_ask(batcher, n, decoded)) for n in (1, 2, 3)]
        await asyncio.sleep(0.02)
        assert decoded == []
        assert (batcher.num_queued, batcher.num_arriving) == (3, 0)
        model.may_go_on.set()
        assert await asyncio.gather(running, *behind) == [0, 1, 2, 3]

    assert run_with(body).sizes == [1, 3]


def test_photos_are_decoded_beside_what_follows_the_model() -> None:
    """A batch that says it computes no more lets the next one's photos be decoded."""

    async def body(batcher: Batcher[int, int], model: HeldModel) -> None:
        decoded = list[int]()
        running = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.01)
        behind = [asyncio.create_task(decode_and_ask(batcher, n, decoded)) for n in range(1, 7)]
        await asyncio.sleep(0.01)
        assert decoded == []
        await asyncio.to_thread(batcher.note_computed)
        await asyncio.sleep(0.02)
        assert decoded == [1, 2, 3, 4]  # as many as the next batch takes
        assert not running.done()
        model.may_go_on.set()
        assert await asyncio.gather(running, *behind) == list(range(7))

    assert run_with(body).sizes == [1, 4, 2]


def test_no_more_photos_are_decoded_than_the_next_batch_takes() -> None:
    """Of ten photos four are decoded, then their batch runs; the rest are decoded after it."""

    async def body(batcher: Batcher[int, int], model: HeldModel) -> None:
        decoded = list[int]()
        asked = [asyncio.create_task(decode_and_ask(batcher, n, decoded)) for n in range(10)]
        await asyncio.sleep(0.02)
        assert decoded == [0, 1, 2, 3]
        model.may_go_on.set()
        assert await asyncio.gather(*asked) == list(range(10))

    assert run_with(body).sizes == [4, 4, 2]


def test_photos_are_decoded_beside_a_batch_where_the_model_has_a_device_of_its_own() -> None:
    """Without turns nothing waits for the batch that runs."""

    async def body(batcher: Batcher[int, int], model: HeldModel) -> None:
        decoded = list[int]()
        running = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.01)
        behind = asyncio.create_task(decode_and_ask(batcher, 1, decoded))
        await asyncio.sleep(0.01)
        assert decoded == [1]
        model.may_go_on.set()
        assert await asyncio.gather(running, behind) == [0, 1]

    run_with(body, decode_between=False)


def test_photo_whose_client_has_gone_gives_its_turn_away() -> None:
    """Whoever leaves while it waits, or as its turn comes, keeps no other from it."""

    async def main() -> None:
        is_open = False
        turns = Turns(lambda num_begun: is_open and num_begun < 1)
        begun = list[int]()

        async def work(number: int) -> None:
            async with turns.turn():
                begun.append(number)

        tasks = [asyncio.create_task(work(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # while it waits
        await asyncio.sleep(0)
        is_open = True
        turns.look()
        tasks[1].cancel()  # its turn has come, but it does not know yet
        await asyncio.gather(*tasks, return_exceptions=True)
        assert begun == [2, 3]
        await asyncio.sleep(0)
        assert turns.num_begun == 0

    asyncio.run(main())


def test_photo_that_waits_for_its_turn_hears_that_the_model_has_stopped() -> None:
    """When batches are no longer run nobody waits for the end of one."""

    async def body(batcher: Batcher[int, int], model: HeldModel) -> None:
        running = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.01)
        behind = asyncio.create_task(decode_and_ask(batcher, 1, []))
        await asyncio.sleep(0)
        model.is_lost = True
        model.may_go_on.set()
        for task in (running, behind):
            with pytest.raises(EngineDeadError):
                await asyncio.wait_for(task, 30)

    run_with(body)
