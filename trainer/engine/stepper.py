"""One step of training: forward, backward, new weights, their average.

B views of a process, split into micro-batches.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.engine.batchnorm import Momenta
from trainer.engine.ema import WeightAverage
from trainer.engine.freezing import Freezing
from trainer.engine.guard import Guard, Statistics
from trainer.engine.numerics import Numerics
from trainer.engine.optimiser import set_rate, skips_on_device
from trainer.engine.stopwatch import Stopwatch
from trainer.inputs.loading import Batch
from trainer.inputs.mix import Mix
from trainer.losses.gather import process_rank
from trainer.losses.objective import Losses, Objective
from trainer.seeds import seed_of


class Inputs(Protocol):
    """A step's views on the device, ready for the model: pixels [B, 3, S, S] in 0..255."""

    @property
    def pixels(self) -> Tensor:
        """Pixels [B, 3, S, S] in 0..255."""

    @property
    def labels(self) -> Tensor:
        """Classes [B], int64."""

    @property
    def photo_ids(self) -> Tensor:
        """Photos [B], int64."""

    @property
    def mix(self) -> Mix | None:
        """What mixing leaves to the loss; None without mixing."""


DevicePart = Callable[[Batch, int], Inputs]


class Numbers(NamedTuple):
    """Constants of a step."""

    seed: int
    accumulate: int
    clip_norm: float | None
    freeze_until: int
    channels_last: bool


