"""Sampler and margin loss beside a plain numpy loop, interleaved.

The loop is how the method is usually written: distances on the CPU, `numpy.random.choice` for
each anchor's negatives, then torch gathers the drawn pairs. Both sides draw by the same
weights, and both make the gradient of the embeddings and of beta.

B views, D dimensions.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.report import Target
from trainer.inputs.sampler import BatchPlan
from trainer.losses.margin import margin_loss
from trainer.losses.negatives import Negatives

SHAPES = ((192, 128), (192, 2048), (384, 512), (768, 128), (768, 2048))
NUM_VIEWS = 3
NUM_ROUNDS = 5
EFFECTIVE_DIM = 128
NUM_PHOTOS = 100_000
ALPHA = 0.2
MIN_OVER_LOOP = 2.0


class Shape(NamedTuple):
    """One size of batch, and the seconds of both sides, a value a round."""

    num_views: int
    num_dims: int
    ours: list[float]
    loop: list[float]

    @property
    def ratio(self) -> float:
        """The loop's time over ours, median over rounds."""
        return median(b / a for a, b in zip(self.ours, self.loop, strict=True))


def measure() -> list[Shape]:
    """Time both sides at every shape, once a round each.

    Ours with one thread: two that wait for each other on a busy machine measure the machine.
    numpy's products keep all cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [measure_shape(num_views, num_dims) for num_views, num_dims in SHAPES]
    finally:
        torch.set_num_threads(before)


def measure_shape(num_views: int, num_dims: int) -> Shape:
    """Time both sides at one shape."""
    torch.manual_seed(0)
    pooled = torch.randn(num_views, num_dims, requires_grad=True)
    beta = torch.tensor(1.2, requires_grad=True)
    plan = BatchPlan(
        num_photos=NUM_PHOTOS,
        batch_size=num_views,
        num_views=NUM_VIEWS,
        num_processes=1,
        seed=0,
    )
    ours, loop = list[float](), list[float]()
    order = np.random.default_rng(0).permutation(NUM_PHOTOS)
    for step in range(NUM_ROUNDS + 1):
        a = timed(lambda step=step: our_pass(plan, pooled, beta, step))
        b = timed(lambda step=step: loop_pass(order, pooled, beta, step))
        if step:  # the first one warms up
            ours.append(a)
            loop.append(b)
    return Shape(num_views, num_dims, ours, loop)


def our_pass(plan: BatchPlan, pooled: Tensor, beta: Tensor, step: int) -> None:
    """The step's photos, the loss and its gradient, as training does them."""
    drawn = plan.photos_of(step, 0)
    ids = torch.tensor([draw.photo_id for draw in drawn]).repeat_interleave(NUM_VIEWS)
    found = margin_loss(
        F.normalize(pooled, dim=1),
        ids,
        beta,
        alpha=ALPHA,
        negatives=Negatives.DISTANCE,
        effective_dim=EFFECTIVE_DIM,
        most_negatives=NUM_VIEWS - 1,
        seed=step,
    )
    found.loss.backward()  # type: ignore[no-untyped-call]


def loop_pass(order: npt.NDArray[np.int64], pooled: Tensor, beta: Tensor, step: int) -> None:
    """The same in a loop over anchors."""
    num_photos = len(pooled) // NUM_VIEWS
    ids = np.repeat(order[step * num_photos : (step + 1) * num_photos], NUM_VIEWS)
    rng = np.random.default_rng(step)
    unit = F.normalize(pooled, dim=1)
    anchors, positives, negatives = drawn_in_a_loop(unit.detach().numpy(), ids, rng)
    near = (unit[anchors] - unit[positives]).pow(2).sum(1).clamp_min(1e-8).sqrt()
    far = (unit[anchors] - unit[negatives]).pow(2).sum(1).clamp_min(1e-8).sqrt()
    too_far, too_near = (near - beta + ALPHA).relu(), (beta - far + ALPHA).relu()
    num_active = ((too_far > 0).sum() + (too_near > 0).sum()).clamp_min(1)
    ((too_far.sum() + too_near.sum()) / num_active).backward()  # type: ignore[no-untyped-call]


def drawn_in_a_loop(
    unit: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[list[int], list[int], list[int]]:
    """Anchors, positives and negatives: for each positive one negative of its anchor."""
    squared = np.maximum(2 - 2 * unit @ unit.T, 1e-8)
    distance = np.sqrt(squared).clip(0.5, 1.4)
    log_density = (EFFECTIVE_DIM - 2) * np.log(distance) + (EFFECTIVE_DIM - 3) / 2 * np.log(
        1 - distance**2 / 4
    )
    anchors, positives, negatives = list[int](), list[int](), list[int]()
    for row in range(len(unit)):
        mates = [int(other) for other in np.flatnonzero(ids == ids[row]) if other != row]
        others = np.flatnonzero((ids != ids[row]) & (squared[row] < 1.4**2))
        if len(others) == 0:
            others = np.flatnonzero(ids != ids[row])
        weights = np.exp(-log_density[row, others] + log_density[row, others].min())
        drawn = rng.choice(others, len(mates), p=weights / weights.sum(), replace=False)
        anchors += [row] * len(mates)
        positives += mates
        negatives += drawn.tolist()
    return anchors, positives, negatives


def timed(work: Callable[[], None]) -> float:
    """Seconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(shapes: list[Shape]) -> str:
    """Markdown of what was measured."""
    lines = [
        "| views | dimensions | ours, ms | numpy loop, ms | ratio (least - most) |",
        "|---|---|---|---|---|",
    ]
    for shape in shapes:
        ratios = sorted(b / a for a, b in zip(shape.ours, shape.loop, strict=True))
        lines.append(
            f"| {shape.num_views} | {shape.num_dims} | {1e3 * median(shape.ours):.2f} "
            f"| {1e3 * median(shape.loop):.1f} | {shape.ratio:.1f} "
            f"({ratios[0]:.1f} - {ratios[-1]:.1f}) |"
        )
    return "\n".join(lines)


def targets(shapes: list[Shape]) -> list[Target]:
    """The slowest shape decides."""
    worst = min(shape.ratio for shape in shapes)
    return [Target("sampler and loss, numpy loop / ours, worst shape", worst, ">=", MIN_OVER_LOOP)]
