"""What a model costs whatever runs it: parameters, multiply-adds, activations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

# The layers whose outputs count as activations in the published numbers of ResNets and RegNets
# (Radosavovic et al. 2020, section 3.1): convolutions, linear layers, pooling windows.
_ACTIVATING = (nn.Conv2d, nn.Linear, nn.MaxPool2d)


class Complexity(NamedTuple):
    """Of one photo; buffers, among them a fixed exponent of GeM, are no parameters."""

    parameters: int
    multiply_adds: int
    activations: int


class _Outputs:
    """Numbers of outputs seen: all, and those to which a bias was added."""

    def __init__(self) -> None:
        self.total = 0
        self.biased = 0

    def __call__(self, layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        self.total += output.numel()
        self.biased += output.numel() if getattr(layer, "bias", None) is not None else 0


def complexity_of(model: nn.Module, *, size: int) -> Complexity:
    """Count for one photo of size x size, on shapes alone: nothing is computed.

    Multiply-adds are those of convolutions and matrix products (torch's FlopCounterMode), and
    one for every bias that is added.
    """
    parameters, was_training = list(model.parameters()), model.training
    counter, shapes_alone = (
        FlopCounterMode(display=False),
        FakeTensorMode(allow_non_fake_inputs=True),
    )
    with _watched(model) as outputs, torch.no_grad(), shapes_alone, counter:
        model.eval()(torch.zeros(1, 3, size, size, device=parameters[0].device))
    model.train(was_training)
    return Complexity(
        parameters=sum(parameter.numel() for parameter in parameters),
        multiply_adds=counter.get_total_flops() // 2 + outputs.biased,
        activations=outputs.total,
    )


@contextmanager
def _watched(model: nn.Module) -> Iterator[_Outputs]:
    """Count outputs of layers; torch's fused attention, which hides its products, is off."""
    outputs = _Outputs()
    hooks = [
        layer.register_forward_hook(outputs)
        for layer in model.modules()
        if isinstance(layer, _ACTIVATING)
    ]
    was_fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield outputs
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)
        for hook in hooks:
            hook.remove()
