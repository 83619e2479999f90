"""What every trunk is: pixels in, a feature map out, weights under its library's names."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import Tensor, nn

from multigrain.errors import MultiGrainError

Tokens = Literal["patches", "class"]

TIMM = "timm:"


class BackboneError(MultiGrainError):
    """A trunk that does not exist, cannot be built as asked, or weights that do not fit it."""


class WeightsReport(NamedTuple):
    """What of a state dict did not fit: names the trunk lacks values for, names left over."""

    missing: list[str]
    unexpected: list[str]


class Backbone(nn.Module):
    """Pixels [N, 3, H, W], normalised, to a feature map [N, C, h, w]; C is `num_channels`.

    A trunk that works on tokens gives them as positions of a map [N, C, L, 1]: no pooling here
    looks at their order.
    """

    # What our names have before the library's own.
    prefix = ""

    name: str
    num_channels: int

    def load_library_state(
        self, state: Mapping[str, Tensor], *, skip: frozenset[str] = frozenset()
    ) -> WeightsReport:
        """Copy in the weights that fit by name and say which did not.

        Names of the state, of the report and of `skip` (which are not copied) are the
        library's own. Raises BackboneError when a tensor of the same name has another shape.
        Whether a missing or left-over name is a fault is for the caller to decide: a
        classifier's weights are left over by design.
        """
        own = self.library_state()
        fitting = {name: state[name] for name in own.keys() & state.keys() - skip}
        for name, tensor in fitting.items():
            if own[name].shape != tensor.shape:
                raise BackboneError(
                    f"{self.name}: {name} has shape {tuple(tensor.shape)} in the weights, "
                    f"{tuple(own[name].shape)} in the trunk: these are weights of another model"
                )
        self.load_state_dict({self.prefix + name: fitting[name] for name in fitting}, strict=False)
        missing, unexpected = own.keys() - fitting.keys(), state.keys() - own.keys()
        return WeightsReport(sorted(missing), sorted(unexpected))

    def library_state(self) -> dict[str, Tensor]:
        """The trunk's tensors under the library's own names."""
        return {name.removeprefix(self.prefix): t for name, t in self.state_dict().items()}
