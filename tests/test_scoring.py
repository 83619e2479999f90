"""Scores of many embeddings at once against a loop over queries, and against other software."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow_metrics import slow_ap
from torch import Tensor

from multigrain import scoring
from multigrain.metrics import MetricError, positive_ranks
from multigrain.scoring import class_scores, copy_ranks


def few_valued(num_rows: int, seed: int) -> Tensor:
    """Rows whose products are small whole numbers, so that many tie, and exactly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (num_rows, 3), generator=generator).float()


def slow_class_ap(gallery: Tensor, labels: Tensor) -> list[float]:
    """Leave one out, one query after another."""
    found = []
    for row, query in enumerate(gallery):
        own = np.arange(len(gallery)) == row
        relevant = (labels == labels[row]).numpy()
        ranks = positive_ranks((gallery @ query).numpy(), relevant, own)
        found.append(slow_ap(ranks.tolist(), len(ranks)) if len(ranks) else np.nan)
    return found


@given(
    num_rows=st.integers(1, 24),
    num_classes=st.integers(1, 6),
    block=st.integers(1, 200),
    seed=st.integers(0, 1000),
)
def test_class_ap_equals_a_loop_over_queries(
    num_rows: int, num_classes: int, block: int, seed: int
) -> None:
    """With ties, lonely classes and any size of block."""
    gallery = few_valued(num_rows, seed)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, num_classes, num_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_MAX_SCORES", block)
        found = class_scores(gallery, torch.arange(num_rows), gallery, labels)
    np.testing.assert_allclose(found.ap, slow_class_ap(gallery, labels), atol=1e-12)


@given(num_rows=st.integers(1, 24), num_copies=st.integers(0, 30), seed=st.integers(0, 1000))
def test_the_rank_of_an_original_equals_a_loop_over_copies(
    num_rows: int, num_copies: int, seed: int
) -> None:
    """Originals that tie with another count as found behind it."""
    gallery, copies = few_valued(num_rows, seed), few_valued(num_copies, seed + 1)
    originals = torch.from_numpy(np.random.default_rng(seed).integers(0, num_rows, num_copies))
    expected = [
        positive_ranks(
            (gallery @ copy).numpy(), np.arange(num_rows) == int(row), np.zeros(num_rows, bool)
        ).item()
        for copy, row in zip(copies, originals, strict=True)
    ]
    assert copy_ranks(copies, originals, gallery).tolist() == expected


def test_a_part_of_the_queries_has_the_scores_of_the_whole() -> None:
    """Each process scores its own photos against all."""
    gallery, labels = few_valued(20, 5), torch.arange(20) % 4
    whole = class_scores(gallery, torch.arange(20), gallery, labels)
    part = class_scores(gallery[7:13], torch.arange(7, 13), gallery, labels)
    for all_values, own in zip(whole, part, strict=True):
        torch.testing.assert_close(own, all_values[7:13])


def test_scores_equal_those_of_pytorch_metric_learning() -> None:
    """Precision at 1 and MAP@R of its AccuracyCalculator, leave one out."""
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    torch.manual_seed(0)
    labels = torch.randint(0, 8, (120,))
    gallery = torch.nn.functional.normalize(torch.randn(120, 16) + torch.randn(8, 16)[labels])
    knn = pytest.importorskip("pytorch_metric_learning.utils.inference").CustomKNN(
        pytest.importorskip("pytorch_metric_learning.distances").CosineSimilarity()
    )
    calculator = accuracy.AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "mean_average_precision"),
        k=119,
        knn_func=knn,
    )
    theirs = calculator.get_accuracy(gallery, labels)
    ours = class_scores(gallery, torch.arange(120), gallery, labels)
    assert float(ours.recall_at_1.mean()) == pytest.approx(theirs["precision_at_1"])
    assert float(ours.map_at_r.mean()) == pytest.approx(theirs["mean_average_precision_at_r"])
    assert float(ours.ap.mean()) == pytest.approx(theirs["mean_average_precision"])


def test_class_ap_equals_scikit_learn() -> None:
    """Rectangular average precision of one query, without ties."""
    sklearn = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(1)
    gallery, labels = torch.randn(40, 4), torch.arange(40) % 3
    ours = class_scores(gallery[:1], torch.tensor([0]), gallery, labels).ap
    theirs = sklearn.average_precision_score(labels[1:] == 0, (gallery @ gallery[0])[1:])
    assert float(ours) == pytest.approx(theirs)


def test_embeddings_that_are_not_finite_are_refused() -> None:
    """A model that returns NaN must not pass for one."""
    broken = torch.full((2, 3), torch.nan)
    with pytest.raises(MetricError, match="not finite"):
        copy_ranks(torch.zeros(1, 3), torch.tensor([0]), broken)
    with pytest.raises(MetricError, match="not finite"):
        class_scores(broken, torch.arange(2), broken, torch.zeros(2, dtype=torch.int64))
