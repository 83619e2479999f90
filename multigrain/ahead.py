"""Work done ahead by threads, its results taken in order."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A thread is handed as many items as it does in about this time: handing over costs a tenth of a
# millisecond, more than a small item takes; large ones still go one by one.
_HANDFUL_SECONDS = 4e-3
_LEAST_SECONDS = 1e-9


class _Handful(NamedTuple, Generic[Result]):
    """The results of some items, what the item behind them raised, and seconds an item."""

    results: list[Result]
    error: BaseException | None
    seconds: float


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_threads: int,
    window: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Result]:
    """Yield function(item) in the order of the items, with at most `window` of them under way.

    An exception of `function` is raised in its turn; work not yet begun is then dropped.
    """
    remaining, num_under_way, size = iter(items), 0, 1
    # Each thread has a handful while the results of another are taken.
    largest = max(1, window // (num_threads + 1))
    ahead = deque[tuple[int, Future[_Handful[Result]]]]()
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        try:
            while True:
                while num_under_way + size <= window and (some := list(islice(remaining, size))):
                    ahead.append((len(some), pool.submit(_done, function, some, clock)))
                    num_under_way += len(some)
                if not ahead:
                    return
                num_taken, future = ahead.popleft()
                handful = future.result()
                yield from handful.results
                if handful.error is not None:
                    raise handful.error
                num_under_way -= num_taken
                size = max(1, min(largest, int(_HANDFUL_SECONDS / handful.seconds)))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _done(
    function: Callable[[Item], Result], items: list[Item], clock: Callable[[], float]
) -> _Handful[Result]:
    start, results, error = clock(), list[Result](), None
    try:
        for item in items:
            results.append(function(item))
    except BaseException as raised:  # noqa: BLE001 - raised again by who takes the results
        error = raised
    seconds = (clock() - start) / len(items)
    return _Handful(results, error, max(seconds, _LEAST_SECONDS))
