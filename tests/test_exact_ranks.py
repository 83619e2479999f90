"""Exact ranks against a loop over queries, and their independence of blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multigrain import exact_ranks as module
from multigrain.exact_ranks import Truth, exact_ranks
from multigrain.metrics import MetricError, positive_ranks


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
