"""Scores of hand-made embeddings, where photos would add nothing."""

from pathlib import Path

import numpy as np
import pytest

from multigrain.exact_ranks import Rows, Truth
from multigrain.metrics import MetricError
from trainer.engine.processes import alone
from trainer.evaluation.scores import score_pairs, score_test_set
from trainer.protocols.test_set import NO_ROWS, PairSet, Picture, QuerySet

NUM_QUERIES, NUM_ROWS = 12, 8


def unit(num_rows: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(num_rows, 6)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def query_set(relevant: list[Rows], junk: list[Rows]) -> QuerySet:
    rows = np.arange(NUM_QUERIES + NUM_ROWS)
    truth = {"": Truth(relevant, junk)}
    pictures = [Picture(Path("photo.jpg"))] * len(rows)
    return QuerySet(pictures, rows[:NUM_QUERIES], rows[NUM_QUERIES:], truth, ["ap"], pooled=True)


def test_pooled_scores_equal_a_loop_over_all_pairs() -> None:
    """Queries without an answer can only add wrong pairs; junk pairs are left out."""
    random = np.random.default_rng(0)
    relevant = [np.array([random.integers(NUM_ROWS)]) if q % 3 else NO_ROWS for q in range(12)]
    junk = [np.array([q % NUM_ROWS]) if q % 4 == 0 else NO_ROWS for q in range(NUM_QUERIES)]
    vectors = unit(NUM_QUERIES + NUM_ROWS, 1)
    scores = vectors[:NUM_QUERIES] @ vectors[NUM_QUERIES:].T
    pairs = [
        (-scores[query, row], row in relevant[query])
        for query in range(NUM_QUERIES)
        for row in range(NUM_ROWS)
        if row not in junk[query]
    ]
    right = [good for _, good in sorted(pairs)]
    hits = np.flatnonzero(right) + 1
    expected = np.mean([j / place for j, place in enumerate(hits, start=1)])
    found = score_test_set(query_set(relevant, junk), vectors, alone(), seed=0)
    score = found.metrics["micro_ap"]
    assert score.value == pytest.approx(expected)
    assert score.interval.low < score.value < score.interval.high
    assert set(found.metrics) == {"ap", "micro_ap", "recall_at_precision_90"}
    assert set(found.per_query) == {"ap"}  # a pooled score is no mean over queries


def test_pairs_are_scored_by_their_cosine() -> None:
    """Same pairs are a row and a noisy copy of it, others two rows."""
    rows = unit(20, 0)
    copies = rows + 0.2 * unit(20, 1)
    vectors = np.concatenate([rows, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    first = np.concatenate([np.arange(20), np.arange(19)])
    second = np.concatenate([np.arange(20) + 20, np.arange(1, 20)])
    same = np.arange(39) < 20
    found = score_pairs(
        PairSet([Picture(Path("photo.jpg"))] * 40, first, second, same), vectors, seed=0
    )
    cosines = (vectors[first] * vectors[second]).sum(axis=1)
    expected = (cosines[same][:, None] > cosines[~same]).mean()
    assert found.metrics["roc_area"].value == pytest.approx(expected)
    assert found.metrics["tpr_at_fpr_0.1"].value == pytest.approx(
        (cosines[same] > np.sort(cosines[~same])[-2]).mean()
    )


def test_broken_embeddings_and_empty_truths_are_refused() -> None:
    """Neither passes for a score."""
    vectors = unit(NUM_QUERIES + NUM_ROWS, 1)
    nothing = query_set([NO_ROWS] * NUM_QUERIES, [NO_ROWS] * NUM_QUERIES)
    with pytest.raises(MetricError, match="nothing to score"):
        score_test_set(nothing, vectors, alone(), seed=0)
    vectors[3] = np.nan
    with pytest.raises(MetricError, match="not finite"):
        score_test_set(nothing, vectors, alone(), seed=0)
