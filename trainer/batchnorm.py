"""Batch-norm statistics: sensible in short runs, and the same on all processes."""

import torch.distributed as dist
from torch import nn

from trainer.gather import num_processes

MOMENTUM = 0.1


def set_momentum(model: nn.Module, step: int) -> None:
    """Make the running statistics of the first ten steps a plain average of the batches.

    With the usual 0.1 a run of few steps would still be looking through the initial 0 and 1.
    """
    if step * MOMENTUM > 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the family's base
            module.momentum = max(MOMENTUM, 1 / (step + 1))


def average_over_processes(model: nn.Module) -> None:
    """Replace each running statistic by its mean over processes; each has seen its own views."""
    if num_processes() == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the family's base
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    dist.all_reduce(statistic)
                    statistic.div_(num_processes())
