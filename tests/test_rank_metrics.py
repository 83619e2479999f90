"""Each metric against its golden values, a literal transcription of its protocol, and others."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multigrain import rank_metrics
from multigrain.metrics import MetricError
from multigrain.rank_metrics import RankTable

Ranking = list[bool]  # whether each place of a ranking holds a positive, junk removed


def table_of(*queries: tuple[Sequence[int], int]) -> RankTable:
    return RankTable.of(
        [np.array(ranks, np.int64) for ranks, _ in queries], [count for _, count in queries]
    )


@pytest.mark.parametrize(
    ("ranks", "num_positives", "trapezoid", "rectangular"),
    [
        ([0], 1, 1.0, 1.0),
        ([1], 1, 0.25, 0.5),
        ([0, 2], 2, 0.791667, 0.833333),
        ([1, 3], 2, 0.333333, 0.5),
        ([0, 2, 5], 3, 0.677778, 0.722222),
        ([0, 2], 4, 0.395833, 0.416667),
        ([], 2, 0.0, 0.0),
    ],
)
def test_both_average_precisions_have_their_golden_values(
    ranks: list[int], num_positives: int, trapezoid: float, rectangular: float
) -> None:
    """By ranks and number of positives, beside a query that is not scored."""
    table = table_of((ranks, num_positives), ([], 0))
    found = rank_metrics.ap_trapezoid(table), rank_metrics.ap(table)
    assert [values[0] for values in found] == pytest.approx([trapezoid, rectangular], abs=1e-6)
    assert all(np.isnan(values[1]) for values in found)


@pytest.mark.parametrize(
    ("ranks", "num_positives", "map_at_r", "r_precision"),
    [([0, 2], 3, 0.555556, 0.666667), ([1], 2, 0.25, 0.5)],
)
def test_map_at_r_and_r_precision_have_their_golden_values(
    ranks: list[int], num_positives: int, map_at_r: float, r_precision: float
) -> None:
    """Relevance 1,0,1 with R = 3, and 0,1 with R = 2."""
    table = table_of((ranks, num_positives))
    assert rank_metrics.map_at_r(table)[0] == pytest.approx(map_at_r, abs=1e-6)
    assert rank_metrics.r_precision(table)[0] == pytest.approx(r_precision, abs=1e-6)


def literal_trapezoid(ranking: Ranking, n: int) -> float:
    """Area under precision over recall, precision taken before and after each positive."""
    area, found, old_recall, old_precision = 0.0, 0, 0.0, 1.0
    for place, good in enumerate(ranking, start=1):
        found += good
        recall, precision = found / n, found / place
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


def literal_map_at(ranking: Ranking, n: int, k: int) -> float:
    """Mean over the first k places of precision there where the place is right."""
    first = ranking[:k]
    return sum(sum(first[: i + 1]) / (i + 1) for i in range(len(first)) if first[i]) / min(n, k)


def literal_revisited_precision(ranking: Ranking, k: int) -> float:
    """`kq = min(max(pos), k); (pos <= kq).sum() / kq`, positions from 1."""
    positions = [place + 1 for place, good in enumerate(ranking) if good]
    last = min(max(positions), k)
    return sum(position <= last for position in positions) / last


def literal_minp(ranking: Ranking) -> float:
    """Positives over the place of the hardest one."""
    return sum(ranking) / (max(place for place, good in enumerate(ranking) if good) + 1)


LITERAL: dict[str, tuple[Callable[[RankTable], np.ndarray], Callable[[Ranking, int], float]]] = {
    "ap_trapezoid": (rank_metrics.ap_trapezoid, literal_trapezoid),
    "ap": (rank_metrics.ap, lambda ranking, n: literal_map_at(ranking, n, len(ranking) + n)),
    "map_at_k": (
        lambda table: rank_metrics.map_at_k(table, 3),
        lambda ranking, n: literal_map_at(ranking, n, 3),
    ),
    "map_at_r": (rank_metrics.map_at_r, lambda ranking, n: literal_map_at(ranking, n, n)),
    "r_precision": (rank_metrics.r_precision, lambda ranking, n: sum(ranking[:n]) / n),
    "recall_at_k": (
        lambda table: rank_metrics.recall_at_k(table, 2),
        lambda ranking, _: float(any(ranking[:2])),
    ),
    "cmc_at_k": (
        lambda table: rank_metrics.cmc_at_k(table, 3),
        lambda ranking, _: float(any(ranking[:3])),
    ),
    "minp": (rank_metrics.minp, lambda ranking, _: literal_minp(ranking)),
    "precision_at_k": (
        lambda table: rank_metrics.precision_at_k(table, 3),
        lambda ranking, _: literal_revisited_precision(ranking, 3),
    ),
}


@pytest.mark.parametrize("name", LITERAL)
@settings(max_examples=40)
@given(rankings=st.lists(st.lists(st.booleans(), min_size=1, max_size=12).filter(any), min_size=1))
def test_a_metric_equals_the_literal_protocol(name: str, rankings: list[Ranking]) -> None:
    """On random rankings that hold all their positives, several queries at once."""
    metric, literal = LITERAL[name]
    table = table_of(*((np.flatnonzero(ranking), sum(ranking)) for ranking in rankings))
    expected = [literal(ranking, sum(ranking)) for ranking in rankings]
    np.testing.assert_allclose(metric(table), expected, atol=1e-12)


@given(
    ranking=st.lists(st.booleans(), min_size=1, max_size=12),
    num_missing=st.integers(1, 3),
    k=st.integers(1, 5),
)
def test_positives_that_were_not_found_lower_the_score(
    ranking: Ranking, num_missing: int, k: int
) -> None:
    """They stand in the divisor alone; the hardest one being absent leaves no minp."""
    n = sum(ranking) + num_missing
    table = table_of((np.flatnonzero(ranking), n))
    assert rank_metrics.map_at_k(table, k)[0] == pytest.approx(literal_map_at(ranking, n, k))
    assert rank_metrics.minp(table)[0] == 0


def test_ukbench_counts_the_query_itself() -> None:
    """Four at best; a table of another protocol is refused."""
    table = table_of(([0, 1, 2, 3], 4), ([0, 2, 7, 9], 4))
    assert rank_metrics.ukbench_ns(table).tolist() == [4, 2]
    with pytest.raises(MetricError, match="four positives"):
        rank_metrics.ukbench_ns(table_of(([0], 3)))


def test_average_precision_equals_scikit_learn() -> None:
    """Of one query without ties."""
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the dev extra")
    right = np.random.default_rng(0).random(50) < 0.3
    table = table_of((np.flatnonzero(right), int(right.sum())))
    theirs = sklearn.average_precision_score(right, -np.arange(50))
    assert rank_metrics.ap(table)[0] == pytest.approx(theirs)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), num_labels=st.integers(1, 9), num_rows=st.integers(2, 60))
def test_metric_learning_scores_equal_pytorch_metric_learning(
    seed: int, num_labels: int, num_rows: int
) -> None:
    """Recall@1, R-precision, MAP@R and AP of leave-one-out rankings in a random order."""
    accuracy = pytest.importorskip(
        "pytorch_metric_learning.utils.accuracy_calculator", reason="in the metric extra"
    )
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_labels, num_rows)
    others = np.array(
        [random.permutation(np.delete(np.arange(num_rows), q)) for q in range(num_rows)]
    )
    right = labels[others] == labels[:, None]
    assume(right.any())
    table = table_of(*((np.flatnonzero(row), int(row.sum())) for row in right))
    calculator = accuracy.AccuracyCalculator(
        include=(
            "precision_at_1",
            "r_precision",
            "mean_average_precision_at_r",
            "mean_average_precision",
        ),
        k=num_rows - 1,
        knn_func=lambda *_: (torch.zeros(others.shape), torch.from_numpy(others)),
    )
    rows = torch.zeros(num_rows, 1)
    theirs = calculator.get_accuracy(rows, torch.from_numpy(labels))
    for name, metric in (
        ("precision_at_1", rank_metrics.metric("recall_at_1")),
        ("r_precision", rank_metrics.r_precision),
        ("mean_average_precision_at_r", rank_metrics.map_at_r),
        ("mean_average_precision", rank_metrics.ap),
    ):
        assert rank_metrics.mean(metric(table)) == pytest.approx(theirs[name])


@pytest.mark.parametrize("ranks", [[2, 1], [1, 1], [-1]])
def test_ranks_that_do_not_ascend_are_refused(ranks: list[int]) -> None:
    """Every metric reads the j-th entry as the j-th positive."""
    with pytest.raises(MetricError, match="ascend"):
        table_of(([0, 5], 2), (ranks, 2))


def test_a_mean_leaves_out_queries_without_positives() -> None:
    """And says when there is none at all, instead of 0 or NaN."""
    assert rank_metrics.mean(np.array([1.0, np.nan, 0.0])) == pytest.approx(0.5)
    with pytest.raises(MetricError, match="nothing to score"):
        rank_metrics.mean(np.array([np.nan]))


@given(rankings=st.lists(st.lists(st.booleans(), min_size=1, max_size=12).filter(any), min_size=1))
@settings(max_examples=30)
def test_a_metric_needs_no_rank_above_its_highest(rankings: list[Ranking]) -> None:
    """Tables cut there score alike: the search need not find what stands behind."""
    counts = [sum(ranking) for ranking in rankings]
    names = ["recall_at_2", "map_at_3", "map_at_r", "r_precision", "precision_at_4", "cmc_at_1"]
    for name in names:
        highest = rank_metrics.highest_rank([name], counts)
        assert highest is not None
        found = [np.flatnonzero(ranking) for ranking in rankings]
        cut = RankTable.of([ranks[ranks < highest] for ranks in found], counts)
        metric = rank_metrics.metric(name)
        np.testing.assert_allclose(metric(cut), metric(RankTable.of(found, counts)))
    assert rank_metrics.highest_rank([*names, "ap"], counts) is None


@pytest.mark.parametrize("name", ["recal_at_5", "recall_at_0", "map", "mean"])
def test_an_unknown_metric_is_named_with_those_there_are(name: str) -> None:
    """The message is enough to mend the call."""
    with pytest.raises(MetricError, match="choose of ap, ap_trapezoid"):
        rank_metrics.metric(name)
