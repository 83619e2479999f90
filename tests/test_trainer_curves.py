"""Curves of an evaluation: precision by recall, ROC, and a metric by dimensions kept."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.config import ConfigError
from multigrain.document import PoolingSpec
from multigrain.model import MultiGrain
from multigrain.truth import Truth
from trainer.engine.processes import alone
from trainer.evaluation.compared import Compared
from trainer.evaluation.curves import RECALLS, interpolated, precision_recall_chart, roc_chart
from trainer.evaluation.models import Change, write_changed
from trainer.evaluation.scores import score_first
from trainer.evaluation.sweeps import dimension_curve
from trainer.finishing.exponent_use import exponent_of
from trainer.protocols.test_set import Picture, QuerySet


@given(st.sets(st.integers(0, 60), min_size=1))
def test_precision_at_a_recall_is_the_best_behind_it(ranks: set[int]) -> None:
    """As the definition says it, of every number of first answers that recalls so much."""
    ordered = np.array(sorted(ranks))
    for recall, value in zip(RECALLS, interpolated(ordered), strict=True):
        best = max(
            (ordered < k).sum() / k
            for k in range(1, 62)
            if (ordered < k).sum() >= recall * len(ordered) - 1e-9
        )
        assert value == pytest.approx(best)


def places(svg: str) -> list[tuple[float, float]]:
    (points,) = re.findall(r'<polyline[^>]* points="([^"]*)"', svg)
    return [(float(x), float(y)) for x, y in (point.split(",") for point in points.split())]


def test_a_perfect_search_has_a_precision_of_one_at_every_recall() -> None:
    """Of queries that have an answer; the others are left out."""
    rows = np.eye(6, dtype=np.float32)
    truth = Truth([np.array([q]) for q in range(5)] + [np.array([], int)], [np.array([], int)] * 6)
    svg = precision_recall_chart(truth, Compared(rows, rows))
    assert len({y for _, y in places(svg)}) == 1
    with_wrong = Truth([np.array([(q + 1) % 6]) for q in range(6)], truth.junk)
    assert precision_recall_chart(with_wrong, Compared(rows, rows)) != svg


def test_the_roc_goes_through_its_corners() -> None:
    """A score that parts the pairs goes up first; equal scores make one straight line."""
    same = np.array([True, True, False, False])
    parted = places(roc_chart(np.array([0.9, 0.8, 0.2, 0.1], np.float32), same))
    assert [x for x, _ in parted[:3]] == [parted[0][0]] * 3
    assert len(places(roc_chart(np.full(4, 0.5, np.float32), same))) == 2


def test_dimensions_are_halved_as_a_shorter_whitening_would(tmp_path: Path) -> None:
    """The first dimensions at unit length again, down to eight."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(40, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevant = [np.array([(row + 1) % 20, (row + 7) % 20]) for row in range(20)]
    truth = Truth(relevant, [np.array([row]) for row in range(20)])
    pictures = [Picture(tmp_path)] * 40
    test_set = QuerySet(pictures, np.arange(20), np.arange(20, 40), {"": truth}, ["ap"])

    def score(asked: QuerySet, rows: np.ndarray) -> float:
        return score_first(asked, Compared(rows[asked.queries], rows[asked.gallery]), alone())

    curve = dimension_curve(test_set, vectors, score)
    assert (curve.changed, curve.metric, curve.own) == ("dimensions", "ap", 32)
    short = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    expected = [(8.0, score(test_set, short)), (32.0, score(test_set, vectors))]
    assert np.array([curve.points[0], curve.points[-1]]) == pytest.approx(np.array(expected))
    assert [at for at, _ in curve.points] == [8, 16, 32]


def test_a_changed_checkpoint_pools_as_one_made_so(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """With the exponent that is asked for, else the document's of that size, else the trained."""
    size = load_checkpoint(tiny_checkpoint).document.preprocessing.size
    write_changed(tiny_checkpoint, tmp_path / "own.safetensors", Change(None, 7.0))
    for change, p in (
        (Change(), 7),
        (Change(size + 32), 3),
        (Change(size + 32, 5.0), 5),
        (Change(size, 2.0), 2),
    ):
        write_changed(tmp_path / "own.safetensors", tmp_path / "changed.safetensors", change)
        model, document, _ = load_checkpoint(tmp_path / "changed.safetensors")
        assert model.pool.p is not None
        assert (float(model.pool.p), exponent_of(document)) == (p, p)
        assert document.preprocessing.size == (change.size or size)
    model, document, _ = load_checkpoint(tiny_checkpoint)
    plain = document.model_copy(update={"pooling": PoolingSpec(kind="avg", p=None)})
    save_checkpoint(tmp_path / "avg.safetensors", MultiGrain.build(plain), plain)
    with pytest.raises(ConfigError, match="pooled by avg, which has no exponent"):
        write_changed(tmp_path / "avg.safetensors", tmp_path / "b.safetensors", Change(None, 2.0))
