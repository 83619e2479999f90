"""Pair losses by name, the objective that sums them, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from pytorch_metric_learning import losses, miners
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from waiting import Waiting

from multigrain.classifier import CosineClassifier
from multigrain.document import plain_document
from multigrain.model import MultiGrain
from multigrain.pooling import GeM
from multigrain.transforms import Preprocessing
from trainer.engine.processes import alone
from trainer.inputs.data import Data
from trainer.inputs.labels import PhotoSet
from trainer.inputs.mix import Mix
from trainer.inputs.sampler import SamplerError
from trainer.inputs.sampler_pk import PkPlan
from trainer.losses.build_objective import build_objective, build_plan
from trainer.losses.heads import CONSTANTS, HeadLoss
from trainer.losses.margin import NO_INSTANCE, Divisor
from trainer.losses.negatives import Negatives
from trainer.losses.objective import (
    MARGIN_ALONE,
    MarginSettings,
    Objective,
    ObjectiveError,
    PairTerm,
)
from trainer.losses.pair_losses import OF_CLASSES, PairLossError, build_pair_loss
from trainer.settings import TrainConfig
from trainer.settings_loss import PAIR_LOSSES, weighted_loss

THEIRS = [name for name in PAIR_LOSSES if name != "margin"]
MARGIN = MarginSettings(
    alpha=0.2,
    beta=1.2,
    negatives=Negatives.UNIFORM,
    effective_dim=8,
    most_negatives=5,
    seed=1,
)


def embeddings(num_rows: int = 12, num_dims: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(num_rows, num_dims, dtype=torch.float64, generator=generator)
    return F.normalize(rows, dim=1)


def built(name: str) -> Any:
    torch.manual_seed(3)
    return build_pair_loss(name, num_dims=6, num_classes=4).double()


def test_triplet_takes_the_hardest_of_each_anchor() -> None:
    """The farthest positive and the nearest negative, margin 0.2, mean of the non-zero ones."""
    rows, groups = embeddings(), torch.arange(12) // 3
    distances = torch.cdist(rows, rows)
    same = groups[:, None] == groups
    hardest = distances.masked_fill(~same, -1).amax(dim=1)
    nearest = distances.masked_fill(same, 9).amin(dim=1)
    terms = (hardest - nearest + 0.2).relu()
    torch.testing.assert_close(built("triplet")(rows, groups), terms[terms > 0].mean())


@pytest.mark.parametrize(
    ("name", "plain", "miner"),
    [
        ("circle", losses.CircleLoss(m=0.4, gamma=80), None),
        (
            "multi-similarity",
            losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5),
            miners.MultiSimilarityMiner(epsilon=0.1),
        ),
        ("contrastive", losses.ContrastiveLoss(pos_margin=0, neg_margin=1), None),
        ("supcon", losses.SupConLoss(temperature=0.1), None),
        ("nt-xent", losses.NTXentLoss(temperature=0.1), None),
    ],
)
def test_a_name_is_the_library_s_loss(name: str, plain: Any, miner: Any) -> None:
    """With the constants of its paper."""
    rows, groups = embeddings(), torch.arange(12) // 3
    pairs = miner(rows, groups) if miner is not None else None
    torch.testing.assert_close(built(name)(rows, groups), plain(rows, groups, pairs))


@pytest.mark.parametrize("name", THEIRS)
def test_mixed_views_are_in_no_pair(name: str) -> None:
    """The loss is that of the other rows alone, and mixed rows get no gradient."""
    rows, groups = embeddings().requires_grad_(), torch.arange(12) // 3
    kept = torch.arange(12) % 4 != 1
    loss = built(name)
    found = loss(rows, groups.masked_fill(~kept, NO_INSTANCE))
    torch.testing.assert_close(found, loss(rows[kept], groups[kept]))
    (gradient,) = torch.autograd.grad(found, rows)
    assert (gradient[~kept] == 0).all()
    assert gradient[kept].abs().sum() > 0


@pytest.mark.parametrize("name", THEIRS)
def test_without_a_pair_there_is_a_gradient_of_zero(name: str) -> None:
    """All views mixed: DDP still gets a gradient of the embedding and of every proxy."""
    rows, loss = embeddings().requires_grad_(), built(name)
    found = loss(rows, torch.full((12,), NO_INSTANCE))
    found.backward()
    assert found == 0
    assert (rows.grad == 0).all()
    assert all((proxies.grad == 0).all() for proxies in loss.parameters())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tripplet", "no pair loss is named 'tripplet': did you mean triplet"),
        ("", "there are margin, triplet"),
        ("margin:0", "weight must be a number above 0"),
        ("margin:much", "weight must be a number above 0"),
        ("margin:inf", "weight must be a number above 0"),
    ],
)
def test_a_name_or_weight_that_is_none_is_refused(text: str, message: str) -> None:
    """Naming the nearest name."""
    with pytest.raises(ValueError, match=message):
        weighted_loss(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pair_losses": ("margin", "margin:2")}, "margin is given twice"),
        ({"pair_losses": ("triplet",), "alpha": 0.3}, "alpha belongs to the margin loss"),
        ({"pair_losses": ("triplet",), "negatives": "hard"}, "negatives belongs to the margin"),
        (
            {"effective_dim": 64},
            "--effective-dim 64 belongs to --negatives distance, not to uniform",
        ),
        ({"negatives": "reference", "effective_dim": 64}, "not to reference"),
        ({"beta": 2.0}, "less than 2"),
        ({"pair_losses": ()}, "at least 1"),
    ],
)
def test_loss_settings_that_would_do_nothing_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    """A flag that no part of the run reads is an error."""
    with pytest.raises(ValidationError, match=message):
        TrainConfig(data=Path("x"), out=Path("y"), **changes)


def test_dimensions_that_say_what_is_done_anyway_are_taken() -> None:
    """The reference takes the embedding's own, which 0 names."""
    for changes in ({"negatives": "reference", "effective_dim": 0}, {"effective_dim": 128}):
        config = TrainConfig(data=Path("x"), out=Path("y"), **changes)  # type: ignore[arg-type]
        assert config.effective_dim == changes["effective_dim"]


