"""Updates whose gradients are no numbers: skipped, counted, and stopped when they go on."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from multigrain.errors import MultiGrainError

MOST_NAMES = 12


class DivergedError(MultiGrainError):
    """A loss that is no number any more."""


class Guard:
    """Counters of skipped updates, on the device.

    Gradients are the same on all processes, and so is what is counted here: nothing is exchanged.
    """

    def __init__(self, *, most_in_row: int, device: torch.device) -> None:
        self.most_in_row = most_in_row
        self._in_row = torch.zeros((), dtype=torch.int64, device=device)
        self._reached = torch.full((), -1, dtype=torch.int64, device=device)

    def note(self, skipped: Tensor, *, step: int) -> None:
        """Count a step; `skipped` is 1 or 0, a scalar on the device."""
        self._in_row = (self._in_row + 1) * skipped.long()
        now = (self._in_row >= self.most_in_row) & (self._reached < 0)
        self._reached = torch.where(now, step, self._reached)

    @property
    def reached(self) -> Tensor:
        """The step that was the last one too many, -1 while there is none; a scalar, int64."""
        return self._reached

    def check(self, reached: int, photos_of: Callable[[int], Iterable[str]]) -> None:
        """Raise DivergedError, naming steps and photos, when there have been too many in a row."""
        if reached < 0:
            return
        first = reached - self.most_in_row + 1
        names = list(dict.fromkeys(name for step in (reached, first) for name in photos_of(step)))
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        raise DivergedError(
            f"the gradients of {self.most_in_row} steps in a row are no numbers, steps "
            f"{first + 1} to {reached + 1}: lower --learning-rate, lengthen --warmup, give "
            f"--clip-norm, or look at the photos of these steps: "
            f"{', '.join(names[:MOST_NAMES])}{more}"
        )

    def state(self) -> dict[str, Any]:
        """Return the counter."""
        return {"in_row": self._in_row}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the counter of an interrupted run; whether it was stopped here is forgotten.

        Whoever goes on has mended something, and the next skipped step would stop it again.
        """
        self._in_row = state["in_row"].to(self._in_row.device)
        self._reached = torch.full_like(self._reached, -1)


class Statistics:
    """The buffers a forward pass changes, kept so that a skipped step leaves no trace in them."""

    def __init__(self, module: nn.Module) -> None:
        self._live = [
            buffer
            for owner in module.modules()
            for name, buffer in owner.named_buffers(recurse=False)
            if buffer.is_floating_point() and name not in owner._non_persistent_buffers_set  # noqa: SLF001 - constants
        ]
        self._kept = [buffer.clone() for buffer in self._live]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the buffers as they are."""
        if self._live:
            torch._foreach_copy_(self._kept, self._live)

    @torch.no_grad()
    def bring_back(self, skipped: Tensor) -> None:
        """Put the remembered values back where `skipped` is not 0."""
        if skipped.device.type == "cpu" and not skipped:
            return
        for live, kept in zip(self._live, self._kept, strict=True):
            live.copy_(torch.where(skipped > 0, kept, live))
