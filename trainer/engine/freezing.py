"""Parameters that do not learn, for a time or for good."""

import fnmatch
from collections.abc import Callable, Sequence

from torch import nn

from multigrain.errors import MultiGrainError


class FreezingError(MultiGrainError):
    """Patterns that freeze nothing, or everything."""


class Freezing:
    """The parameters that patterns name, and the batch norms that lie wholly among them.

    While frozen, such a batch norm is in evaluation mode: its statistics stay too.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        self.names = _matching(model, patterns)
        found = dict(model.named_parameters())
        self.parameters = [found[name] for name in self.names]
        chosen = {id(parameter) for parameter in self.parameters}
        self.norms = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - the family's base
            and module.weight is not None
            and {id(parameter) for parameter in module.parameters()} <= chosen
        ]

    def for_good(self) -> None:
        """Take the parameters out of training, before DDP and the optimiser see them."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)

    def hold_norms(self) -> None:
        """Put the frozen batch norms into evaluation mode; after every `train()`."""
        for module in self.norms:
            module.eval()

    def drop_gradients(self) -> None:
        """Keep an optimiser from seeing the frozen parameters: no step, no decay, no momentum.

        DDP reduces their gradients all the same, so they may begin to learn at any step.
        """
        for parameter in self.parameters:
            parameter.grad = None


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise FreezingError(
                f"--freeze {pattern} matches no parameter: they are named {names[0]}, {names[1]}, "
                f"..., {names[-1]}"
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def freeze(
    model: nn.Module,
    patterns: Sequence[str],
    *,
    until: int,
    num_steps: int,
    say: Callable[[str], None],
) -> Freezing | None:
    """Freeze what the patterns name until a step; None when that is nothing.

    Raises FreezingError for a pattern that matches nothing and when nothing is left to learn.
    """
    if not patterns or until <= 0:
        return None
    freezing = Freezing(model, patterns)
    num_all = sum(1 for _ in model.parameters())
    if len(freezing.names) == num_all:
        raise FreezingError(f"--freeze {' '.join(patterns)} leaves nothing of the model to learn")
    length = f"until step {until}" if until < num_steps else "for the whole training"
    say(
        f"frozen {length}: {len(freezing.names)} of {num_all} parameters, "
        f"{freezing.names[0]} .. {freezing.names[-1]}, and {len(freezing.norms)} batch norms"
    )
    if until >= num_steps:
        freezing.for_good()
    return freezing
