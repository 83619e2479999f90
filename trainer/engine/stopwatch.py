"""Where a step's time goes: waiting for data, forward, backward, optimiser."""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch

PARTS = ("forward", "backward", "optimiser")
# Below this share of a step neither an idle device nor a wait for data is worth a word.
_NOTABLE_SHARE = 0.1

Times = Callable[[], dict[str, float]]


class Stopwatch(Protocol):
    """Marks the ends of a step's parts and sums them up over a log interval."""

    def start(self) -> None:
        """Begin a step."""

    def mark(self, part: str) -> None:
        """End a part, which began where the one before ended."""

    def take(self) -> Times:
        """Begin a new interval; return what gives the seconds of each part of the last one."""


def stopwatch_for(device: torch.device) -> Stopwatch:
    """Return the device's kind of stopwatch."""
    return EventStopwatch() if device.type == "cuda" else WallStopwatch()


class WallStopwatch:
    """Wall-clock time: on the CPU a call returns when its work is done."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last = clock()
        self._sums = dict.fromkeys(PARTS, 0.0)

    def start(self) -> None:
        """Begin a step."""
        self._last = self._clock()

    def mark(self, part: str) -> None:
        """End a part, which began where the one before ended."""
        now = self._clock()
        self._sums[part] += now - self._last
        self._last = now

    def take(self) -> Times:
        """Begin a new interval; return what gives the seconds of each part of the last one."""
        sums, self._sums = self._sums, dict.fromkeys(PARTS, 0.0)
        return lambda: sums


class EventStopwatch:
    """Events in the GPU's own queue; they are read when the steps have long been done."""

    def __init__(self) -> None:
        self._steps: list[list[tuple[str, Any]]] = []

    def start(self) -> None:
        """Begin a step."""
        self._steps.append([("", self._event())])

    def mark(self, part: str) -> None:
        """End a part, which began where the one before ended."""
        self._steps[-1].append((part, self._event()))

    def take(self) -> Times:
        """Begin a new interval; return what gives the seconds of each part of the last one."""
        steps, self._steps = self._steps, []

        def times() -> dict[str, float]:
            sums = dict.fromkeys(PARTS, 0.0)
            for marks in steps:
                for (_, begin), (part, end) in pairwise(marks):
                    sums[part] += begin.elapsed_time(end) / 1000
            return sums

        return times

    @staticmethod
    def _event() -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def bottleneck(*, step_seconds: float, wait_seconds: float, device_seconds: float) -> str:
    """Return `data` when the device idles while batches are waited for, else `device`.

    The host of a GPU runs ahead of it, so its wait for a batch alone says nothing.
    """
    notable = _NOTABLE_SHARE * step_seconds
    return "data" if min(wait_seconds, step_seconds - device_seconds) > notable else "device"
