"""What training minimises: `lambda * cross-entropy + (1 - lambda) * margin`.

N views of this process, K classes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrain.errors import MultiGrainError
from multigrain.model import MultiGrain
from trainer.margin import margin_loss
from trainer.negatives import Negatives
from trainer.seeds import seed_of


class ObjectiveError(MultiGrainError):
    """Loss settings that leave nothing to train on."""


class MarginSettings(NamedTuple):
    """Constants of the margin term; `most_negatives` bounds the positives of one view."""

    alpha: float
    beta: float
    negatives: Negatives
    effective_dim: int
    most_negatives: int
    seed: int


class Losses(NamedTuple):
    """The loss and its parts, scalars; the parts are detached, 0 where a term is off."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """The model and every learned number of the loss, so that DDP reduces them together.

    The margin term is off with one view a photo or lambda 1, the classifier with lambda 0;
    what is off owns no parameter, so DDP never waits for a gradient that does not come.
    """

    def __init__(
        self, model: MultiGrain, *, lambda_: float, num_views: int, margin: MarginSettings
    ) -> None:
        super().__init__()
        self.uses_margin = num_views > 1 and lambda_ < 1
        if lambda_ > 0 and model.classifier is None:
            raise ObjectiveError(f"lambda {lambda_} needs classes: give sub-folders, or lambda 0")
        if lambda_ == 0 and not self.uses_margin:
            raise ObjectiveError("lambda 0 with one view a photo trains nothing: give 2 views")
        self.model = model
        self.lambda_ = lambda_
        self.margin = margin
        if self.uses_margin:
            self.beta = nn.Parameter(torch.tensor(margin.beta))

    def forward(self, pixels: Tensor, labels: Tensor, photo_ids: Tensor, step: int) -> Losses:
        """Pixels [N, 3, H, W] in 0..255, labels [N] and photo ids [N] of a step -> Losses."""
        pooled = self.model.pooled(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            total, parts = pooled.new_zeros(()), {}
            if self.lambda_ > 0:
                logits = self.model.classify(pooled)
                assert logits is not None
                parts["cross_entropy"] = F.cross_entropy(logits, labels)
                total = total + self.lambda_ * parts["cross_entropy"]
            if self.uses_margin:
                found = margin_loss(
                    self.model.embed(pooled),
                    photo_ids,
                    self.beta,
                    alpha=self.margin.alpha,
                    negatives=self.margin.negatives,
                    effective_dim=self.margin.effective_dim,
                    most_negatives=self.margin.most_negatives,
                    seed=seed_of(self.margin.seed, "negatives", step),
                )
                total = total + (1 - self.lambda_) * found.loss
                parts |= found._asdict()
        named = {("margin" if name == "loss" else name): part for name, part in parts.items()}
        return Losses(total, {name: part.detach() for name, part in named.items()})
