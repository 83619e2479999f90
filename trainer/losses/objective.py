"""What training minimises: `lambda * classes + (1 - lambda) * pairs`.

N views of this process, K classes, E dimensions of e, D embedding.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multigrain.classifier import CosineClassifier
from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain
from trainer.inputs.mix import Mix
from trainer.losses.heads import HeadLoss
from trainer.losses.margin import NO_INSTANCE, Divisor, MarginLoss, margin_loss
from trainer.losses.negatives import Negatives
from trainer.losses.pair_losses import OF_CLASSES, PairLoss
from trainer.seeds import seed_of

LARGEST_DISTANCE = 2.0  # of two unit vectors


class ObjectiveError(MultiGrainError):
    """Loss settings that leave something without a gradient."""


class MarginSettings(NamedTuple):
    """Constants of the margin term; `most_negatives` bounds the positives of one view."""

    alpha: float
    beta: float
    negatives: Negatives
    effective_dim: int
    most_negatives: int
    seed: int
    divisor: Divisor = Divisor.BOTH


class PairTerm(NamedTuple):
    """A weighted term over pairs; `loss` is None for the margin loss, which is the objective's."""

    weight: float
    loss: PairLoss | None


MARGIN = "margin"
MARGIN_ALONE: Mapping[str, PairTerm] = {MARGIN: PairTerm(1.0, None)}


class Losses(NamedTuple):
    """The loss and its parts, scalars; the parts are detached, and without their weights."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """The model and every learned number of the loss, so that DDP reduces them together.

    Pair terms are off with lambda 1, and, but for those between views and classes, with one
    view a photo unless positives are of a class; the classifier is off with lambda 0. What is
    off owns no parameter, so DDP never waits for a gradient that does not come.
    """

    def __init__(
        self,
        model: MultiGrain,
        *,
        lambda_: float,
        num_views: int,
        margin: MarginSettings,
        head: HeadLoss | None = None,
        pair_terms: Mapping[str, PairTerm] = MARGIN_ALONE,
        positives_of_class: bool = False,
    ) -> None:
        super().__init__()
        has_pairs = num_views > 1 or positives_of_class
        terms = {
            name: term
            for name, term in pair_terms.items()
            if lambda_ < 1 and (has_pairs or name in OF_CLASSES)
        }
        _check(model, lambda_=lambda_, has_terms=bool(terms))
        self.model = model
        self.lambda_ = lambda_
        self.margin = margin
        self.head = head or HeadLoss("linear", constants=None, label_smoothing=0.0)
        self.positives_of_class = positives_of_class
        self.weights = {name: term.weight for name, term in terms.items()}
        self.pair_losses = nn.ModuleDict(
            {name: term.loss for name, term in terms.items() if term.loss is not None}
        )
        self.uses_margin = MARGIN in terms
        if self.uses_margin:
            self.beta = nn.Parameter(torch.tensor(margin.beta))

    def forward(
        self, pixels: Tensor, labels: Tensor, photo_ids: Tensor, step: int, mix: Mix | None = None
    ) -> Losses:
        """Pixels [N, 3, H, W] in 0..255, labels [N] and photo ids [N] of a step -> Losses.

        Views that `mix` says are mixed are in no pair.
        """
        e = self.model.pooled(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            sides = self.model.sides(e)
            total, parts = e.new_zeros(()), dict[str, Tensor]()
            if self.lambda_ > 0:
                parts["cross_entropy"] = self.head(self._answers(sides.head_input), labels, mix)
                total = total + self.lambda_ * parts["cross_entropy"]
            if self.weights:
                if mix is not None:
                    labels = labels.masked_fill(mix.mixed, NO_INSTANCE)
                    photo_ids = photo_ids.masked_fill(mix.mixed, NO_INSTANCE)
                embedding = self.model.unit(sides.feature)
                instances = labels if self.positives_of_class else photo_ids
                parts |= self._pairs(embedding, labels=labels, instances=instances, step=step)
                weighted = sum(weight * parts[name] for name, weight in self.weights.items())
                total = total + (1 - self.lambda_) * weighted
        return Losses(total, {name: part.detach() for name, part in parts.items()})

    def _answers(self, head_input: Tensor) -> Tensor:
        """What the classifier sees [N, E] -> cosines or logits [N, K], as its head takes them."""
        classifier = self.model.classifier
        assert classifier is not None
        if isinstance(classifier, CosineClassifier):
            return classifier.cosines(head_input)
        logits: Tensor = classifier(head_input)
        return logits

    def _pairs(
        self, embedding: Tensor, *, labels: Tensor, instances: Tensor, step: int
    ) -> dict[str, Tensor]:
        """Unit embeddings [N, D] -> every pair loss by name, and what the margin loss saw."""
        parts = dict[str, Tensor]()
        if self.uses_margin:
            found = self._margin(embedding, instances, step)._asdict()
            parts = {MARGIN: found.pop("loss"), **found}
        for name, loss in self.pair_losses.items():
            parts[name] = loss(embedding, labels if name in OF_CLASSES else instances)
        return parts

    def _margin(self, embedding: Tensor, instances: Tensor, step: int) -> MarginLoss:
        if self.training:
            # Beyond the distances there are, one kind of term would be always active or never.
            # The parameter is put back, not the formula clamped: so its gradient can move it on.
            with torch.no_grad():
                self.beta.clamp_(0, LARGEST_DISTANCE)
        return margin_loss(
            embedding,
            instances,
            self.beta,
            alpha=self.margin.alpha,
            negatives=self.margin.negatives,
            effective_dim=self.margin.effective_dim,
            most_negatives=self.margin.most_negatives,
            seed=seed_of(self.margin.seed, "negatives", step),
            divisor=self.margin.divisor,
        )


def _check(model: MultiGrain, *, lambda_: float, has_terms: bool) -> None:
    if lambda_ > 0 and model.classifier is None:
        raise ObjectiveError(f"lambda {lambda_} needs classes: give sub-folders, or lambda 0")
    if lambda_ == 0 and not has_terms:
        raise ObjectiveError("lambda 0 with one view a photo trains nothing: give 2 views")
    if lambda_ == 0 and model.neck is not None and not model.embeds_after_neck:
        raise ObjectiveError(
            "with lambda 0 and the embedding before the neck nothing trains the neck: "
            "take --neck none, or --neck-features after"
        )
