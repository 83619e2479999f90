"""An exponential moving average of the model's weights."""

import copy

import torch
from torch import Tensor

from multigrain.model import MultiGrain

_WARM_STEPS = 10


class WeightAverage:
    """A second model whose weights and batch-norm statistics follow the first's.

    The decay of a step is `0.5 ** (1 / half_life)`. The first steps average over a shorter past,
    decay (1 + n) / (10 + n) after n updates, so that the random start is soon forgotten.
    """

    def __init__(self, model: MultiGrain, *, half_life_steps: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = 0.5 ** (1 / half_life_steps)
        self._live, self._copied_from = _numbers(model)
        self._shadow, self._copied_to = _numbers(self.model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after an update; `step` updates came before it."""
        decay = min(self.decay, (1 + step) / (_WARM_STEPS + step))
        torch._foreach_lerp_(self._shadow, self._live, 1 - decay)
        for target, source in zip(self._copied_to, self._copied_from, strict=True):
            target.copy_(source)


def _numbers(model: MultiGrain) -> tuple[list[Tensor], list[Tensor]]:
    """The model's floating-point tensors and the others (counters), in one order."""
    tensors = [*model.parameters(), *model.buffers()]
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    return floating, [tensor for tensor in tensors if not tensor.is_floating_point()]
