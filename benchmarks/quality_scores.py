"""Leave-one-out Recall@1 and MAP@R beside pytorch-metric-learning's AccuracyCalculator.

Both get the same unit rows and cores and are timed in turn. Memory is that of a process which
does nothing else.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import Tensor

from benchmarks.report import Target
from benchmarks.trainer_scores import clustered
from multigrain.exact_ranks import exact_ranks
from multigrain.rank_metrics import RankTable, highest_rank, map_at_r, mean, recall_at_k
from trainer.protocols.test_set import groups_truth

NUM_DIMS = 2048
QUICK_PHOTOS, FULL_PHOTOS = 10_000, 50_000
MIN_SPEED_UP = 3.0
MAX_GIBIBYTES = 4.0
MAX_DIFFERENCE = 1e-5
_METRICS = ["recall_at_1", "map_at_r"]


class ScoresMeasured(NamedTuple):
    """Seconds of ours and of the library's, the largest difference of a score, and our memory."""

    num_photos: int
    ours: float
    library: float
    difference: float
    gibibytes: float


def measure(*, full: bool) -> ScoresMeasured:
    """Time both, ours on both sides of the library's, after a small round that warms up."""
    _round(1000)
    num_photos = FULL_PHOTOS if full else QUICK_PHOTOS
    ours, library, difference = _round(num_photos)
    return ScoresMeasured(num_photos, ours, library, difference, _memory(num_photos))


def _round(num_photos: int) -> tuple[float, float, float]:
    unit, labels = clustered(num_photos, NUM_DIMS)
    before, own = _timed(lambda: scores(unit, labels))
    library, theirs = _timed(lambda: library_scores(unit, labels))
    after, _ = _timed(lambda: scores(unit, labels))
    difference = max(abs(a - b) for a, b in zip(own, theirs, strict=True))
    return median([before, after]), library, difference


def scores(unit: Tensor, labels: Tensor) -> tuple[float, float]:
    """Recall@1 and MAP@R of every row among the others."""
    classes = labels.tolist()
    truth = groups_truth(classes, classes, own=range(len(classes)))
    counts = truth.num_positives()
    ranks = exact_ranks(unit, unit, truth, limit=highest_rank(_METRICS, counts))
    table = RankTable.of(ranks, counts)
    return mean(recall_at_k(table, 1)), mean(map_at_r(table))


def library_scores(unit: Tensor, labels: Tensor) -> tuple[float, float]:
    """The same by AccuracyCalculator, which asks for as many neighbours as a class has."""
    calculator = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",  # unset, it asks for all of them, which takes it many times as long
        device=torch.device("cpu"),
    )
    found = calculator.get_accuracy(unit, labels)
    return found["precision_at_1"], found["mean_average_precision_at_r"]


def targets(measured: ScoresMeasured) -> list[Target]:
    """Speed, memory and the same numbers."""
    name = f"leave one out, {measured.num_photos} x {NUM_DIMS}"
    times = measured.library / measured.ours
    not_here = None if measured.num_photos == FULL_PHOTOS else "FULL only"
    return [
        Target(f"{name}: times as fast", times, ">=", MIN_SPEED_UP, not_here),
        Target(f"{name}: GiB", measured.gibibytes, "<=", MAX_GIBIBYTES),
        Target(f"{name}: difference", measured.difference, "<=", MAX_DIFFERENCE),
    ]


def line(measured: ScoresMeasured) -> str:
    """What was measured, in a sentence."""
    return (
        f"Leave-one-out Recall@1 and MAP@R of {measured.num_photos} x {NUM_DIMS}: "
        f"{measured.ours:.1f} s in {measured.gibibytes:.1f} GiB, pytorch-metric-learning's "
        f"AccuracyCalculator {measured.library:.1f} s."
    )


def _timed(work: Callable[[], tuple[float, float]]) -> tuple[float, tuple[float, float]]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def _memory(num_photos: int) -> float:
    """GiB of a process that makes the rows and scores them."""
    command = [sys.executable, "-m", "benchmarks.quality_scores", str(num_photos)]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(said.stdout)


def main() -> int:
    """Score once, and print the most memory that was taken."""
    random = torch.Generator().manual_seed(0)
    num_photos = int(sys.argv[1])
    unit = torch.empty(num_photos, NUM_DIMS).normal_(generator=random)
    unit /= unit.norm(dim=1, keepdim=True)
    scores(unit, torch.from_numpy(np.arange(num_photos) // 25))
    # Not getrusage: across exec its maximum keeps what the process that started this one took.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
