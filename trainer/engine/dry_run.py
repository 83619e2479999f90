"""What a run will take, from a few steps on noise: nothing is read but lists, nothing written."""

import time
from collections.abc import Callable

import torch

from trainer.engine.journal import peak_memory
from trainer.engine.loop import Loop
from trainer.inputs.data import Data
from trainer.inputs.loading import Batch
from trainer.inputs.sampler import BatchPlan

_GIGABYTE = 1 << 30
_HOUR = 3600


def dry_run(
    loop: Loop,
    data: Data,
    plan: BatchPlan,
    *,
    num_steps: int,
    size: int,
    say: Callable[[str], None],
) -> None:
    """Do steps on noise and say the size of the run, its memory and its time.

    The first step is not timed: it allocates and chooses kernels. Loading is not part of it, nor
    is compiling: training itself does its first steps eagerly.
    """
    course, processes = loop.course, loop.processes
    seconds = 0.0
    for step in range(num_steps + 1):
        batch = _noise(data, plan, loop, step=step, size=size)
        started = time.perf_counter()
        loop.step(step, batch)
        float(loop.stepper.skipped)  # waits for the device
        seconds += time.perf_counter() - started if step else 0.0
    per_step = seconds / num_steps
    epoch = course.num_photos / course.photos_per_step
    memory = peak_memory(processes.device) / _GIGABYTE
    say(
        f"dry run: {course.views_per_step} views a step ({course.photos_per_step} photos) on "
        f"{processes.world} processes; an epoch is {epoch:.1f} steps, "
        f"{epoch * course.views_per_step:.0f} views; {course.num_steps} steps in all"
    )
    say(
        f"dry run: {per_step:.3f} s a step, {course.views_per_step / per_step:.1f} views/s, "
        f"{memory:.2f} GiB at most on each process; {_length(per_step * course.num_steps)} "
        f"without loading, validation and the end; "
        f"the trunk is not compiled here, whatever --compile says"
    )


def _length(seconds: float) -> str:
    return f"{seconds / _HOUR:.1f} h" if seconds > _HOUR else f"{seconds:.0f} s"


def _noise(data: Data, plan: BatchPlan, loop: Loop, *, step: int, size: int) -> Batch:
    """A batch of a step's real photo numbers and labels, its pixels noise."""
    draws = plan.photos_of(step, loop.processes.rank)
    num_views = loop.course.views_per_step // plan.photos_per_step
    ids = torch.tensor([draw.photo_id for draw in draws])
    labels = torch.tensor([data.training.labels[draw.photo_id] for draw in draws])
    num = len(draws) * num_views
    pixels = torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8)
    return Batch(
        pixels=pixels.contiguous(memory_format=torch.channels_last),  # as the loader's
        labels=labels.repeat_interleave(num_views),
        photo_ids=ids.repeat_interleave(num_views),
        seeds=torch.arange(num),
        bad=(),
    )
