"""k-reciprocal re-ranking of a test set's lists, against loops over its queries."""

from pathlib import Path

import numpy as np
import pytest
from slow_metrics import slow_ap
from slow_reciprocal import zhong

from multigrain.ranking import Floats
from multigrain.reciprocal import DEFAULT_NEIGHBOURHOOD
from multigrain.truth import Rows, Truth
from trainer.engine.processes import alone
from trainer.evaluation.compared import Compared
from trainer.evaluation.reranked import Reranked, reranked_ranks
from trainer.evaluation.scores import Scores, score_test_set
from trainer.protocols.test_set import NO_ROWS, Picture, QuerySet, groups_truth

NUM_GROUPS, NUM_ROWS, NUM_LISTED = 6, 24, 10
GROUPS = [row % NUM_GROUPS for row in range(NUM_ROWS)]


@pytest.fixture(scope="module")
def vectors() -> Floats:
    """Unit rows around the middles of their groups."""
    random = np.random.default_rng(7)
    middles = random.normal(size=(NUM_GROUPS, 8))
    rows = middles[GROUPS] + 1.5 * random.normal(size=(NUM_ROWS, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def scored(
    vectors: Floats, truths: dict[str, Truth], metrics: list[str], pictures: list[Picture]
) -> Scores:
    rows = np.arange(NUM_ROWS)
    test_set = QuerySet(pictures, rows, rows, truths, metrics)
    compared = Compared(vectors, vectors)
    return score_test_set(test_set, compared, alone(), num_reranked=NUM_LISTED, seed=0)


@pytest.fixture(scope="module")
def rankings(vectors: Floats) -> list[list[int]]:
    """For each query itself, its nearest others re-ranked, and the rest."""
    return [literal_ranking(vectors, query) for query in range(NUM_ROWS)]


def literal_ranking(vectors: Floats, query: int) -> list[int]:
    others = [row for row in range(NUM_ROWS) if row != query]
    others.sort(key=lambda row: -float(vectors[row] @ vectors[query]))
    listed, rest = others[:NUM_LISTED], others[NUM_LISTED:]
    far = zhong(vectors[query], vectors[listed], DEFAULT_NEIGHBOURHOOD)
    again = [row for _, row in sorted(zip(far, listed, strict=True))]
    return [query, *again, *rest]


def literal_ranks(ranking: list[int], relevant: Rows, junk: Rows) -> list[int]:
    ranking = [row for row in ranking if row not in junk]
    return [rank for rank, row in enumerate(ranking) if row in relevant]


def test_each_photo_left_out_has_the_others_re_ranked_and_junk_removed_behind(
    vectors: Floats, rankings: list[list[int]]
) -> None:
    """By two truths of one ranking, in which junk is listed as any other row is."""
    alone_out = groups_truth(GROUPS, GROUPS, own=range(NUM_ROWS))
    more_junk = [np.union1d(own, [(own[0] + 1) % NUM_ROWS, 3]) for own in alone_out.junk]
    truths = {"": alone_out, "hard": Truth(alone_out.relevant, more_junk)}
    pictures = [Picture(Path(f"{row}.jpg")) for row in range(NUM_ROWS)]
    found = scored(vectors, truths, ["ap", "recall_at_1"], pictures)
    for name, truth in truths.items():
        prefix = f"{name}." if name else ""
        expected = []
        for query in range(NUM_ROWS):
            ranks = literal_ranks(rankings[query], truth.relevant[query], truth.junk[query])
            num_positives = len(set(truth.relevant[query]) - set(truth.junk[query]))
            expected.append(slow_ap(ranks, num_positives))
        assert found.per_query[f"{prefix}ap_reranked"] == pytest.approx(expected)
        values = [found.metrics[f"{prefix}ap{end}"].value for end in ("", "_reranked")]
        gain = found.metrics[f"{prefix}ap_reranked_gain"]
        assert gain.value == pytest.approx(values[1] - values[0])
        assert gain.interval.low < gain.value < gain.interval.high
    assert found.metrics["ap_reranked_gain"].value > 0.01  # groups are what neighbours share
    assert "recall_at_1_reranked" in found.metrics


def test_the_query_itself_is_nobody_s_neighbour_and_stays_in_front(
    vectors: Floats, rankings: list[list[int]]
) -> None:
    """Where it counts as an answer, as in UKBench, and where a list names it a second time."""
    truths = {"": groups_truth(GROUPS, GROUPS, own=None)}
    pictures = [Picture(Path(f"{row}.jpg")) for row in range(NUM_ROWS)]
    found = scored(vectors, truths, ["ukbench_ns"], pictures)
    ranks = [
        literal_ranks(ranking, relevant, NO_ROWS)
        for ranking, relevant in zip(rankings, truths[""].relevant, strict=True)
    ]
    expected = [sum(rank < 4 for rank in own) for own in ranks]
    assert found.per_query["ukbench_ns_reranked"].tolist() == expected
    rows = np.arange(NUM_ROWS)
    asked_apart = QuerySet(pictures * 2, rows, rows + NUM_ROWS, truths, ["ukbench_ns"])
    again = score_test_set(
        asked_apart, Compared(vectors, vectors), alone(), num_reranked=NUM_LISTED, seed=0
    )
    assert again.per_query["ukbench_ns_reranked"].tolist() == expected


@pytest.mark.parametrize(
    ("distances", "junk", "expected"),
    [
        ([0.1, 0.1, 0.5], [], [1, 7]),  # equal: the wrong one first
        ([0.3, 0.2, 0.1], [], [1, 7]),
        ([0.3, 0.2, 0.1], [6], [0, 7]),  # what is not counted leaves no gap
    ],
)
def test_ties_count_against_the_model_and_what_is_not_listed_keeps_its_rank(
    distances: list[float], junk: list[int], expected: list[int]
) -> None:
    """Of two right answers one is listed; the other one's plain rank knows of the junk."""
    lists = [Reranked(np.array([4, 5, 6]), np.array(distances, np.float32))]
    truth = Truth([np.array([5, 9])], [np.array(junk, np.int64)])
    (ranks,) = reranked_ranks(lists, [np.array([1, 7])], truth)
    assert ranks.tolist() == expected
