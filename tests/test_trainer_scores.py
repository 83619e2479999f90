"""Scores of hand-made embeddings, where photos would add nothing."""

from pathlib import Path

import numpy as np
import pytest

from multigrain.expansion import augmented_gallery
from multigrain.metrics import MetricError
from multigrain.truth import Rows, Truth
from trainer.engine.processes import alone
from trainer.evaluation.compared import Compared, compared_rows
from trainer.evaluation.scores import pair_cosines, score_pairs, score_test_set
from trainer.protocols.test_set import NO_ROWS, PairSet, Picture, QuerySet

NUM_QUERIES, NUM_ROWS = 12, 8


def unit(num_rows: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(num_rows, 6)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def query_set(relevant: list[Rows], junk: list[Rows]) -> QuerySet:
    rows = np.arange(NUM_QUERIES + NUM_ROWS)
    truth = {"": Truth(relevant, junk)}
    pictures = [Picture(Path(f"{row}.jpg")) for row in rows]
    return QuerySet(pictures, rows[:NUM_QUERIES], rows[NUM_QUERIES:], truth, ["ap"], pooled=True)


def halves(vectors: np.ndarray) -> Compared:
    return Compared(vectors[:NUM_QUERIES], vectors[NUM_QUERIES:])


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
    found = score_test_set(query_set(relevant, junk), halves(vectors), alone(), seed=0)
    score = found.metrics["micro_ap"]
    assert score.value == pytest.approx(expected)
    assert score.interval.low < score.value < score.interval.high
    assert set(found.metrics) == {"ap", "micro_ap", "recall_at_precision_90"}
    assert set(found.per_query) == {"ap"}  # a pooled score is no mean over queries


def test_junk_takes_no_candidate_s_place() -> None:
    """Twelve rows before the answer do not count: it is among the ten that do."""
    rows = np.array([[1, 0]] * 12 + [[0.9, 0.1]] + [[0, 1]] * 5, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    truth = {"": Truth([np.array([12])], [np.arange(12)])}
    pictures = [Picture(Path(f"{row}.jpg")) for row in range(19)]
    test_set = QuerySet(pictures, np.array([0]), np.arange(1, 19), truth, ["ap"], pooled=True)
    found = score_test_set(test_set, Compared(rows[:1], rows), alone(), seed=0)
    assert found.metrics["micro_ap"].value == 1


def test_pairs_are_scored_by_their_cosine() -> None:
    """Same pairs are a row and a noisy copy of it, others two rows."""
    rows = unit(20, 0)
    copies = rows + 0.2 * unit(20, 1)
    vectors = np.concatenate([rows, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    first = np.concatenate([np.arange(20), np.arange(19)])
    second = np.concatenate([np.arange(20) + 20, np.arange(1, 20)])
    same = np.arange(39) < 20
    pairs = PairSet([Picture(Path("photo.jpg"))] * 40, first, second, same)
    found = score_pairs(pairs, pair_cosines(pairs, vectors), seed=0)
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
        score_test_set(nothing, halves(vectors), alone(), seed=0)
    vectors[3] = np.nan
    with pytest.raises(MetricError, match="not finite"):
        score_test_set(nothing, halves(vectors), alone(), seed=0)


def test_a_background_makes_scores_of_different_queries_comparable() -> None:
    """Every other query looks like all photos; what is taken off lets one threshold part pairs."""
    own = np.eye(41, dtype=np.float32)
    rows = 0.8 * own[0] + 0.6 * own[1:]
    queries = own[1 : NUM_QUERIES + 1].copy()
    queries[::2] += 2 * own[0]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    units = queries, rows[:NUM_QUERIES]
    relevant = [np.array([row]) for row in range(NUM_QUERIES)]
    test_set = query_set(relevant, [NO_ROWS] * NUM_QUERIES)
    compared, background = Compared(*units), rows[NUM_QUERIES:]
    found = score_test_set(test_set, compared, alone(), background=background, seed=0).metrics
    cosines = units[0] @ units[1].T
    bias = np.sort(units[0] @ background.T, axis=1)[:, -10:].mean(axis=1, keepdims=True)
    for name, scores in (("micro_ap", cosines), ("micro_ap_normalised", cosines - bias)):
        best = np.argsort(-scores, axis=1)[:, :10]
        pairs = [(-scores[q, row], row == q) for q in range(NUM_QUERIES) for row in best[q]]
        hits = np.flatnonzero([right for _, right in sorted(pairs)]) + 1
        expected = sum(j / place for j, place in enumerate(hits, start=1)) / NUM_QUERIES
        assert found[name].value == pytest.approx(expected)
    gain = found["micro_ap_gain"]
    assert gain.value == pytest.approx(found["micro_ap_normalised"].value - found["micro_ap"].value)
    assert found["micro_ap_normalised"].value == pytest.approx(1)
    assert gain.value > 0.1
    assert gain.interval.low <= gain.value <= gain.interval.high
    assert {"recall_at_precision_90", "recall_at_precision_90_normalised"} <= set(found)


def test_queries_and_gallery_move_towards_their_nearest_others() -> None:
    """As one by one, each leaving its own picture out, also where a query is in the gallery."""
    vectors, n = unit(30, 3), 4
    rows, asked = np.arange(30), np.arange(5, 17)
    truth = {"": Truth([NO_ROWS] * len(asked), [NO_ROWS] * len(asked))}
    pictures = [Picture(Path(f"{row}.jpg")) for row in rows]
    for gallery in (rows, rows[12:]):
        test_set = QuerySet(pictures, asked, gallery, truth, ["ap"])
        found = compared_rows(test_set, vectors, alone(), query_expansion=n)
        assert (found.gallery == vectors[gallery]).all()
        for row, query in zip(found.queries, asked, strict=True):
            others = gallery[gallery != query]
            cosines = vectors[others] @ vectors[query]
            best = np.argsort(-cosines)[:n]
            moved = vectors[query] + np.maximum(cosines[best], 0) ** 3 @ vectors[others[best]]
            assert row == pytest.approx(moved / np.linalg.norm(moved), abs=1e-5)
        both = compared_rows(test_set, vectors, alone(), query_expansion=n, gallery_expansion=2)
        assert both.gallery == pytest.approx(augmented_gallery(vectors[gallery], 2), abs=1e-6)
        assert not np.allclose(both.queries, found.queries)
