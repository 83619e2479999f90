"""The batcher alone, with a fake model that takes 10 ms a batch."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from service.batching.batch_errors import (
    BatchTooLargeError,
    ClientLimitError,
    DeadlineExceededError,
    EngineDeadError,
    QueueFullError,
)
from service.batching.batch_item import Done
from service.batching.batcher import Batcher

MODEL_SECONDS = 0.010
POISON = -1
Body = Callable[[Batcher[int, int]], Awaitable[None]]


class FakeModel:
    """Doubles numbers in 10 ms whatever their count, and remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, payloads: Sequence[int]) -> list[int]:
        """Run one batch."""
        self.may_go_on.wait(10)
        time.sleep(MODEL_SECONDS)
        self.batches.append(list(payloads))
        if POISON in payloads:
            raise ValueError("poisoned")
        return [2 * payload for payload in payloads]

    @property
    def sizes(self) -> list[int]:
        """How many payloads each batch had."""
        return [len(batch) for batch in self.batches]


def run_with(
    model: Callable[[Sequence[int]], list[int]],
    body: Body,
    *,
    max_queue: int = 128,
    max_wait_seconds: float = 0.004,
    max_of_client: int | None = None,
) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher[int, int](
                model,
                executor=executor,
                max_batch=16,
                max_wait_seconds=max_wait_seconds,
                max_queue=max_queue,
                max_of_client=max_of_client,
            )
            batcher.start()
            await body(batcher)
            await batcher.close()

    asyncio.run(main())


async def ask(batcher: Batcher[int, int], payload: int, *, seconds: float = 5.0) -> Done[int]:
    with batcher.places.take():
        deadline = asyncio.get_running_loop().time() + seconds
        return await batcher.submit(payload, deadline=deadline)


def results_of(answers: Sequence[Done[int] | BaseException]) -> list[int]:
    return [answer.result for answer in answers if isinstance(answer, Done)]


async def ask_all(
    batcher: Batcher[int, int], payloads: Sequence[int]
) -> list[Done[int] | BaseException]:
    return await asyncio.gather(*(ask(batcher, p) for p in payloads), return_exceptions=True)


def test_lone_request_does_not_wait_for_a_batch() -> None:
    """One request runs at once, although the allowed wait is long."""

    async def body(batcher: Batcher[int, int]) -> None:
        started_at = time.perf_counter()
        done = await ask(batcher, 21)
        assert done.result == 42
        assert done.queue_seconds < 0.1
        assert time.perf_counter() - started_at < 0.5

    run_with(FakeModel(), body, max_wait_seconds=5)


def test_sixty_at_once_run_as_full_batches_and_a_rest() -> None:
    """60 simultaneous requests with max_batch 16 are 16, 16, 16 and 12."""
    model = FakeModel()

    async def body(batcher: Batcher[int, int]) -> None:
        answers = await ask_all(batcher, range(60))
        assert results_of(answers) == [2 * n for n in range(60)]

    run_with(model, body)
    assert model.sizes == [16, 16, 16, 12]


def test_batch_waits_for_a_request_that_is_being_decoded() -> None:
    """A queued request waits for one whose photo is still being decoded, and shares its batch."""
    model = FakeModel()

    async def decode_then_ask(batcher: Batcher[int, int]) -> Done[int]:
        with batcher.arriving():
            await asyncio.sleep(0.02)
        return await ask(batcher, 2)

    async def body(batcher: Batcher[int, int]) -> None:
        late = asyncio.create_task(decode_then_ask(batcher))
        await asyncio.sleep(0)
        assert (await ask(batcher, 1)).result == 2
        assert (await late).result == 4

    run_with(model, body, max_wait_seconds=2)
    assert model.sizes == [2]


def test_batch_waits_at_most_max_wait_for_a_slow_decode() -> None:
    """A slow decode holds a queued request back for max_wait, not longer."""

    async def body(batcher: Batcher[int, int]) -> None:
        with batcher.arriving():
            assert (await ask(batcher, 1)).result == 2

    run_with(FakeModel(), body, max_wait_seconds=0.02)