def test_the_printed_settings_of_another_pair_loss_are_settings_again() -> None:
    """The margin loss's defaults stand in them although nothing uses it."""
    config = TrainConfig(data=Path("x"), out=Path("y"), pair_losses=("triplet:0.5",))
    assert TrainConfig(**config.model_dump()) == config


@pytest.mark.parametrize("name", sorted(OF_CLASSES))
def test_proxies_need_classes(name: str) -> None:
    """There is a proxy for each."""
    with pytest.raises(PairLossError, match=f"pair loss {name} needs classes"):
        build_pair_loss(name, num_dims=6, num_classes=0)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytorch-metric-learning is an extra."""
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(PairLossError, match=r"pip install 'multigrain-retrieval\[metric\]'"):
        build_pair_loss("triplet", num_dims=6, num_classes=0)


class Trunk(nn.Sequential):
    """The smallest trunk."""

    num_channels = 6

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 6, 3), nn.ReLU())


def objective_of(**changes: Any) -> Objective:
    torch.manual_seed(0)
    model = MultiGrain(
        backbone=Trunk(),  # type: ignore[arg-type]
        pool=GeM(3.0),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        classifier=nn.Linear(6, 4),
        neck=changes.pop("neck", None),
        embeds_after_neck=changes.pop("embeds_after_neck", True),
    )
    settings: dict[str, Any] = {"lambda_": 0.25, "num_views": 3, "margin": MARGIN}
    return Objective(model, **(settings | changes))


def batch() -> tuple[Tensor, Tensor, Tensor, int]:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.rand(12, 3, 8, 8, generator=generator) * 255
    photo_ids = torch.arange(12) // 3
    return pixels, photo_ids % 2, photo_ids, 5


def test_pair_losses_are_summed_by_weight_in_the_share_of_the_pairs() -> None:
    """Lambda CE + (1 - lambda) sum of weight x loss; parts are without weights."""
    terms = {
        "margin": PairTerm(2.0, None),
        "triplet": PairTerm(0.5, build_pair_loss("triplet", num_dims=6, num_classes=2)),
    }
    losses_ = objective_of(pair_terms=terms)(*batch())
    parts = losses_.parts
    pairs = 2.0 * parts["margin"] + 0.5 * parts["triplet"]
    torch.testing.assert_close(losses_.total, 0.25 * parts["cross_entropy"] + 0.75 * pairs)
    assert set(parts) == {
        "cross_entropy", "margin", "triplet", "active_share", "fallback_share",
        "mean_positive_distance", "mean_negative_distance",
    }  # fmt: skip
    assert not any(part.requires_grad for part in parts.values())


def test_mixed_views_leave_every_pair_and_keep_two_classes() -> None:
    """All mixed: no pair is left; the cross-entropy is that of both classes."""
    objective = objective_of()
    pixels, labels, photo_ids, step = batch()
    partners = 1 - labels
    mix = Mix(partners, torch.full((12,), 0.25), torch.ones(12, dtype=torch.bool))
    parts = objective(pixels, labels, photo_ids, step, mix).parts
    own = objective(pixels, labels, photo_ids, step).parts["cross_entropy"]
    other = objective(pixels, partners, photo_ids, step).parts["cross_entropy"]
    assert parts["margin"] == parts["active_share"] == 0
    torch.testing.assert_close(parts["cross_entropy"], 0.25 * own + 0.75 * other)


@pytest.mark.parametrize("kind", ["linear", *CONSTANTS])
def test_the_host_never_waits_for_a_whole_objective(kind: Any) -> None:
    """Trunk, neck, head and margin loss, with mixed views, forward and backward."""
    head = HeadLoss(kind, constants=CONSTANTS.get(kind), label_smoothing=0.1)
    objective = objective_of(head=head, neck=nn.BatchNorm1d(6))
    if kind != "linear":
        objective.model.classifier = CosineClassifier(6, 4, scale=head.scale)
    mix = Mix(torch.zeros(12, dtype=torch.int64), torch.full((12,), 0.3), torch.arange(12) % 5 == 1)
    views = batch()
    with Waiting() as waiting:
        objective(*views, mix).total.backward()
    assert waiting.seen == []


def test_positives_of_a_class_need_no_second_view() -> None:
    """With instances and one view a photo, the pair term is off and owns no parameter."""
    pixels, labels, _, step = batch()
    apart = objective_of(num_views=1)
    assert not apart.uses_margin
    assert "beta" not in dict(apart.named_parameters())
    together = objective_of(num_views=1, positives_of_class=True)
    parts = together(pixels, labels, torch.arange(12), step).parts
    assert parts["active_share"] > 0


@pytest.mark.parametrize(("start", "bounded"), [(-0.5, 0.0), (2.7, 2.0)])
def test_beta_stays_among_the_distances_there_are(start: float, bounded: float) -> None:
    """Put back before it is used, and with a gradient that can move it on."""
    objective = objective_of()
    with torch.no_grad():
        objective.beta.fill_(start)
    objective(*batch()).total.backward()
    assert float(objective.beta.detach()) == bounded
    assert objective.beta.grad is not None
    assert objective.beta.grad != 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda_": 0.0, "num_views": 1}, "trains nothing"),
        (
            {"lambda_": 0.0, "neck": nn.BatchNorm1d(6), "embeds_after_neck": False},
            "nothing trains the neck",
        ),
    ],
)
def test_an_objective_without_a_gradient_somewhere_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    """DDP would wait for it for ever."""
    with pytest.raises(ObjectiveError, match=message):
        objective_of(**changes)


@pytest.mark.parametrize(
    ("name", "lambda_"),
    # All but lambda 0 before a neck, which is refused: nothing would train it.
    [(name, lambda_) for name in ("none", "after") for lambda_ in (0.0, 0.5, 1.0)]
    + [("before", 0.5), ("before", 1.0)],
)
def test_every_parameter_of_the_objective_has_a_gradient(name: str, lambda_: float) -> None:
    """With each side of a neck, classes alone and pairs alone: nothing is unused."""
    neck = None if name == "none" else nn.BatchNorm1d(6)
    objective = objective_of(lambda_=lambda_, neck=neck, embeds_after_neck=name != "before")
    if lambda_ == 0:
        objective.model.classifier = None
    objective(*batch()).total.backward()
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)


PHOTOS = PhotoSet.of_files(
    Path(), [f"{label}/{n}.jpg" for label in "ab" for n in range(6)], (0,) * 6 + (1,) * 6, "ab"
)
UNLABELLED = PHOTOS._replace(labels=(0,) * 12, class_names=None)


def built_from(photos: PhotoSet = PHOTOS, **changes: Any) -> Objective:
    lambda_ = 0.0 if photos.class_names is None else changes.pop("lambda_", 0.5)
    config = TrainConfig(
        data=Path("x"),
        out=Path("y"),
        backbone="squeezenet1_1",
        **({"batch_size": 12, "lambda_": lambda_} | changes),
    )
    data = Data(photos, photos.pick(()), lambda_)
    document = plain_document(
        backbone_name="squeezenet1_1",
        feature_dim=512,
        preprocessing=Preprocessing(size=32, rule="crop"),
        p=3.0,
        class_names=photos.class_names if lambda_ else None,
    )
    plan = build_plan(config, data, alone("cpu"))
    model = MultiGrain.build(document)
    return build_objective(config, data, model, plan, alone("cpu"))[0]


def test_every_loss_setting_reaches_the_objective() -> None:
    """From flags to the parts that use them."""
    built = built_from(
        lambda_=0.25,
        pair_losses=("margin:0.5", "proxy-anchor:2"),
        positives="class",
        alpha=0.1,
        beta=0.9,
        margin_divisor="either",
        negatives="distance",
        effective_dim=0,
        label_smoothing=0.1,
        head="cosface",
        head_scale=20.0,
        head_margin=0.2,
    )
    assert built.lambda_ == 0.25
    assert built.weights == {"margin": 0.5, "proxy-anchor": 2.0}
    assert built.positives_of_class
    assert float(built.beta.detach()) == pytest.approx(0.9)
    # Two classes of six photos in a batch of four photos with three views.
    assert built.margin == MarginSettings(0.1, 0.9, Negatives.DISTANCE, 0, 11, 0, Divisor.EITHER)
    assert (built.head.kind, built.head.scale, built.head.margin) == ("cosface", 20.0, 0.2)
    assert built.head.label_smoothing == 0.1
    proxies = dict(built.named_parameters())["pair_losses.proxy-anchor.loss.proxies"]
    assert proxies.shape == (2, 512)


def test_the_plan_of_classes_is_built_by_its_flags() -> None:
    """P x K when asked; K bounds how many photos of a class a step holds."""
    config = TrainConfig(
        data=Path("x"), out=Path("y"), sampler="pk", photos_per_class=2, batch_size=12
    )
    data = Data(PHOTOS, PHOTOS.pick(()), 0.5)
    plan = build_plan(config, data, alone("cpu"))
    assert isinstance(plan, PkPlan)
    assert [PHOTOS.labels[draw.photo_id] for draw in plan.photos_of(0, 0)] in (
        [0, 0, 1, 1], [1, 1, 0, 0]
    )  # fmt: skip
    built = built_from(sampler="pk", photos_per_class=2, positives="class")
    assert built.margin.most_negatives == 3 * 2 * 2 - 1  # where two rounds meet
    with pytest.raises(SamplerError, match="--sampler pk needs classes"):
        build_plan(config, data._replace(training=UNLABELLED), alone("cpu"))


def test_positives_of_a_class_need_classes() -> None:
    """An unlabelled folder has none."""
    with pytest.raises(ObjectiveError, match="--positives class needs classes"):
        built_from(UNLABELLED, positives="class")


def test_defaults_are_the_margin_loss_on_instances_beside_a_linear_head() -> None:
    """As in the paper."""
    built = built_from()
    assert built.weights == {"margin": 1.0}
    assert not built.positives_of_class
    assert built.margin == MarginSettings(0.2, 1.2, Negatives.UNIFORM, 128, 5, 0, Divisor.BOTH)
    assert built.head.kind == "linear"
    assert isinstance(built.head, HeadLoss)
    assert MARGIN_ALONE["margin"].weight == 1.0
    assert not isinstance(built, DistributedDataParallel)
