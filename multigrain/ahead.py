"""Work done ahead by threads, its results taken in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int, window: int
) -> Iterator[Result]:
    """Yield function(item) in the order of the items, with at most `window` of them under way.

    An exception of `function` is raised in its turn; work not yet begun is then dropped.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        ahead: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(remaining, window)
        )
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(function, item) for item in islice(remaining, 1))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