class Stepper:
    """Does steps. `objective` owns the parameters, `wrapped` is the same behind DDP, if any.

    An update whose gradients are no numbers is skipped, on the device: weights, momentum and
    batch-norm statistics stay as they were, and `guard` counts it.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        wrapped: nn.Module,
        optimiser: torch.optim.Optimizer,
        numerics: Numerics,
        device_part: DevicePart,
        guard: Guard,
        stopwatch: Stopwatch,
        average: WeightAverage | None,
        freezing: Freezing | None,
        numbers: Numbers,
    ) -> None:
        self.objective = objective
        self.wrapped = wrapped
        self.optimiser = optimiser
        self.numerics = numerics
        self.device_part = device_part
        self.guard = guard
        self.stopwatch = stopwatch
        self.average = average
        self.freezing = freezing
        self.numbers = numbers
        self.scaler = torch.amp.GradScaler(numerics.device.type, enabled=numerics.scales)
        self.skipped = torch.zeros((), device=numerics.device)
        self.momenta = Momenta(objective)
        self._statistics = Statistics(objective)
        self._training = False

    def __call__(self, step: int, batch: Batch, *, rate: float) -> Losses:
        """Do a step; the parts gain `loss` and `gradient_norm`."""
        self.stopwatch.start()
        self._prepare(step)
        set_rate(self.optimiser, rate)
        # Dropout and the like draw from counters too: nothing random needs saving.
        torch.manual_seed(seed_of(self.numbers.seed, "step", step, process_rank()))
        inputs = self.device_part(batch.to(self.numerics.device), step)
        self.optimiser.zero_grad(set_to_none=True)
        self._statistics.keep()
        losses = self._gradients(step, inputs)
        norm = self._clip(step)
        self._update(step, norm)
        parts = losses.parts | {"loss": losses.total, "gradient_norm": norm}
        self.stopwatch.mark("optimiser")
        return Losses(losses.total, parts)

    def evaluate(self) -> None:
        """Say that the model may be in evaluation mode: the next step puts it back."""
        self._training = False

    def _prepare(self, step: int) -> None:
        if not self._training:
            self.wrapped.train()
            self._training = True
        elif self.freezing is not None and step == self.numbers.freeze_until:
            self.wrapped.train()
        if self._freezes(step):
            assert self.freezing is not None
            self.freezing.hold_norms()
        self.momenta.set(step)

    def _freezes(self, step: int) -> bool:
        return self.freezing is not None and step < self.numbers.freeze_until

    def _gradients(self, step: int, inputs: Inputs) -> Losses:
        """Add up the gradients of the micro-batches, each its share; return the mean losses."""
        num_parts = self.numbers.accumulate
        found: list[Losses] = []
        for number, part in enumerate(_split(inputs, num_parts)):
            is_last = number == num_parts - 1
            with self._unsynchronised() if not is_last else nullcontext():
                losses = self._forward(step * num_parts + number, *part)
                self.stopwatch.mark("forward")
                self.scaler.scale(losses.total / num_parts).backward()  # type: ignore[no-untyped-call]
                self.stopwatch.mark("backward")
            found.append(losses)
        if num_parts == 1:
            return Losses(losses.total.detach(), losses.parts)
        names = losses.parts
        return Losses(
            torch.stack([losses.total.detach() for losses in found]).mean(),
            {name: torch.stack([losses.parts[name] for losses in found]).mean() for name in names},
        )

    def _forward(
        self, count: int, pixels: Tensor, labels: Tensor, photo_ids: Tensor, mix: Mix | None
    ) -> Losses:
        layout = torch.channels_last if self.numbers.channels_last else torch.contiguous_format
        pixels = pixels.contiguous(memory_format=layout)
        mixing: dict[str, Any] = {} if mix is None else {"mix": mix}
        with self.numerics.autocast():
            losses: Losses = self.wrapped(pixels, labels, photo_ids, count, **mixing)
        return losses

    def _unsynchronised(self) -> AbstractContextManager[None]:
        if isinstance(self.wrapped, DistributedDataParallel):
            context: AbstractContextManager[None] = self.wrapped.no_sync()
            return context
        return nullcontext()

    def _clip(self, step: int) -> Tensor:
        """Return the gradient's norm as it was, and bring it down to the largest allowed."""
        if self._freezes(step):
            assert self.freezing is not None
            self.freezing.drop_gradients()
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimiser)
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if self.numbers.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                parameters, self.numbers.clip_norm, norm, foreach=True
            )
        return norm.detach()

    def _update(self, step: int, norm: Tensor) -> None:
        # DDP has made the gradients equal everywhere, and so is what follows from them.
        self.skipped = (~norm.isfinite()).float()
        if skips_on_device(self.optimiser):
            self.optimiser.found_inf = self.skipped  # type: ignore[attr-defined]
            self.optimiser.step()
        elif not self.skipped:  # an optimiser without fused kernels: the host has to look
            self.optimiser.step()
        self._statistics.bring_back(self.skipped)
        self.guard.note(self.skipped * self._counts(), step=step)
        if self.scaler.is_enabled():
            self.scaler.update()
        if self.average is not None:
            self.average.update(step)

    def _counts(self) -> Tensor:
        """1 where a skipped step is a fault; 0 while the loss scale is still on its way down."""
        if not self.scaler.is_enabled():
            return torch.ones_like(self.skipped)
        scale = self.scaler._get_scale_async()  # noqa: SLF001 - get_scale() waits for the device
        assert scale is not None
        return (scale <= 1).float()


def restore_optimiser(
    optimiser: torch.optim.Optimizer, state: Mapping[str, Any], *, same_settings: bool
) -> None:
    """Take up an interrupted run's state; with other settings the groups keep those of this run.

    With the same ones they take the state's, among which may be counters. Raises ValueError when
    the groups are others.
    """
    own = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimiser.param_groups
    ]
    optimiser.load_state_dict(dict(state))
    if not same_settings:
        for group, values in zip(optimiser.param_groups, own, strict=True):
            group.update(values)


def _split(inputs: Inputs, num_parts: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Mix | None]]:
    """Cut a process's part of a step into micro-batches; the views of a photo stay together."""
    length = len(inputs.labels) // num_parts
    for number in range(num_parts):
        rows = slice(number * length, (number + 1) * length)
        mix = inputs.mix
        part = None if mix is None else Mix(*(values[rows] for values in mix))
        yield inputs.pixels[rows], inputs.labels[rows], inputs.photo_ids[rows], part
