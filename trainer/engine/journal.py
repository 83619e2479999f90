"""Log lines of a run: what the steps report, read late enough that no step waits for it."""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.engine.course import Course
from trainer.engine.guard import Guard
from trainer.engine.logbook import Logbook
from trainer.engine.meter import Meter, Reading, reading
from trainer.engine.schedule import rate_at
from trainer.engine.stopwatch import PARTS, Stopwatch, Times, bottleneck
from trainer.losses.objective import Losses, Objective

_MEGABYTE = 1 << 20
_REACHED = "reached"


class Pending(NamedTuple):
    """A record whose means are on their way from the device."""

    facts: dict[str, Any]
    means: Reading
    times: Times


class Journal:
    """Gathers a log interval's sums and times, and writes a record of them.

    On a GPU (`late`) a record is written when the next one is due, by when it has long reached
    the host. `logbook` is None on all processes but the first.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        course: Course,
        guard: Guard,
        stopwatch: Stopwatch,
        logbook: Logbook | None,
        photos_of: Callable[[int], Iterable[str]],
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.logbook = logbook
        self.late = device.type == "cuda"
        self._objective = objective
        self._course = course
        self._guard = guard
        self._stopwatch = stopwatch
        self._photos_of = photos_of
        self._device = device
        self._clock = clock
        self._meter = Meter()
        self._pending: Pending | None = None
        self._begin(num_steps=0, seconds=0.0, waited=0.0)

    def _begin(self, *, num_steps: int, seconds: float, waited: float) -> None:
        self._num_steps = num_steps
        self._since = self._clock() - seconds
        self._waited = waited

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the block's time out of the interval: validations, and copies for checkpoints."""
        started = self._clock()
        try:
            yield
        finally:
            self._since += self._clock() - started

    def waited(self, seconds: float) -> None:
        """Add how long a batch was waited for."""
        self._waited += seconds

    def note(self, losses: Losses, *, step: int, skipped: Tensor) -> None:
        """Take in what a step reports, `step` steps being done; write a record when one is due.

        Raises DivergedError, on every process, when too many steps in a row were skipped.
        """
        self._meter.add(losses.parts, skipped=skipped)
        self._num_steps += 1
        if not self.late:
            self._guard.check(int(self._guard.reached), self._photos_of)
        if self._course.logs_after(step):
            self._close_interval(step)

    def settle(self) -> None:
        """Write the record that is still under way; on a GPU this waits for the device."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._write(pending)

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Write a validation's scores, after the records before it."""
        self.settle()
        if self.logbook is not None:
            place = {"step": step, "epoch": self._course.epochs_at(step)}
            self.logbook.write(place | dict(scores))

    def note_of(self, step: int) -> str:
        """Return what stands behind the progress: place, and the last record's loss and limit."""
        last = "" if self.logbook is None else self.logbook.last
        return f"epoch {self._course.epochs_at(step):.1f}" + (f" ({last})" if last else "")

    def close(self) -> None:
        """Close the files of the logbook."""
        if self.logbook is not None:
            self.logbook.close()

    def _close_interval(self, step: int) -> None:
        learned = {_REACHED: self._guard.reached}
        if (exponent := self._objective.model.pool.p) is not None:
            learned["p"] = exponent
        if self._objective.uses_margin:
            learned["beta"] = self._objective.beta
        means = self._meter.read(num_steps=self._num_steps, now=learned)
        seconds, waited = self._clock() - self._since, self._waited
        facts = self._facts(step, seconds=seconds, waited=waited)
        before, self._pending = self._pending, Pending(facts, means, self._stopwatch.take())
        self._begin(num_steps=0, seconds=0.0, waited=0.0)
        if before is not None:
            self._write(before)
        if not self.late:
            self.settle()

    def _facts(self, step: int, *, seconds: float, waited: float) -> dict[str, Any]:
        course = self._course
        rate = rate_at(course.fraction_at(step - 1), course.rates)
        return {
            "step": step,
            "epoch": course.epochs_at(step),
            "images": step * course.views_per_step,
            "learning_rate": course.learning_rate * rate,
            "views_per_second": self._num_steps * course.views_per_step / seconds,
            "step_seconds": seconds / self._num_steps,
            "data_wait_seconds": waited / self._num_steps,
            "memory_megabytes": peak_memory(self._device) // _MEGABYTE,
            "num_steps": self._num_steps,
        }

    def _write(self, pending: Pending) -> None:
        means = pending.means.values()
        facts = dict(pending.facts)
        num_steps = facts.pop("num_steps")
        times = {
            f"{part}_seconds": seconds / num_steps for part, seconds in pending.times().items()
        }
        self._guard.check(int(means.pop(_REACHED)), self._photos_of)
        limit = bottleneck(
            step_seconds=facts["step_seconds"],
            wait_seconds=facts["data_wait_seconds"],
            device_seconds=sum(times.values()),
        )
        if self.logbook is not None:
            self.logbook.write(facts | means | times | {"bottleneck": limit})

    def state(self) -> dict[str, Any]:
        """Return the interval that is not over, the record under way, and the lines written.

        Every process calls it: the sums of all are in it.
        """
        pending = self._pending
        return {
            "meter": self._meter.state(),
            "num_steps": self._num_steps,
            "seconds": self._clock() - self._since,
            "waited": self._waited,
            "num_lines": 0 if self.logbook is None else self.logbook.num_lines,
            "pending": None
            if pending is None
            else {
                "facts": pending.facts,
                "names": list(pending.means.names),
                "means": pending.means.device,
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up an interrupted run's interval; its times go on from where they were."""
        self._meter.restore(state["meter"], self._device)
        self._begin(num_steps=state["num_steps"], seconds=state["seconds"], waited=state["waited"])
        if (pending := state["pending"]) is not None:
            values = pending["means"].clone()
            values[pending["names"].index(_REACHED)] = -1  # as the guard's own, see its restore
            means = reading(tuple(pending["names"]), values.to(self._device))
            self._pending = Pending(pending["facts"], means, lambda: dict.fromkeys(PARTS, 0.0))

    def start(self, *, num_lines: int, step: int) -> None:
        """Open the logbook behind the lines written before `step`."""
        if self.logbook is not None:
            self.logbook.start(num_lines, step=step)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most the GPU's tensors have taken, or this process has on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
