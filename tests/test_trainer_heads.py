"""The classifier's loss against each paper's formula, written out view by view."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses
from torch import Tensor

from trainer.inputs.mix import Mix
from trainer.losses.heads import CONSTANTS, Constants, HeadLoss, add_angle, constants_of

NUM_CLASSES = 4
COSINE_KINDS = ("arcface", "cosface", "curricularface", "circle")


def cosines_and_labels(num_views: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(num_views, NUM_CLASSES, dtype=torch.float64, generator=generator) - 1
    return cosines, torch.arange(num_views) % NUM_CLASSES


def head_of(kind: Any, *, scale: float = 8.0, margin: float = 0.3, smoothing: float = 0.0) -> Any:
    constants = None if kind == "linear" else Constants(scale, margin)
    return HeadLoss(kind, constants=constants, label_smoothing=smoothing).double()


def plain_logits(kind: str, row: list[float], own: int, *, t: float) -> list[float]:
    """Scale 8, margin 0.3."""
    scale, m = 8.0, 0.3
    theta = math.acos(row[own])
    lowered = math.cos(theta + m) if theta + m <= math.pi else -2 - math.cos(theta + m)
    answer = []
    for place, cosine in enumerate(row):
        if kind == "linear":
            answer.append(cosine)
        elif kind == "circle" and place == own:
            answer.append(scale * max(0, 1 + m - cosine) * (cosine - (1 - m)))
        elif kind == "circle":
            answer.append(scale * max(0, cosine + m) * (cosine - m))
        elif place == own:
            answer.append(scale * (cosine - m if kind == "cosface" else lowered))
        elif kind == "curricularface" and cosine > lowered:
            answer.append(scale * cosine * (t + cosine))
        else:
            answer.append(scale * cosine)
    return answer


@pytest.mark.parametrize("kind", ["linear", *COSINE_KINDS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_each_head_equals_its_formula(kind: str, smoothing: float) -> None:
    """Log-sum-exp by hand, with the target (1 - s) own + s / K everywhere."""
    cosines, labels = cosines_and_labels()
    head = head_of(kind, smoothing=smoothing)
    t = 0.01 * float(cosines.gather(1, labels[:, None]).mean())
    total = 0.0
    for row, own in zip(cosines.tolist(), labels.tolist(), strict=True):
        logits = plain_logits(kind, row, own, t=t)
        normaliser = math.log(sum(math.exp(logit) for logit in logits))
        entropies = [normaliser - logit for logit in logits]
        total += (1 - smoothing) * entropies[own] + smoothing * sum(entropies) / NUM_CLASSES
    assert float(head(cosines, labels)) == pytest.approx(total / len(labels), abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "theirs"), [("arcface", losses.ArcFaceLoss), ("cosface", losses.CosFaceLoss)]
)
def test_arcface_and_cosface_equal_pytorch_metric_learning(kind: str, theirs: Any) -> None:
    """Value and gradient of the embeddings, where no angle passes pi."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(5, 7, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.arange(5) % NUM_CLASSES
    margin = math.degrees(0.3) if kind == "arcface" else 0.3
    other = theirs(NUM_CLASSES, 7, margin=margin, scale=8).double()
    expected = other(vectors, labels)
    cosines = F.normalize(vectors, dim=1) @ F.normalize(other.W.double(), dim=0)
    found = head_of(kind)(cosines, labels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        *torch.autograd.grad(found, vectors, retain_graph=True),
        *torch.autograd.grad(expected, vectors),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", COSINE_KINDS)
def test_cosines_of_one_and_minus_one_have_finite_gradients(kind: str) -> None:
    """In float32, at each paper's own scale and margin, also a hair beyond 1."""
    cosines = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0000001, 1.0], [-1.0000001, 0.0]])
    cosines.requires_grad_()
    head = HeadLoss(kind, constants=CONSTANTS[kind], label_smoothing=0.1)  # type: ignore[arg-type]
    loss = head(cosines, torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(cosines.grad).all()


def test_an_added_angle_lowers_every_cosine_and_keeps_their_order() -> None:
    """Also beyond pi minus the angle, where cos(theta + m) alone would rise again."""
    cosines = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    moved = add_angle(cosines, 0.5)
    assert (moved.diff() > 0).all()
    assert (moved < cosines).all()
    assert moved.diff().max() < 0.03  # no jump but the root's slope at 1


def test_curricularface_follows_the_mean_own_cosine_in_training_alone() -> None:
    """The average moves by a hundredth; mixed views and numbers that are none leave it alone."""
    cosines, labels = cosines_and_labels()
    own = cosines.gather(1, labels[:, None]).squeeze()
    head = head_of("curricularface")
    head(cosines, labels)
    first = 0.01 * own.mean()
    torch.testing.assert_close(head.curriculum, first)
    mixed = torch.tensor([True, False, True, False, True, True])
    mix = Mix(labels, torch.full((6,), 0.5), mixed)
    head(cosines, labels, mix)
    second = 0.99 * first + 0.01 * own[[1, 3]].mean()
    torch.testing.assert_close(head.curriculum, second)
    head(cosines, labels, mix._replace(mixed=torch.ones(6, dtype=torch.bool)))
    torch.testing.assert_close(head.curriculum, second)
    head(cosines * torch.nan, labels)
    torch.testing.assert_close(head.curriculum, second)
    head.eval()(cosines, labels)
    torch.testing.assert_close(head.curriculum, second)
    assert set(head.state_dict()) == {"curriculum"}


@pytest.mark.parametrize("kind", ["linear", *COSINE_KINDS])
def test_mixed_views_have_two_classes_and_no_margin(kind: str) -> None:
    """The others keep their margin and their own class, whatever stands beside it."""
    cosines, labels = cosines_and_labels()
    mixed = torch.tensor([True, False, False, True, False, False])
    partners = (labels + 1) % NUM_CLASSES
    share = torch.tensor([0.7, 0.4, 1.0, 0.2, 0.9, 0.1])
    found = head_of(kind, smoothing=0.1)(cosines, labels, Mix(partners, share, mixed))
    plain = cosines if kind == "linear" else 8.0 * cosines
    rows = []
    for view in range(6):
        if mixed[view]:
            a, b = (
                F.cross_entropy(plain[view], classes[view], label_smoothing=0.1)
                for classes in (labels, partners)
            )
            rows.append(share[view].double() * a + (1 - share[view].double()) * b)
        else:
            head = head_of(kind, smoothing=0.1).eval()
            if kind == "curricularface":
                own = cosines.gather(1, labels[:, None]).squeeze()
                head.curriculum.fill_(0.01 * float(own[~mixed].mean()))
            rows.append(head(cosines[view : view + 1], labels[view : view + 1]))
    torch.testing.assert_close(found, torch.stack(rows).mean(), rtol=0, atol=1e-9)


def test_scale_and_margin_are_the_papers_unless_given() -> None:
    """The linear head has neither."""
    assert constants_of("linear", scale=None, margin=None) is None
    assert constants_of("arcface", scale=None, margin=None) == (64, 0.5)
    assert constants_of("cosface", scale=30, margin=None) == (30, 0.35)
    assert constants_of("curricularface", scale=None, margin=0.0) == (64, 0.0)
    assert constants_of("circle", scale=None, margin=None) == (256, 0.25)
