"""Collect what the steps report without waiting for the device."""

import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from multigrain.errors import MultiGrainError
from trainer.gather import num_processes, sum_over_processes


class DivergedError(MultiGrainError):
    """A loss that is no number any more."""


class Meter:
    """Means since the last reading; sums stay on the device, so a step never waits for them."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._reset()

    def add(self, parts: Mapping[str, Tensor], *, views: int, waited_seconds: float) -> None:
        """Add a step's scalars, its number of views, and how long its batch was waited for."""
        for name, part in parts.items():
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._steps += 1
        self._views += views
        self._waited += waited_seconds

    def read(self, *, step: int) -> dict[str, float]:
        """Return the means over steps and processes, views a second of all processes, and reset.

        Raises DivergedError, on every process, when a step's loss was not finite.
        """
        if not self._steps:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name].double() for name in names])
        means = (sum_over_processes(stacked) / (self._steps * num_processes())).tolist()
        record = dict(zip(names, means, strict=True))
        seconds = self._clock() - self._start
        record["views_per_second"] = self._views * num_processes() / seconds
        record["data_wait_share"] = self._waited / seconds
        steps = self._steps
        self._reset()
        if not all(map(math.isfinite, means)):
            raise DivergedError(
                f"the loss is not finite between steps {step - steps} and {step}: lower "
                f"--learning-rate, lengthen --warmup, or look at the photos"
            )
        return record

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._views = 0
        self._waited = 0.0
        self._start = self._clock()
