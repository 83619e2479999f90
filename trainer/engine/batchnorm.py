"""Batch-norm statistics: sensible in short runs, and the same on all processes."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.losses.gather import gather_batch, num_processes, process_rank

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
    if num_processes() > 1:
        for statistic in _statistics(model):
            dist.all_reduce(statistic)
            statistic.div_(num_processes())


def gather_statistics(model: nn.Module) -> Tensor:
    """Return every process's running statistics, [W, number of statistics], for a checkpoint.

    The processes keep their own: when a checkpoint is written must not change what is computed.
    """
    own = [statistic.flatten() for statistic in _statistics(model)]
    return gather_batch(torch.cat(own)[None]) if own else torch.zeros(num_processes(), 0)


def set_statistics(model: nn.Module, rows: Tensor) -> None:
    """Take up a checkpoint's running statistics; another number of processes takes their mean."""
    same = len(rows) == num_processes()
    values = rows[process_rank()] if same else rows.mean(dim=0)
    statistics = _statistics(model)
    parts = torch.split(values, [statistic.numel() for statistic in statistics])
    for statistic, part in zip(statistics, parts, strict=True):
        statistic.copy_(part.view_as(statistic))


def _statistics(model: nn.Module) -> list[Tensor]:
    found = []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the family's base
            found += [module.running_mean, module.running_var]
    return [statistic for statistic in found if statistic is not None]
