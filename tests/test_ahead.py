"""Work done ahead by threads comes in order, bounded, and in handfuls where it is small."""

from collections.abc import Callable, Generator, Iterator
from itertools import count

import pytest

from multigrain.ahead import in_order


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so much at each look."""
    looks = count()
    return lambda: next(looks) * seconds


@pytest.mark.parametrize("seconds", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize(("num_threads", "window"), [(1, 1), (2, 5), (3, 40)])
def test_results_come_in_order_and_no_more_than_a_window_is_begun(
    seconds: float, num_threads: int, window: int
) -> None:
    """However long an item takes, and also when the window is smaller than the threads ask for."""
    begun, clock = list[int](), ticking(seconds)

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    done = in_order(work, range(100), num_threads=num_threads, window=window, clock=clock)
    for number, result in enumerate(done):
        assert result == number * number
        assert len(begun) <= number + window
    assert sorted(begun) == list(range(100))


@pytest.mark.parametrize(("seconds", "largest_share"), [(0.0, 0.2), (1.0, 1.0)])
def test_small_items_are_handed_over_by_the_handful(seconds: float, largest_share: float) -> None:
    """And large ones one by one: a handful looks at the clock twice."""
    looks, clock = list[float](), ticking(seconds)

    def look() -> float:
        looks.append(now := clock())
        return now

    assert len(list(in_order(abs, range(600), num_threads=2, window=60, clock=look))) == 600
    share = len(looks) / 2 / 600
    assert share <= largest_share
    assert seconds == 0 or share == 1


def test_an_error_is_raised_in_its_turn() -> None:
    """What comes before it in the same handful is given first."""

    def work(item: int) -> int:
        if item == 50:
            raise ValueError("fifty")
        return item

    taken = list[int]()
    with pytest.raises(ValueError, match="fifty"):
        taken.extend(in_order(work, range(100), num_threads=2, window=30, clock=ticking(0)))
    assert taken == list(range(50))


def test_an_endless_source_is_read_no_further_than_the_window() -> None:
    """The consumer may stop whenever it likes."""
    read = list[int]()

    def source() -> Iterator[int]:
        for item in count():
            read.append(item)
            yield item

    done = in_order(int, source(), num_threads=2, window=6)
    assert isinstance(done, Generator)
    assert [next(done) for _ in range(4)] == [0, 1, 2, 3]
    done.close()
    assert len(read) <= 4 + 6
