"""Batch-norm statistics: sensible in short runs, and the same on all processes."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.losses.gather import gather_batch, num_processes, process_rank

_MOST_EARLY_STEPS = 100  # a compiled trunk waits for them


class Momenta:
    """Makes the running statistics of the first steps a plain average of the batches.

    With the usual momentum of 0.1, that is ten steps, a run of few would still be looking through
    the initial 0 and 1. What a step's momentum is depends on its number alone, so that a resumed
    run goes on with the same. A module without momentum averages over everything and is left so.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = [
            (module, module.momentum)
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - the family's base
            and module.momentum
        ]
        steps = [round(1 / own) for _, own in self._own]
        self._early_steps = min(_MOST_EARLY_STEPS, max(steps, default=0))

    def is_early(self, step: int) -> bool:
        """Whether a step's momentum may be another than that of the steps to come."""
        return step < self._early_steps

    def set(self, step: int) -> None:
        """Give every batch norm its momentum of a step."""
        least = 1 / (step + 1) if self.is_early(step) else 0.0
        for module, own in self._own:
            module.momentum = max(own, least)


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
