"""Batch-norm statistics: sensible in short runs, and the same on all processes."""

from collections.abc import Callable

import torch.distributed as dist
from torch import nn

from trainer.gather import num_processes

MOMENTUM = 0.1
EARLY_STEPS = round(1 / MOMENTUM)  # whose statistics are a plain average


def set_momentum(model: nn.Module, step: int) -> None:
    """Make the running statistics of the first ten steps a plain average of the batches.

    With the usual 0.1 a run of few steps would still be looking through the initial 0 and 1.
    """
    if step * MOMENTUM > 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the family's base
            module.momentum = max(MOMENTUM, 1 / (step + 1))


def synchronise(model: nn.Module, *, on_gpu: bool, say: Callable[[str], None]) -> nn.Module:
    """Let batch norms see the views of all processes; on the CPU say that torch has no such thing.

    Call it before the optimiser and DDP take the parameters.
    """
    if not on_gpu:
        say("--sync-bn needs GPUs: each process goes on with the statistics of its own views")
        return model
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    synchronised: nn.Module = convert(model)  # type: ignore[no-untyped-call]
    return synchronised


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
