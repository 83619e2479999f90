"""Collect what the steps report without waiting for the device."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.losses.gather import gather_batch, num_processes, process_rank, sum_over_processes


class Reading(NamedTuple):
    """Means of a log interval on their way to the host.

    `device` are the values where they were computed, `host` a copy that is complete once `copied`
    is; on the CPU both are at once.
    """

    names: tuple[str, ...]
    device: Tensor  # float64 [len(names)]
    host: Tensor
    copied: torch.cuda.Event | None

    def values(self) -> dict[str, float]:
        """Return the means by name, waiting for the copy if it is still under way."""
        if self.copied is not None:
            self.copied.synchronize()
        return dict(zip(self.names, self.host.tolist(), strict=True))


class Meter:
    """Sums over the steps of a log interval, on the device; a skipped step counts for nothing."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums = torch.empty(0)

    def add(self, parts: Mapping[str, Tensor], *, skipped: Tensor) -> None:
        """Add a step's scalars; `skipped` is 1 when they are no numbers, else 0."""
        names = tuple(sorted(parts))
        values = torch.stack([*(parts[name].float() for name in names), skipped]).double()
        values[:-1] = values[:-1].where(skipped == 0, 0.0)
        if names != self._names:
            self._names, self._sums = names, torch.zeros_like(values)
        self._sums += values

    def read(self, *, num_steps: int, now: Mapping[str, Tensor]) -> Reading:
        """Return the means of the last `num_steps` steps over all processes, and begin anew.

        `skipped_steps` is their number. `now` are scalars that are read as they stand.
        """
        sums = sum_over_processes(self._sums) / num_processes()
        means = sums[:-1] / (num_steps - sums[-1])
        current = [now[name].detach().double().to(sums.device) for name in sorted(now)]
        values = torch.cat([means, sums[-1:], *(value.reshape(1) for value in current)])
        self._sums = torch.zeros_like(self._sums)
        return reading((*self._names, "skipped_steps", *sorted(now)), values)

    def state(self) -> dict[str, Any]:
        """Return the sums of an interval that is not over: [W, parts], a row for each process."""
        return {"names": list(self._names), "sums": gather_batch(self._sums[None])}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take up the sums of an interval that was interrupted.

        Another number of processes shares them out evenly.
        """
        self._names = tuple(state["names"])
        rows = state["sums"].to(device)
        same = len(rows) == num_processes()
        self._sums = (rows[process_rank()] if same else rows.mean(dim=0)).clone()


def reading(names: tuple[str, ...], values: Tensor) -> Reading:
    """Send values [len(names)] on their way to the host."""
    if values.device.type == "cpu":
        return Reading(names, values, values, None)
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return Reading(names, values, host, copied)
