"""The model is tested when nothing else shows that it works; errors of a device are told apart."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from service.batching.batch_errors import BatchTooLargeError, EngineDeadError
from service.batching.batcher import Batcher
from service.batching.device_errors import translated
from service.batching.watchdog import MAX_FAILED_TESTS, Watchdog

Body = Callable[[Batcher[int, int], Watchdog], Awaitable[None]]


class FakeTest:
    """A test of the model that passes or fails as it is told, and counts."""

    def __init__(self) -> None:
        self.num_run = 0
        self.fails = False
        self.seconds = 0.0

    def __call__(self) -> None:
        """Pass or fail."""
        self.num_run += 1
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("not a number")


def double(payloads: Sequence[int]) -> list[int]:
    if -1 in payloads:
        raise ValueError("bad photo")
    return [2 * payload for payload in payloads]


def run_with(test: FakeTest, body: Body, *, idle_seconds: float) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher[int, int](
                double, executor=executor, max_batch=4, max_wait_seconds=0, max_queue=8
            )
            batcher.start()
            watchdog = Watchdog(
                batcher, test, executor=executor, idle_seconds=idle_seconds, every_seconds=0.005
            )
            watching = asyncio.create_task(watchdog.run())
            try:
                await body(batcher, watchdog)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await batcher.close()

    asyncio.run(main())


async def ask(batcher: Batcher[int, int], payload: int) -> int:
    deadline = asyncio.get_running_loop().time() + 5
    return (await batcher.submit(payload, deadline=deadline)).result


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2500):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come true")


def test_idle_model_is_tested_again_and_again() -> None:
    """Without requests the test shows whether a request would be answered."""
    test = FakeTest()

    async def body(_batcher: Batcher[int, int], watchdog: Watchdog) -> None:
        await until(lambda: test.num_run >= 2)
        assert watchdog.is_content

    run_with(test, body, idle_seconds=0.01)


def test_busy_model_is_not_tested() -> None:
    """Answers are proof enough."""
    test = FakeTest()

    async def body(batcher: Batcher[int, int], _watchdog: Watchdog) -> None:
        until_then = time.monotonic() + 0.3
        while time.monotonic() < until_then:
            await ask(batcher, 1)
            await asyncio.sleep(0.002)
        assert test.num_run == 0

    run_with(test, body, idle_seconds=0.25)


def test_requests_that_keep_failing_have_the_model_tested() -> None:
    """A sound model passes, and the failures are forgotten."""
    test = FakeTest()

    async def body(batcher: Batcher[int, int], watchdog: Watchdog) -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="bad photo"):
                await ask(batcher, -1)
        await until(lambda: batcher.runs.num_failed_in_row == 0)
        assert (test.num_run, watchdog.is_content) == (1, True)

    run_with(test, body, idle_seconds=100)


def test_model_that_fails_once_is_well_again() -> None:
    """One failed test shows in the health until the next one passes."""
    test = FakeTest()
    test.fails = True

    async def body(_batcher: Batcher[int, int], watchdog: Watchdog) -> None:
        await until(lambda: not watchdog.is_content)
        test.fails = False
        await until(lambda: watchdog.is_content)

    run_with(test, body, idle_seconds=0.01)


def test_model_that_keeps_failing_its_test_is_given_up() -> None:
    """Only a restart is believed to help then."""
    test = FakeTest()
    test.fails = True

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher[int, int](
                double, executor=executor, max_batch=4, max_wait_seconds=0, max_queue=8
            )
            batcher.start()
            watchdog = Watchdog(
                batcher, test, executor=executor, idle_seconds=0, every_seconds=0.001
            )
            with pytest.raises(EngineDeadError, match="failed its test 3 times"):
                await watchdog.run()
            await batcher.close()

    asyncio.run(main())
    assert test.num_run == MAX_FAILED_TESTS


def test_end_of_the_batcher_is_noticed() -> None:
    """A service whose batches are no longer run must not go on."""

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher[int, int](
                double, executor=executor, max_batch=4, max_wait_seconds=0, max_queue=8
            )
            batcher.start()
            await batcher.close()
            watchdog = Watchdog(batcher, FakeTest(), executor=executor, every_seconds=0.001)
            with pytest.raises(EngineDeadError, match="no longer run"):
                await watchdog.run()

    asyncio.run(main())


def test_test_that_hangs_is_seen() -> None:
    """A test under way has a beginning, by which a hanging one is told."""
    test = FakeTest()
    test.seconds = 0.1

    async def body(_batcher: Batcher[int, int], watchdog: Watchdog) -> None:
        await until(lambda: watchdog.testing_since is not None)
        await until(lambda: watchdog.testing_since is None)

    run_with(test, body, idle_seconds=0.01)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), BatchTooLargeError),
        (RuntimeError("CUDA error: device-side assert triggered"), EngineDeadError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), EngineDeadError),
        (RuntimeError("shapes do not fit"), RuntimeError),
        (ValueError("bad"), ValueError),
    ],
)
def test_errors_of_the_device_say_what_to_do(
    raised: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short memory asks for smaller batches and gives back the cache; a lost device is an end."""
    num_emptied = 0

    def empty() -> None:
        nonlocal num_emptied
        num_emptied += 1

    def fail(_payloads: Sequence[int]) -> Sequence[int]:
        raise raised

    monkeypatch.setattr(torch.cuda, "empty_cache", empty)
    with pytest.raises(expected) as caught:
        translated(fail)([1, 2])
    assert type(caught.value) is expected
    assert num_emptied == (expected is BatchTooLargeError)
