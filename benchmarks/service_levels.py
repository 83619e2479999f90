"""The service and LitServe under closed loops of ever more clients, in turns."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import Server
from benchmarks.report import Target
from benchmarks.service_bench import Bench, litserve_on
from benchmarks.service_loads import run_load
from benchmarks.service_outcome import Interval, Outcome, joined, rate_ratio

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128)
FEWEST_COMPARED = 8
_SHORTEST_SECONDS = 5.0
# What a slow machine answers in a second: every client has to be answered within a load.
_SLOW_RATE = 13.0
_NOTHING = Interval(float("nan"), float("nan"), float("nan"))


class Level(NamedTuple):
    """One number of clients: ours, and LitServe's where both are compared."""

    num_clients: int
    ours: Outcome
    theirs: Outcome | None

    @property
    def ratio(self) -> Interval:
        """Answers of ours for one of LitServe's."""
        return rate_ratio(self.ours.bursts, self.theirs.bursts) if self.theirs else _NOTHING

    def target(self) -> Target:
        """At least as many answers as LitServe gives."""
        ratio = self.ratio
        interval = f"{ratio.ratio:.2f} [{ratio.lower:.2f}, {ratio.upper:.2f}]"
        name = f"answers/s / LitServe, {self.num_clients} clients, {interval}"
        return Target(name, ratio.ratio, ">=", 1.0)


def compare_with_litserve(bench: Bench, installed: Path | None) -> list[Target]:
    """All levels; without LitServe its targets are missed."""
    with ExitStack() as stack:
        theirs = stack.enter_context(litserve_on(bench, installed)) if installed else None
        levels = list(_printed(_measured(bench, theirs)))
    return [level.target() for level in levels if level.num_clients >= FEWEST_COMPARED]


def _measured(bench: Bench, theirs: Server | None) -> Iterator[Level]:
    for num_clients in LEVELS:
        compared = theirs if num_clients >= FEWEST_COMPARED else None
        yield _level(bench, compared, num_clients)


def _level(bench: Bench, theirs: Server | None, num_clients: int) -> Level:
    """Ours, theirs, theirs, ours: a machine that grows slower does so to both.

    Whoever is not asked is stopped: LitServe polls its queues, which takes 0.18 of a core.
    """
    seconds = float(round(max(_SHORTEST_SECONDS, num_clients / _SLOW_RATE)))

    def ours() -> Outcome:
        return bench.load(seconds=seconds, num_clients=num_clients)

    if theirs is None:
        return Level(num_clients, ours(), None)

    def litserve(server: Server) -> Outcome:
        how = {"seconds": seconds, "num_clients": num_clients, "field": "request"}
        return run_load(server, bench.small, **how)

    with theirs.paused():
        first = ours()
    with bench.ours.paused():
        between = joined(litserve(theirs), litserve(theirs))
    with theirs.paused():
        last = ours()
    return Level(num_clients, joined(first, last), between)


def _printed(levels: Iterator[Level]) -> Iterator[Level]:
    """Both servers, a row a level, as they are measured."""
    print("\n| server | clients | answers/s | refused/s | p50 ms | p95 ms | p99 ms | batch |")
    print("|---|---|---|---|---|---|---|---|")
    for level in levels:
        print(f"| ours | {level.num_clients} | {level.ours.row()} |")
        if level.theirs is not None:
            print(f"| LitServe | {level.num_clients} | {level.theirs.row()} |", flush=True)
        yield level
