"""The margin loss and its negatives against slow, plain formulas."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import MarginLoss as MetricLearningMarginLoss
from torch import Tensor
from waiting import Waiting

from trainer.losses.margin import (
    NO_INSTANCE,
    Divisor,
    Pairs,
    choose_pairs,
    distances_of,
    margin_loss,
    squared_distances,
)
from trainer.losses.negatives import (
    Negatives,
    distance_weights,
    gumbel_keys,
    noise_rows,
    reference_weights,
)

ALPHA = 0.2
SETTINGS: dict[str, Any] = {
    "negatives": Negatives.UNIFORM,
    "effective_dim": 8,
    "most_negatives": 5,
    "seed": 7,
}


def unit(num_rows: int, num_dims: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_rows, num_dims, dtype=torch.float64, generator=generator)
    return F.normalize(rows, dim=1)


def loss_of(embedding: Tensor, ids: Tensor, beta: Tensor, **changes: Any) -> Tensor:
    return margin_loss(embedding, ids, beta, alpha=ALPHA, **(SETTINGS | changes)).loss


def pairs_of(distances: Tensor, ids: Tensor, **changes: Any) -> Pairs:
    return choose_pairs(distances, ids, ids, range(len(ids)), **(SETTINGS | changes))


def mask_of(columns: Tensor, counts: Tensor) -> Tensor:
    return torch.zeros(len(columns), len(columns), dtype=torch.bool).scatter(1, columns, counts)


@pytest.mark.parametrize("negatives", list(Negatives))
@pytest.mark.parametrize("divisor", list(Divisor))
def test_loss_and_gradients_equal_the_plain_formula(negatives: Negatives, divisor: Divisor) -> None:
    """A loop over the very pairs that were chosen: one photo thrice and once, one row mixed."""
    ids = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, NO_INSTANCE, 0])
    raw = unit(10, 6).requires_grad_()
    embedding = F.normalize(raw, dim=1)  # the two formulas agree on the sphere
    beta = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    distances = distances_of(squared_distances(embedding, embedding))
    pairs = pairs_of(distances.detach(), ids, negatives=negatives)

    def distance(a: int, b: Tensor) -> Tensor:
        return (embedding[a] - embedding[int(b)]).pow(2).sum().sqrt()

    total, num_both, num_either = torch.zeros((), dtype=torch.float64), 0, 0
    for a in range(10):
        for place in range(5):
            terms = []
            if pairs.is_positive[a, place]:
                terms.append((distance(a, pairs.positive[a, place]) - beta + ALPHA).relu())
            if pairs.is_negative[a, place]:
                terms.append((beta - distance(a, pairs.negative[a, place]) + ALPHA).relu())
            total = total + sum(terms)
            active = [float(term.detach()) > 0 for term in terms]
            num_both, num_either = num_both + sum(active), num_either + any(active)
    assert num_either < num_both
    plain = total / (num_both if divisor is Divisor.BOTH else num_either)
    expected = torch.autograd.grad(plain, (raw, beta), retain_graph=True)
    loss = loss_of(embedding, ids, beta, negatives=negatives, divisor=divisor)
    found = torch.autograd.grad(loss, (raw, beta))
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_loss_and_gradients_equal_pytorch_metric_learning_on_the_same_triplets() -> None:
    """Its MarginLoss with a learned beta, in float64."""
    ids = torch.arange(12) // 3
    raw = unit(12, 5, seed=3).requires_grad_()
    embedding = F.normalize(raw, dim=1)
    beta = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    pairs = pairs_of(distances_of(squared_distances(embedding, embedding)).detach(), ids)
    assert torch.equal(pairs.is_positive, pairs.is_negative)
    anchors = torch.arange(12).unsqueeze(1).expand_as(pairs.positive)[pairs.is_positive]
    triplets = (anchors, pairs.positive[pairs.is_positive], pairs.negative[pairs.is_negative])
    theirs = MetricLearningMarginLoss(margin=ALPHA, beta=1.2, learn_beta=True).double()
    theirs.beta = torch.nn.Parameter(torch.tensor([1.2], dtype=torch.float64))
    plain = theirs(embedding, ids, triplets)
    expected = torch.autograd.grad(plain, (raw, theirs.beta), retain_graph=True)
    loss = loss_of(embedding, ids, beta)
    found = torch.autograd.grad(loss, (raw, beta))
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-9)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(found[1], expected[1].squeeze(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("negatives", list(Negatives))
def test_each_positive_has_one_negative_of_its_anchor(negatives: Negatives) -> None:
    """Also for a photo that is twice in the batch, and never itself, its own views or mixed."""
    ids = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2, NO_INSTANCE, NO_INSTANCE])
    distances = distances_of(squared_distances(unit(10, 4), unit(10, 4)))
    pairs = pairs_of(distances, ids, negatives=negatives, most_negatives=3)
    positive = mask_of(pairs.positive, pairs.is_positive)
    negative = mask_of(pairs.negative, pairs.is_negative)
    counts = [3, 3, 1, 1, 3, 3, 1, 1, 0, 0]
    assert positive.sum(dim=1).tolist() == counts
    assert (positive & ~(ids[:, None] == ids)).sum() == 0
    assert positive.diagonal().sum() == 0
    if negatives in {Negatives.UNIFORM, Negatives.HARD}:  # the others may lack near candidates
        assert negative.sum(dim=1).tolist() == counts
    assert (negative & (ids[:, None] == ids)).sum() == 0
    assert negative[:, 8:].sum() == 0


def test_hard_negatives_are_the_nearest() -> None:
    """The two nearest views of other photos, for each of the two positives."""
    ids = torch.tensor([0, 0, 0, 1, 2, 3])
    distances = torch.tensor([[0, 0.1, 0.2, 1.1, 0.9, 1.0]]).expand(6, 6)
    pairs = pairs_of(distances, ids, negatives=Negatives.HARD, most_negatives=2)
    assert pairs.negative[0].tolist() == [4, 5]


def test_fewer_negatives_than_positives_takes_all_of_them() -> None:
    """Three views against a single other row draw that row once."""
    pairs = pairs_of(torch.ones(4, 4), torch.tensor([0, 0, 0, 1]), most_negatives=2)
    assert pairs.is_negative.sum(dim=1).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("negatives", list(Negatives))
@pytest.mark.parametrize("instance", [0, NO_INSTANCE])
def test_a_batch_of_one_photo_loses_nothing(negatives: Negatives, instance: int) -> None:
    """Without negatives the loss and its gradient are 0, not NaN, and no pair is counted."""
    embedding = unit(4, 6).requires_grad_()
    beta = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    found = margin_loss(
        embedding,
        torch.full((4,), instance),
        beta,
        alpha=ALPHA,
        **(SETTINGS | {"negatives": negatives}),
    )
    found.loss.backward()  # type: ignore[no-untyped-call]
    assert [float(part.detach()) for part in found] == [0] * 5
    assert beta.grad == 0
    assert (embedding.grad == 0).all()


@pytest.mark.parametrize("negatives", list(Negatives))
@pytest.mark.parametrize("num_dims", [6, 2048])
def test_equal_views_and_antipodes_have_finite_gradients(
    negatives: Negatives, num_dims: int
) -> None:
    """Distances 0 and 2, where the root and the density are singular, also at 2048-d."""
    row = unit(1, num_dims).float()
    raw = torch.cat([row, row, -row, -row, unit(2, num_dims, seed=1).float()]).requires_grad_()
    beta = torch.tensor(1.2, requires_grad=True)
    ids = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = loss_of(F.normalize(raw, dim=1), ids, beta, negatives=negatives, effective_dim=0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert torch.isfinite(raw.grad).all()
    assert raw.grad.abs().sum() > 0


def test_distance_weights_equal_the_published_density() -> None:
    """1 / q(max(d, 0.5)) below 1.4 and 0 above, row by row."""
    distances = torch.tensor([[0.1, 0.5, 0.9, 1.3, 1.39, 1.41]], dtype=torch.float64)
    candidates = torch.tensor([[True, True, True, True, False, True]])
    found = distance_weights(distances, candidates, effective_dim=16).log.softmax(dim=1)[0]

    def weight(z: float) -> float:
        return 1 / (z**14 * (1 - z * z / 4) ** 6.5)

    plain = torch.tensor([weight(0.5), weight(0.5), weight(0.9), weight(1.3), 0.0, 0.0])
    torch.testing.assert_close(found, (plain / plain.sum()).double(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("negatives", "effective_dim", "share"),
    [
        (Negatives.DISTANCE, 0, 0.0),
        (Negatives.REFERENCE, 0, 1.0),
        (Negatives.REFERENCE, 16, 1.0),  # always the embedding's own
        (Negatives.DISTANCE, 16, 0.0),
        (Negatives.UNIFORM, 0, 0.0),
        (Negatives.HARD, 0, 0.0),
    ],
)
def test_at_2048_dimensions_the_reference_falls_back_and_distance_does_not(
    negatives: Negatives, effective_dim: int, share: float
) -> None:
    """Exponentials that subtract the whole matrix's maximum vanish in every row."""
    generator = torch.Generator().manual_seed(0)
    photos = F.normalize(torch.randn(16, 2048, generator=generator).abs(), dim=1)
    views = torch.randn(48, 2048, generator=generator) * 0.002
    embedding = F.normalize(photos.repeat_interleave(3, dim=0) + views, dim=1)
    found = margin_loss(
        embedding,
        torch.arange(48) // 3,
        torch.tensor(1.2),
        alpha=ALPHA,
        **(SETTINGS | {"negatives": negatives, "effective_dim": effective_dim}),
    )
    assert found.fallback_share == share
    assert found.active_share > 0