def test_requests_beyond_the_queue_are_refused_with_a_time_to_come_back() -> None:
    """Of 300 requests at once with room for 64, 64 are answered and 236 refused."""

    async def body(batcher: Batcher[int, int]) -> None:
        answers = await ask_all(batcher, range(300))
        refused = [answer for answer in answers if isinstance(answer, QueueFullError)]
        assert len(refused) == 236
        assert {refusal.retry_after_seconds for refusal in refused} == {1}
        assert sum(isinstance(answer, Done) for answer in answers) == 64
        assert batcher.places.num_taken == 0

    run_with(FakeModel(), body, max_queue=64)


def test_retry_after_grows_with_the_queue_and_the_batch_time() -> None:
    """The refusal names the seconds the waiting batches will take, rounded up."""

    async def body(batcher: Batcher[int, int]) -> None:
        batcher.runs.average_seconds = 2.0
        batcher.places.num_taken = 128
        with pytest.raises(QueueFullError) as refused:
            batcher.places.check()
        assert refused.value.retry_after_seconds == 18
        batcher.places.num_taken = 0

    run_with(FakeModel(), body)


def test_poisoned_item_fails_alone() -> None:
    """Of 20 requests the one that breaks its batch gets the error, the others their results."""

    async def body(batcher: Batcher[int, int]) -> None:
        answers = await ask_all(batcher, [*range(10), POISON, *range(10, 19)])
        assert isinstance(answers.pop(10), ValueError)
        assert results_of(answers) == [2 * n for n in range(19)]
        assert batcher.alive

    run_with(FakeModel(), body)


def test_wrong_number_of_results_is_an_error_not_a_shift() -> None:
    """A model that loses a row fails its requests instead of answering them with a neighbour's."""

    async def body(batcher: Batcher[int, int]) -> None:
        answers = await ask_all(batcher, range(3))
        assert all(isinstance(answer, ValueError) for answer in answers)

    run_with(lambda payloads: list(payloads)[1:], body)


def test_cancelled_requests_are_dropped_unrun() -> None:
    """Of 60 requests 30 whose clients leave while they queue are never given to the model."""
    model = FakeModel()

    async def body(batcher: Batcher[int, int]) -> None:
        model.may_go_on.clear()
        tasks = [asyncio.create_task(ask(batcher, n)) for n in range(60)]
        await asyncio.sleep(0.01)  # the first 16 are with the model now
        for task in tasks[30:]:
            task.cancel()
        await asyncio.sleep(0)
        model.may_go_on.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(answer, Done) for answer in answers) == 30

    run_with(model, body)
    assert sorted(n for batch in model.batches for n in batch) == list(range(30))


def test_deadline_holds_while_the_model_hangs() -> None:
    """A request is given up at its deadline, and leaves nothing in the queue."""
    model = FakeModel()

    async def body(batcher: Batcher[int, int]) -> None:
        model.may_go_on.clear()
        running = asyncio.create_task(ask(batcher, 1))
        await asyncio.sleep(0.01)
        with pytest.raises(DeadlineExceededError, match="deadline"):
            await ask(batcher, 2, seconds=0.02)
        assert batcher.num_queued == 0
        assert batcher.runs.running_since is not None
        model.may_go_on.set()
        await running

    run_with(model, body)
    assert model.batches == [[1]]


def test_close_runs_what_is_queued_then_refuses() -> None:
    """Closing answers everyone who waits, and nobody who comes later."""

    async def body(batcher: Batcher[int, int]) -> None:
        tasks = [asyncio.create_task(ask(batcher, n)) for n in range(40)]
        await asyncio.sleep(0)
        await batcher.close()
        assert [task.result().result for task in tasks] == [2 * n for n in range(40)]
        with pytest.raises(EngineDeadError):
            await ask(batcher, 1)

    run_with(FakeModel(), body)


def test_end_of_the_dispatcher_fails_whoever_waits() -> None:
    """Should batches no longer be run, waiting and later requests are told so at once."""

    async def body(batcher: Batcher[int, int]) -> None:
        waiting = asyncio.create_task(ask(batcher, 1))
        assert batcher._dispatcher is not None
        batcher._dispatcher.cancel()
        with pytest.raises(EngineDeadError):
            await waiting
        assert not batcher.alive
        with pytest.raises(EngineDeadError):
            await ask(batcher, 2)

    run_with(FakeModel(), body)


def test_failures_in_a_row_are_counted_and_a_success_forgets_them() -> None:
    """Health can see a model that always fails, and its recovery."""

    async def body(batcher: Batcher[int, int]) -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="poisoned"):
                await ask(batcher, POISON)
        assert batcher.runs.num_failed_in_row == 3
        await ask(batcher, 1)
        assert batcher.runs.num_failed_in_row == 0

    run_with(FakeModel(), body)


