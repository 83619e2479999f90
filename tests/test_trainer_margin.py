"""The margin loss and its negatives against slow, plain formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.margin import choose_pairs, margin_loss, pairwise_distances
from trainer.negatives import Negatives, draw, log_weights, noise_rows

ALPHA = 0.2


def unit(num_rows: int, num_dims: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_rows, num_dims, dtype=torch.float64, generator=generator)
    return F.normalize(rows, dim=1)


def loss_of(embedding: Tensor, ids: Tensor, beta: Tensor, **changes: object) -> Tensor:
    settings: dict[str, object] = {
        "alpha": ALPHA,
        "negatives": Negatives.UNIFORM,
        "effective_dim": 8,
        "most_negatives": 5,
        "seed": 7,
    }
    return margin_loss(embedding, ids, beta, **(settings | changes)).loss  # type: ignore[arg-type]


@pytest.mark.parametrize("negatives", list(Negatives))
def test_loss_and_gradients_equal_the_plain_formula(negatives: Negatives) -> None:
    """Masked sums over the matrix equal a loop over the very pairs that were chosen."""
    ids = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 0])
    raw = unit(10, 6).requires_grad_()
    embedding = F.normalize(raw, dim=1)  # the two formulas agree on the sphere
    beta = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    distances = pairwise_distances(embedding, embedding)
    pairs = choose_pairs(
        distances.detach(),
        ids[:, None] == ids,
        range(10),
        negatives=negatives,
        effective_dim=8,
        most_negatives=5,
        seed=7,
    )
    terms = []
    for a in range(10):
        for b in range(10):
            distance = (embedding[a] - embedding[b]).pow(2).sum().sqrt() if a != b else None
            if pairs.positive[a, b]:
                terms.append((distance - beta + ALPHA).relu())
            if pairs.negative[a, b]:
                terms.append((beta - distance + ALPHA).relu())
    plain = sum(terms) / sum(float(term) > 0 for term in map(Tensor.detach, terms))
    expected = torch.autograd.grad(plain, (raw, beta), retain_graph=True)
    loss = loss_of(embedding, ids, beta, negatives=negatives)
    found = torch.autograd.grad(loss, (raw, beta))
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_each_positive_has_one_negative_of_its_anchor() -> None:
    """Also for a photo that is twice in the batch, and never itself or its own views."""
    ids = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2])
    distances = pairwise_distances(unit(8, 4), unit(8, 4))
    pairs = choose_pairs(
        distances,
        ids[:, None] == ids,
        range(8),
        negatives=Negatives.UNIFORM,
        effective_dim=8,
        most_negatives=3,
        seed=0,
    )
    assert pairs.positive.sum(dim=1).tolist() == [3, 3, 1, 1, 3, 3, 1, 1]
    assert pairs.negative.sum(dim=1).tolist() == [3, 3, 1, 1, 3, 3, 1, 1]
    assert not (pairs.negative & (ids[:, None] == ids)).any()
    assert not pairs.positive.diagonal().any()


def test_fewer_negatives_than_positives_takes_all_of_them() -> None:
    """Three views against a single other row draw that row once."""
    ids = torch.tensor([0, 0, 0, 1])
    pairs = choose_pairs(
        torch.ones(4, 4),
        ids[:, None] == ids,
        range(4),
        negatives=Negatives.UNIFORM,
        effective_dim=8,
        most_negatives=2,
        seed=0,
    )
    assert pairs.negative.sum(dim=1).tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("negatives", list(Negatives))
def test_a_batch_of_one_photo_loses_nothing(negatives: Negatives) -> None:
    """Without negatives the loss and its gradient are 0, not NaN."""
    embedding = unit(4, 6).requires_grad_()
    beta = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    loss = loss_of(embedding, torch.zeros(4, dtype=torch.int64), beta, negatives=negatives)
    loss.backward()
    assert loss == 0
    assert beta.grad == 0
    assert (embedding.grad == 0).all()


@pytest.mark.parametrize("negatives", list(Negatives))
def test_equal_views_and_antipodes_have_finite_gradients(negatives: Negatives) -> None:
    """Distances 0 and 2, where the root and the density are singular."""
    row = unit(1, 6).float()
    raw = torch.cat([row, row, -row, -row, unit(2, 6, seed=1).float()]).requires_grad_()
    beta = torch.tensor(1.2, requires_grad=True)
    ids = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = loss_of(F.normalize(raw, dim=1), ids, beta, negatives=negatives)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(raw.grad).all()


def test_distance_weights_equal_the_published_density() -> None:
    """1 / q(max(d, 0.5)) below 1.4 and 0 above, row by row."""
    distances = torch.tensor([[0.1, 0.5, 0.9, 1.3, 1.39, 1.41]], dtype=torch.float64)
    candidates = torch.tensor([[True, True, True, True, False, True]])
    found = log_weights(distances, candidates, effective_dim=16).softmax(dim=1)[0]

    def weight(z: float) -> float:
        return 1 / (z**14 * (1 - z * z / 4) ** 6.5)

    plain = torch.tensor([weight(0.5), weight(0.5), weight(0.9), weight(1.3), 0.0, 0.0])
    torch.testing.assert_close(found, (plain / plain.sum()).double(), rtol=1e-5, atol=1e-12)


def test_distance_weights_do_not_underflow_at_2048_dimensions() -> None:
    """Every row keeps weights that sum to 1, where exponentials of the whole matrix vanish."""
    embedding = unit(24, 64)
    distances = pairwise_distances(embedding, embedding)
    candidates = ~torch.eye(24, dtype=torch.bool)
    weights = log_weights(distances, candidates, effective_dim=2048).softmax(dim=1)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(24, dtype=torch.float64))


def test_a_row_without_near_negatives_is_drawn_uniformly() -> None:
    """All candidates beyond 1.4 weigh the same."""
    distances = torch.tensor([[0.3, 1.5, 1.7]])
    candidates = torch.tensor([[False, True, True]])
    assert log_weights(distances, candidates, effective_dim=8).tolist() == [[-math.inf, 0, 0]]


def test_draws_follow_the_exact_distribution() -> None:
    """First draws have the weights' shares; pairs those of drawing without replacement."""
    num_draws = 40_000
    weights = torch.tensor([0.5, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(5)
    noise = torch.empty(num_draws, 4).exponential_(generator=generator)
    log_weight = weights.log().expand(num_draws, 4)
    once = draw(log_weight, noise, torch.ones(num_draws), most=2).double().mean(dim=0)
    torch.testing.assert_close(once, weights.double(), rtol=0, atol=0.01)
    twice = draw(log_weight, noise, torch.full((num_draws,), 2), most=2).double().mean(dim=0)
    a, b, c = 0.5, 0.3, 0.2
    left_out = [
        b * c / (1 - b) + c * b / (1 - c),
        a * c / (1 - a) + c * a / (1 - c),
        a * b / (1 - a) + b * a / (1 - b),
    ]
    exact = torch.tensor([1 - share for share in left_out] + [0.0], dtype=torch.float64)
    torch.testing.assert_close(twice, exact, rtol=0, atol=0.01)


def test_noise_of_a_row_does_not_depend_on_who_draws_it() -> None:
    """Two processes with half the rows each draw what one process draws."""
    settings = {"seed": 11, "device": torch.device("cpu"), "dtype": torch.float64}
    whole = noise_rows(range(6), 6, **settings)  # type: ignore[arg-type]
    halves = [noise_rows(rows, 6, **settings) for rows in (range(3), range(3, 6))]  # type: ignore[arg-type]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(whole, noise_rows(range(6), 6, **(settings | {"seed": 12})))  # type: ignore[arg-type]