def test_the_reference_equals_distance_where_nothing_underflows() -> None:
    """At 8 dimensions both have the same weights."""
    distances = torch.linspace(0.2, 1.5, 12).view(2, 6)
    candidates = distances > 0.4
    one = reference_weights(distances, candidates, effective_dim=8).log.softmax(dim=1)
    other = distance_weights(distances, candidates, effective_dim=8).log.softmax(dim=1)
    torch.testing.assert_close(one, other)


def test_a_row_without_near_negatives_is_drawn_uniformly_and_counted() -> None:
    """All candidates beyond 1.4 weigh the same."""
    distances = torch.tensor([[0.3, 1.5, 1.7], [0.3, 1.2, 1.7]])
    candidates = torch.tensor([[False, True, True]]).expand(2, 3)
    weights = distance_weights(distances, candidates, effective_dim=8)
    assert weights.log[0].tolist() == [-math.inf, 0, 0]
    assert weights.log[1].isfinite().tolist() == [False, True, False]
    assert weights.fell_back.tolist() == [True, False]


def test_draws_follow_the_exact_distribution() -> None:
    """Chi-square of first draws and of pairs, without replacement, at the 0.1 % level."""
    distances = torch.tensor([[0.7, 1.0, 1.1, 1.5]], dtype=torch.float64)
    log = distance_weights(distances, torch.ones(1, 4, dtype=torch.bool), effective_dim=6).log
    noise = torch.cat([noise_of(seed).view(-1, 4) for seed in range(4)])
    order = gumbel_keys(log, noise).argsort(dim=1, descending=True)
    weights = log.softmax(dim=1)[0].tolist()
    assert min(weights[:3]) > 0.1
    once = [float((order[:, 0] == column).sum()) for column in range(4)]
    assert chi_square(once[:3], [len(order) * weight for weight in weights[:3]]) < 13.8
    assert once[3] == 0
    ordered = [(a, b) for a in range(3) for b in range(3) if a != b]
    seen = [float(((order[:, 0] == a) & (order[:, 1] == b)).sum()) for a, b in ordered]
    exact = [len(order) * weights[a] * weights[b] / (1 - weights[a]) for a, b in ordered]
    assert chi_square(seen, exact) < 20.5