def test_short_memory_halves_the_batches_for_a_while() -> None:
    """A batch the device has no room for runs in halves, and the next ones are smaller at once."""
    sizes = list[int]()

    def small_device(payloads: Sequence[int]) -> list[int]:
        sizes.append(len(payloads))
        if len(payloads) > 5:
            raise BatchTooLargeError("no memory")
        return list(payloads)

    async def body(batcher: Batcher[int, int]) -> None:
        assert results_of(await ask_all(batcher, range(16))) == list(range(16))
        assert sizes == [16, 8, 4, 4, 8, 4, 4]
        assert batcher.runs.limit == 4
        assert results_of(await ask_all(batcher, range(8))) == list(range(8))
        assert sizes[7:] == [4, 4]
        batcher.runs._smaller_until = 0.0
        assert batcher.runs.limit == 16

    run_with(small_device, body)


def test_lone_request_without_memory_is_tried_once_more() -> None:
    """What the device had cached may have been all that was missing."""
    num_tried = 0

    def forgetful_device(payloads: Sequence[int]) -> list[int]:
        nonlocal num_tried
        num_tried += 1
        if num_tried in {1, 3, 4}:
            raise BatchTooLargeError("no memory")
        return list(payloads)

    async def body(batcher: Batcher[int, int]) -> None:
        assert (await ask(batcher, 7)).result == 7
        with pytest.raises(BatchTooLargeError):
            await ask(batcher, 8)
        assert batcher.alive

    run_with(forgetful_device, body)


def test_device_that_is_lost_ends_the_batcher_and_answers_everyone() -> None:
    """After an error no call survives, the batch and the queue behind it are told so at once."""
    model = FakeModel()

    def lost_device(payloads: Sequence[int]) -> list[int]:
        model(payloads)
        raise EngineDeadError("lost")

    async def body(batcher: Batcher[int, int]) -> None:
        answers = await ask_all(batcher, range(40))
        assert {type(answer) for answer in answers} == {EngineDeadError}
        assert not batcher.alive

    run_with(lost_device, body)
    assert model.sizes == [16]


def test_one_client_may_have_only_its_share_of_the_places() -> None:
    """Beyond its share a client is refused while others, and those without a name, are not."""

    async def body(batcher: Batcher[int, int]) -> None:
        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(batcher.places.take("greedy"))
            with pytest.raises(ClientLimitError, match="3 requests"):
                batcher.places.check("greedy")
            held.enter_context(batcher.places.take("modest"))
            for _ in range(4):
                held.enter_context(batcher.places.take())
        batcher.places.check("greedy")

    run_with(FakeModel(), body, max_of_client=3)


def test_item_whose_deadline_has_passed_is_not_run() -> None:
    """A request that was late when its turn came costs no inference."""
    model = FakeModel()

    async def body(batcher: Batcher[int, int]) -> None:
        with pytest.raises(DeadlineExceededError):
            await ask(batcher, 1, seconds=-1)
        assert (await ask(batcher, 2)).result == 4

    run_with(model, body)
    assert model.batches == [[2]]


def test_background_takes_only_the_places_that_are_left() -> None:
    """However early it came, it runs behind those somebody waits for, and beside the last."""
    model = FakeModel()

    async def ask_in_background(batcher: Batcher[int, int], payload: int) -> int:
        deadline = asyncio.get_running_loop().time() + 5
        return (await batcher.submit(payload, deadline=deadline, background=True)).result

    async def body(batcher: Batcher[int, int]) -> None:
        model.may_go_on.clear()
        first = asyncio.create_task(ask(batcher, 0))
        await asyncio.sleep(0.01)  # it is with the model now
        behind = [asyncio.create_task(ask_in_background(batcher, n)) for n in range(100, 103)]
        await asyncio.sleep(0)
        asked = [asyncio.create_task(ask(batcher, n)) for n in range(1, 19)]
        await asyncio.sleep(0)
        behind[2].cancel()
        await asyncio.sleep(0)
        assert batcher.num_queued == 20
        model.may_go_on.set()
        await asyncio.gather(first, *asked)
        assert await asyncio.gather(*behind[:2]) == [200, 202]

    run_with(model, body)
    assert model.batches == [[0], list(range(1, 17)), [17, 18, 100, 101]]
