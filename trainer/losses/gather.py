"""Gathers and sums over processes; with one process they do nothing.

W processes, B rows of one process.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    """Processes of the group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    """This process's number in the group, 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    """All rows of all processes; the gradient is summed over processes, then sliced."""

    @staticmethod
    def forward(ctx: object, rows: Tensor) -> Tensor:  # noqa: ARG004 - the engine's signature
        parts = [torch.empty_like(rows) for _ in range(num_processes())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - the engine's
        (gradient,) = gradients
        # Every process's loss reads every row, so a row's gradient is the sum over processes.
        summed = gradient.contiguous()
        dist.all_reduce(summed)
        return summed.chunk(num_processes())[process_rank()]


def gather_batch(rows: Tensor) -> Tensor:
    """[B, D] of each process -> [W * B, D] in rank order, differentiable; equal B everywhere."""
    if num_processes() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def gather_rows(rows: Tensor) -> Tensor:
    """[B_r, ...] of each process -> all rows in rank order, without gradient; B_r may differ."""
    if num_processes() == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(num_processes())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    # The padding is cut off again: nothing that is scored is ever padded.
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def sum_over_processes(value: Tensor) -> Tensor:
    """Return the sum of a tensor over processes, without gradient."""
    total = value.detach().clone()
    if num_processes() > 1:
        dist.all_reduce(total)
    return total


def own_slice(num_items: int) -> range:
    """Return this process's contiguous part of `num_items`; the parts differ by at most one."""
    rank, world = process_rank(), num_processes()
    return range(num_items * rank // world, num_items * (rank + 1) // world)