def noise_of(seed: int) -> Tensor:
    return noise_rows(range(200), 200, seed=seed, device=torch.device("cpu"), dtype=torch.float64)


def chi_square(seen: list[float], expected: list[float]) -> float:
    return sum((a - b) ** 2 / b for a, b in zip(seen, expected, strict=True))


@pytest.mark.parametrize("num_processes", [1, 2, 3, 6])
def test_noise_of_a_row_does_not_depend_on_who_draws_it(num_processes: int) -> None:
    """Processes whose rows begin inside a block draw what one process draws."""
    share = 198 // num_processes
    parts = [
        noise_rows(
            range(rank * share, (rank + 1) * share),
            200,
            seed=11,
            device=torch.device("cpu"),
            dtype=torch.float64,
        )
        for rank in range(num_processes)
    ]
    whole = noise_of(11)
    assert torch.equal(torch.cat(parts), whole[:198])
    assert not torch.equal(whole, noise_of(12))
    assert len(whole.unique()) == whole.numel()


@pytest.mark.parametrize("negatives", list(Negatives))
def test_the_host_never_waits_for_the_device(negatives: Negatives) -> None:
    """No value of a tensor decides a shape or a branch, forward or backward."""
    embedding = unit(9, 6).requires_grad_()
    beta = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    ids = torch.arange(9) // 3
    with Waiting() as waiting:
        for divisor in Divisor:
            loss = loss_of(embedding, ids, beta, negatives=negatives, divisor=divisor)
            loss.backward()  # type: ignore[no-untyped-call]
    assert waiting.seen == []


def test_the_watcher_sees_a_host_that_waits() -> None:
    """Otherwise the test before this one would say nothing."""
    with Waiting() as waiting:
        rows = torch.ones(3)
        assert rows.sum() > 0
        rows[rows > 0].sum()
    assert any("_local_scalar_dense" in name for name in waiting.seen)
    assert any("index.Tensor" in name for name in waiting.seen)
