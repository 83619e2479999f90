"""What a training step costs beside the model: our code's share of its CPU time.

A real step of the trainer is timed, and the same loop with a trunk that costs nothing: sampler,
device part, pooling, losses and their gradient, optimiser, meter, log. Its CPU time, and that of
the gradient's norm, over the real step's is our share. Wall time beside a bare loop (forward,
cross-entropy, backward, fused SGD) is printed too; on a shared CPU its noise hides a few percent.
"""

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.report import Target
from benchmarks.trainer_run import Run, build_run, noise_batch
from multigrain.backbone import build_backbone
from trainer.engine.processes import alone
from trainer.inputs.loading import Batch

BACKBONE = "resnet50"
SIZE = 224
BATCH_SIZE = 24
NUM_ROUNDS = 3
CHEAP_STEPS = 100
WARM_STEPS = 10
MAX_OWN_SHARE = 0.05


class StepCost(NamedTuple):
    """CPU seconds of a real step, of ours alone, and wall seconds beside the bare loop."""

    step_cpu: float
    own_cpu: float
    step_wall: list[float]
    bare_wall: list[float]

    @property
    def own_share(self) -> float:
        """Our code's share of a step's CPU time."""
        return self.own_cpu / self.step_cpu

    @property
    def ratio(self) -> float:
        """Wall time of ours over the bare loop's, median over rounds."""
        return median(a / b for a, b in zip(self.step_wall, self.bare_wall, strict=True))


def measure(photos: Path, folder: Path, *, full: bool) -> StepCost:
    """Time ours, the bare loop and the loop with a cheap trunk."""
    settings: dict[str, Any] = {
        "backbone": BACKBONE, "size": SIZE, "batch_size": BATCH_SIZE, "num_views": 3,
        "duration": "100000step", "validate_every": "100000step", "warmup": "0%",
        "log_every_steps": 20, "learning_rate": 0.01, "tensorboard": False,
    }  # fmt: skip
    run = build_run(photos, folder / "real", alone(), **settings)
    cheap = build_run(
        photos, folder / "cheap", alone(), cheap_trunk=True, **(settings | {"size": 32})
    )
    bare = bare_step(run)
    step_cpu, step_wall, bare_wall = list[float](), list[float](), list[float]()
    for number in range((3 if full else 1) * NUM_ROUNDS + 1):
        batch = noise_batch(run, number)
        wall, cpu = timed(lambda n=number, b=batch: run.loop.step(n, b))
        other, _ = timed(lambda b=batch: bare(b.pixels, b.labels))
        if number:  # the first step allocates
            step_cpu.append(cpu)
            step_wall.append(wall)
            bare_wall.append(other)
    own = cheap_step_seconds(cheap) + norm_seconds(run.loop.model)
    return StepCost(median(step_cpu), own, step_wall, bare_wall)


def bare_step(run: Run) -> Callable[[torch.Tensor, torch.Tensor], object]:
    """The loop that anybody would write first, on the same kind of trunk."""
    trunk = build_backbone(BACKBONE).to(memory_format=torch.channels_last).train()
    head = nn.Linear(trunk.num_channels, len(run.data.training.class_names or ()))
    parameters = [*trunk.parameters(), *head.parameters()]
    optimiser = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)

    def step(pixels: torch.Tensor, labels: torch.Tensor) -> object:
        images = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(head(trunk(images).mean((2, 3))), labels)
        optimiser.zero_grad()
        loss.backward()
        return optimiser.step()

    return step


def cheap_step_seconds(run: Run) -> float:
    """CPU seconds of one step of the whole loop without a trunk; batches are made before."""
    batches, spent = [noise_batch(run, step) for step in range(CHEAP_STEPS)], list[float]()

    def watched() -> Iterator[Batch]:
        for batch in batches:
            spent.append(cpu_seconds())
            yield batch

    run.loop.train(watched(), start=0)
    _, drawing = timed(lambda: [run.plan.photos_of(step, 0) for step in range(CHEAP_STEPS)])
    # The first steps allocate, and so does the end of the run.
    return (spent[-1] - spent[WARM_STEPS]) / (CHEAP_STEPS - 1 - WARM_STEPS) + drawing / CHEAP_STEPS


def norm_seconds(model: nn.Module) -> float:
    """CPU seconds of the norm of a whole trunk's gradient, which every step logs."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return min(timed(lambda: torch.nn.utils.get_total_norm(gradients))[1] for _ in range(3))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds, of all threads, that a piece of work takes."""
    before, start = cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - start, cpu_seconds() - before


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def table(cost: StepCost) -> str:
    """Markdown of what was measured."""
    ratios = sorted(a / b for a, b in zip(cost.step_wall, cost.bare_wall, strict=True))
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            (
                f"| a step's CPU time ({BACKBONE}, {BATCH_SIZE} views of {SIZE} px) "
                f"| {cost.step_cpu:.2f} s |"
            ),
            f"| of it ours (sampler, loss, log) | {1e3 * cost.own_cpu:.0f} ms |",
            (
                f"| wall time over a bare loop's (least - most) | {cost.ratio:.3f} "
                f"({ratios[0]:.3f} - {ratios[-1]:.3f}) |"
            ),
        ]
    )


def targets(cost: StepCost) -> list[Target]:
    """Our share of a step."""
    return [Target("our code's share of a step's CPU time", cost.own_share, "<=", MAX_OWN_SHARE)]
