"""Evaluation and whitening beside the libraries one would take instead, interleaved.

Class retrieval of all photos against all others beside pytorch-metric-learning's
AccuracyCalculator (average precision over all positives, which both give), and the streamed
whitening in float64 beside scikit-learn's PCA, which holds all rows in memory as float32.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.decomposition import PCA
from torch import Tensor

from benchmarks.report import Target
from multigrain.scoring import class_scores
from multigrain.whitening import Moments, fit_whitening

NUM_ROUNDS = 3
ROWS_A_BATCH = 256
PHOTOS_A_CLASS = 25
MIN_OVER_LIBRARY = 1.0
MAX_DIFFERENCE = 1e-3


class Compared(NamedTuple):
    """Seconds of ours and the library's, a value a round, and how far the answers differ."""

    name: str
    ours: list[float]
    library: list[float]
    difference: float

    @property
    def ratio(self) -> float:
        """The library's time over ours, median over rounds."""
        return median(b / a for a, b in zip(self.ours, self.library, strict=True))


def measure(*, full: bool) -> list[Compared]:
    """Both comparisons, at the full size or a small one."""
    # The calculator holds the ranks of all pairs: 50 000 photos would take it 20 GB.
    scores = (15_000, 2048) if full else (4_000, 512)
    rows = (50_000, 2048) if full else (8_000, 512)
    return [compare_scores(*scores), compare_whitening(*rows)]


def compare_scores(num_photos: int, num_dims: int) -> Compared:
    """Average precision of all photos against all others."""
    unit, labels = clustered(num_photos, num_dims)
    calculator = AccuracyCalculator(
        include=("mean_average_precision",), k=None, device=torch.device("cpu")
    )
    answers: dict[str, float] = {}

    def ours() -> None:
        found = class_scores(unit, torch.arange(num_photos), unit, labels)
        answers["ours"] = float(found.ap.mean())

    def library() -> None:
        found = calculator.get_accuracy(unit, labels)
        answers["library"] = float(found["mean_average_precision"])

    seconds = interleaved(ours, library)
    name = f"class retrieval, {num_photos} x {num_dims}, all pairs"
    return Compared(name, *seconds, difference=abs(answers["ours"] - answers["library"]))


def compare_whitening(num_photos: int, num_dims: int) -> Compared:
    """Mean, covariance, eigenvectors and scales of rows that arrive in batches."""
    unit, _ = clustered(num_photos, num_dims)
    rotated: dict[str, Tensor] = {}

    def ours() -> None:
        moments = Moments(num_dims)
        for batch in unit.split(ROWS_A_BATCH):
            moments.update(batch)
        whiten = fit_whitening(moments, dim=num_dims // 4, power=1.0, floor=0.0)
        rotated["ours"] = (unit[:64] - whiten.mean) @ whiten.projection.T

    def library() -> None:
        fitted = PCA(num_dims // 4, whiten=True, svd_solver="covariance_eigh").fit(unit.numpy())
        rotated["library"] = torch.from_numpy(fitted.transform(unit[:64].numpy()))

    seconds = interleaved(ours, library)
    # Directions have no sign of their own.
    difference = (rotated["ours"].abs() - rotated["library"].abs()).abs().max()
    return Compared(f"whitening, {num_photos} x {num_dims}", *seconds, difference=float(difference))


def clustered(num_photos: int, num_dims: int) -> tuple[Tensor, Tensor]:
    """Unit rows around one centre a class, and their classes."""
    generator = torch.Generator().manual_seed(0)
    num_classes = num_photos // PHOTOS_A_CLASS
    labels = torch.arange(num_photos) % num_classes
    centres = torch.randn(num_classes, num_dims, generator=generator)
    scales = torch.from_numpy(np.geomspace(1, 0.05, num_dims).astype(np.float32))
    rows = (centres[labels] + 2 * torch.randn(num_photos, num_dims, generator=generator)) * scales
    return F.normalize(rows, dim=1), labels


def interleaved(ours: Callable[[], None], library: Callable[[], None]) -> tuple[list[float], ...]:
    """Time both, once a round each, after a round that warms up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(NUM_ROUNDS + 1):
        for work, kept in zip((ours, library), seconds, strict=True):
            start = time.perf_counter()
            work()
            if number:
                kept.append(time.perf_counter() - start)
    return seconds


def table(compared: list[Compared]) -> str:
    """Markdown of what was measured."""
    lines = [
        "| | ours, s | library, s | library / ours (least - most) | largest difference |",
        "|---|---|---|---|---|",
    ]
    for row in compared:
        ratios = sorted(b / a for a, b in zip(row.ours, row.library, strict=True))
        lines.append(
            f"| {row.name} | {median(row.ours):.2f} | {median(row.library):.2f} "
            f"| {row.ratio:.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f}) | {row.difference:.1e} |"
        )
    return "\n".join(lines)


def targets(compared: list[Compared]) -> list[Target]:
    """The same answers; the scores not slower. A whitening is fitted once, in seconds."""
    scores, _ = compared
    return [
        Target(f"{scores.name}, speed", scores.ratio, ">=", MIN_OVER_LIBRARY),
        *(
            Target(f"{row.name}, difference", row.difference, "<=", MAX_DIFFERENCE)
            for row in compared
        ),
    ]
