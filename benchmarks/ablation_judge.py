"""Score a checkpoint's embeddings: the retrieval tests, under each whitening.

n photos, C channels, D embedding.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.mean_scores import mean_scores
from benchmarks.quality_tasks import Task, read_tasks
from multigrain.embedder import Embedder
from multigrain.metrics import positive_ranks
from multigrain.photo import open_photo
from multigrain.transforms import Pixels, Preprocessing
from multigrain.whitening import Moments, fit_whitening
from trainer.inputs.photos import paths_of

FLOOR = 1e-3
_BATCH_SIZE = 16

Floats = npt.NDArray[np.float32]


class WhiteningChoice(NamedTuple):
    """Dimensions kept and power; None keeps the trunk's own vectors."""

    dim: int | None
    power: float = 0.0

    @property
    def name(self) -> str:
        """As the tables call it."""
        if self.dim is None:
            return "none"
        return f"{self.dim}, power {self.power:g}"


PLAIN = WhiteningChoice(None)
# For every run; the others for the base and the pretrained trunk alone.
FEW_WHITENINGS = (PLAIN, WhiteningChoice(256, 0.25))
WHITENINGS = (
    PLAIN,
    WhiteningChoice(512, 0.0),
    WhiteningChoice(512, 0.25),
    WhiteningChoice(512, 1.0),
    WhiteningChoice(256, 0.0),
    WhiteningChoice(256, 0.25),
    WhiteningChoice(256, 0.5),
    WhiteningChoice(128, 0.25),
    WhiteningChoice(64, 0.25),
)


class TaskScores(NamedTuple):
    """What is kept of a test."""

    recall_at_1: float
    ap: float


Scores = dict[str, dict[str, TaskScores]]  # whitening -> test -> scores


class EvaluationPhotos:
    """The photos of all tests and those a whitening is fitted on, decoded once a rule."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.training = data / "classes/train"
        self._prepared: dict[Preprocessing, list[Pixels]] = {}

    @cached_property
    def tasks(self) -> list[Task]:
        """The retrieval tests."""
        return read_tasks(self.data)

    @cached_property
    def fitting(self) -> list[Path]:
        """Photos that whitenings are fitted on, as the trainer would."""
        return paths_of(self.training)

    @cached_property
    def paths(self) -> list[Path]:
        """All of them, each once."""
        wanted = list(self.fitting)
        for task in self.tasks:
            wanted += task.gallery + [query.photo for query in task.queries]
        return list(dict.fromkeys(wanted))

    def prepared(self, rule: Preprocessing) -> list[Pixels]:
        """Pixels of `paths` under a rule."""
        if rule not in self._prepared:
            self._prepared[rule] = [
                rule.prepare(open_photo(path, min_side=rule.min_side).image) for path in self.paths
            ]
        return self._prepared[rule]


def score_checkpoint(
    checkpoint: Path,
    photos: EvaluationPhotos,
    whitenings: Sequence[WhiteningChoice],
    *,
    num_threads: int,
    cache_dir: Path,
) -> Scores:
    """Embed every photo once with an unwhitened checkpoint and score it under each whitening."""
    embedder = Embedder.open(
        checkpoint,
        device="cpu",
        engine="openvino",
        precision="fp32",
        num_threads=num_threads,
        cache_dir=cache_dir,
    )
    rows = embedder.embed_pixels(photos.prepared(embedder.preprocessing), _BATCH_SIZE)
    place = {path: row for row, path in enumerate(photos.paths)}
    moments = Moments(rows.shape[1])
    moments.update(torch.from_numpy(rows[[place[path] for path in photos.fitting]]))
    return {
        choice.name: {
            task.name: _score(task, _whitened(rows, moments, choice), place)
            for task in photos.tasks
        }
        for choice in whitenings
    }


def _whitened(rows: Floats, moments: Moments, choice: WhiteningChoice) -> Floats:
    if choice.dim is None:
        return rows
    whiten = fit_whitening(moments, dim=choice.dim, power=choice.power, floor=FLOOR)
    with torch.inference_mode():
        white: Floats = whiten(torch.from_numpy(rows)).numpy()
    return white


def _score(task: Task, rows: Floats, place: dict[Path, int]) -> TaskScores:
    """Full exact ranking of the gallery for each query; ties count against the model."""
    column = {path: number for number, path in enumerate(task.gallery)}
    gallery = rows[[place[path] for path in task.gallery]]
    ranks = []
    for query in task.queries:
        relevant, junk = (np.zeros(len(gallery), np.bool_) for _ in range(2))
        relevant[[column[path] for path in query.relevant]] = True
        junk[[column[path] for path in query.junk if path in column]] = True
        ranks.append(positive_ranks(gallery @ rows[place[query.photo]], relevant, junk))
    scores = mean_scores(ranks, [len(query.relevant - query.junk) for query in task.queries])
    return TaskScores(scores.recall_at_1, scores.ap)
