"""Exact ranks against a loop over queries, and their independence of blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multigrain import exact_ranks as module
from multigrain import own_ranks, right_pairs
from multigrain.exact_ranks import exact_ranks
from multigrain.metrics import MetricError, positive_ranks
from multigrain.truth import Truth
from trainer.protocols.test_set import groups_truth


def few_valued(num_rows: int, seed: int) -> Tensor:
    """Rows whose products are small whole numbers, so that many tie, and exactly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (num_rows, 3), generator=generator).float()


def random_truth(num_queries: int, num_rows: int, seed: int) -> Truth:
    random = np.random.default_rng(seed)
    drawn = [random.random((num_queries, num_rows)) < share for share in (0.3, 0.2)]
    return Truth(*([np.flatnonzero(row) for row in table] for table in drawn))


def slow(queries: Tensor, gallery: Tensor, truth: Truth) -> list[list[int]]:
    rows = np.arange(len(gallery))
    return [
        positive_ranks(
            (gallery @ query).numpy(), np.isin(rows, relevant), np.isin(rows, junk)
        ).tolist()
        for query, relevant, junk in zip(queries, *truth, strict=True)
    ]


@given(
    num_queries=st.integers(0, 9),
    num_rows=st.integers(1, 20),
    block=st.integers(1, 5),
    sample=st.integers(1, 8),
    limit=st.none() | st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_ranks_equal_a_loop_over_queries(
    num_queries: int, num_rows: int, block: int, sample: int, limit: int | None, seed: int
) -> None:
    """With ties, junk, queries without answers, any block and sample, and up to any rank."""
    queries, gallery = few_valued(num_queries, seed), few_valued(num_rows, seed + 1)
    truth = random_truth(num_queries, num_rows, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST", block)
        patch.setattr(module, "_FEWEST", 1)
        patch.setattr(module, "_SAMPLE", sample)
        found = [ranks.tolist() for ranks in exact_ranks(queries, gallery, truth, limit=limit)]
    expected = slow(queries, gallery, truth)
    assert found == [[rank for rank in own if limit is None or rank < limit] for own in expected]
    assert truth.num_positives() == [len(own) for own in expected]


@given(
    num_rows=st.integers(1, 24),
    block=st.integers(1, 7),
    sampled=st.integers(1, 3),
    doubtful=st.integers(1, 30),
    limit=st.none() | st.integers(1, 6),
    is_shared=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=120)
def test_ranks_among_the_rows_themselves_equal_a_loop(
    *,
    num_rows: int,
    block: int,
    sampled: int,
    doubtful: int,
    limit: int | None,
    is_shared: bool,
    seed: int,
) -> None:
    """With ties, what is right one way only, itself right or junk or neither, shared answers."""
    rows, truth = few_valued(num_rows, seed), random_truth(num_rows, num_rows, seed)
    if is_shared:
        some = truth.relevant[: 1 + num_rows // 6]
        truth = truth._replace(relevant=[some[row % len(some)] for row in range(num_rows)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_ranks, "_BLOCK", block)
        patch.setattr(own_ranks, "_SAMPLE_SHARE", 1)
        patch.setattr(own_ranks, "_MOST_SAMPLED", sampled)
        patch.setattr(right_pairs, "_DOUBTFUL", doubtful)
        patch.setattr(module, "_block_ranks", None)
        ranks = exact_ranks(rows, rows.clone(), truth, limit=limit)
    found = [own.tolist() for own in ranks]
    expected = slow(rows, rows, truth)
    assert found == [[rank for rank in own if limit is None or rank < limit] for own in expected]


@pytest.mark.parametrize("limit", [None, 9])
def test_ranks_among_themselves_are_those_of_queries_and_a_gallery(limit: int | None) -> None:
    """Of unit rows in classes, whose scores are close: product by product or each way alone."""
    torch.manual_seed(0)
    centres = torch.randn(60, 64)[torch.arange(600) % 60]
    rows = torch.nn.functional.normalize(centres + 2 * torch.randn(600, 64), dim=1)
    classes = (np.arange(600) % 60).tolist()
    truth = groups_truth(classes, classes, own=range(600))
    halves = [
        exact_ranks(rows[own.start : own.stop], rows, truth.part(own), limit=limit)
        for own in (range(300), range(300, 600))
    ]
    expected = [ranks.tolist() for half in halves for ranks in half]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_ranks, "_BLOCK", 64)
        patch.setattr(module, "_block_ranks", None)
        found = exact_ranks(rows, rows, truth, limit=limit)
    assert [ranks.tolist() for ranks in found] == expected
    assert sum(map(len, expected)) > 1000


def test_nearly_equal_scores_rank_alike_in_every_block() -> None:
    """Copies of one row differ by rounding alone, which a block's shape must not decide."""
    torch.manual_seed(0)
    row = torch.nn.functional.normalize(torch.randn(512), dim=0)
    gallery = row.repeat(400, 1)
    gallery[200:] += 1e-8 * torch.randn(200, 512)
    queries = torch.nn.functional.normalize(row + 0.02 * torch.randn(30, 512), dim=1)
    truth = Truth([np.arange(0, 400, 40)] * 30, [np.empty(0, np.int64)] * 30)
    whole = exact_ranks(queries, gallery, truth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST", 7)
        parts = exact_ranks(queries, gallery, truth)
    assert [ranks.tolist() for ranks in parts] == [ranks.tolist() for ranks in whole]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_embeddings_that_are_not_finite_are_refused(value: float) -> None:
    """A model that returns NaN must not pass for one."""
    good, broken = torch.ones(2, 3), torch.tensor([[1.0, value, 0.0]])
    nothing = Truth([np.empty(0, np.int64)] * 2, [np.empty(0, np.int64)] * 2)
    with pytest.raises(MetricError, match="not finite"):
        exact_ranks(good, broken, nothing)
