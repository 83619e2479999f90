"""Generations that are leased and swapped: none is closed while somebody asks it."""

import threading
import time

from service.serving.generations import Generations


class Part:
    """Stands for an opened index: knows whether it was closed, and how often."""

    def __init__(self) -> None:
        self.num_closed = 0

    def close(self) -> None:
        """Count."""
        self.num_closed += 1


def test_generation_that_nobody_holds_closes_at_the_swap() -> None:
    """Without a lease the old one is let go at once, and the new one answers."""
    old, new = Part(), Part()
    generations = Generations(old)
    generations.swap(new)
    with generations.lease() as leased:
        assert leased is new
    assert (old.num_closed, new.num_closed) == (1, 0)


def test_leased_generation_closes_with_its_last_lease() -> None:
    """Who began with the old generation ends with it; two leases are two reasons to stay."""
    old, new = Part(), Part()
    generations = Generations(old)
    with generations.lease() as outer:
        with generations.lease():
            generations.swap(new)
        assert outer is old
        assert old.num_closed == 0
    assert old.num_closed == 1


def test_closing_waits_for_leases_too() -> None:
    """The end of the service takes nothing from under a request that still runs."""
    only = Part()
    generations = Generations(only)
    with generations.lease():
        generations.close()
        assert only.num_closed == 0
    assert only.num_closed == 1


def test_no_thread_ever_holds_a_closed_generation() -> None:
    """Swaps under many leases: each lease is of an open generation, each closes exactly once."""
    parts = [Part() for _ in range(200)]
    generations = Generations(parts[0])
    over = threading.Event()
    held_closed = list[Part]()

    def lease() -> None:
        while not over.is_set():
            with generations.lease() as part:
                time.sleep(0)  # lets a swap come between
                if part.num_closed:
                    held_closed.append(part)

    threads = [threading.Thread(target=lease) for _ in range(4)]
    for thread in threads:
        thread.start()
    for part in parts[1:]:
        generations.swap(part)
        time.sleep(0)
    over.set()
    for thread in threads:
        thread.join(120)
    assert not held_closed
    assert [part.num_closed for part in parts] == [1] * 199 + [0]
