"""The classifier's loss in training: cross-entropy, with the margins of the cosine heads.

N views of this process, K classes.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multigrain.document import ClassifierKind
from trainer.inputs.mix import Mix
from trainer.losses.gather import sum_over_processes

# Where the arc cosine's slope is infinite: closer to +-1 a cosine has no gradient.
LARGEST_COSINE = 1 - 1e-6

# Weight of a batch in CurricularFace's moving average (Huang et al. 2020, section 3.3).
CURRICULUM_RATE = 0.01


class Constants(NamedTuple):
    """Scale and margin of a cosine head."""

    scale: float
    margin: float


# ArcFace: Deng et al. 2019, section 3.1 and table 2; CosFace: Wang et al. 2018, section 4.1;
# CurricularFace: Huang et al. 2020, section 4.1; circle: Sun et al. 2020, section 4.1.
CONSTANTS: dict[str, Constants] = {
    "arcface": Constants(scale=64.0, margin=0.5),
    "cosface": Constants(scale=64.0, margin=0.35),
    "curricularface": Constants(scale=64.0, margin=0.5),
    "circle": Constants(scale=256.0, margin=0.25),
}


def constants_of(
    kind: ClassifierKind, *, scale: float | None, margin: float | None
) -> Constants | None:
    """Return a head's scale and margin, the paper's where None; None for the linear head."""
    published = CONSTANTS.get(kind)
    if published is None:
        return None
    return Constants(
        published.scale if scale is None else scale, published.margin if margin is None else margin
    )


class HeadLoss(nn.Module):
    """Cross-entropy of the classifier's answers, mean over views.

    A linear head gives logits. The others give cosines, here scaled and made harder for a
    view's own class; the margins are of training alone, after it `scale * cosine` decides.
    Mixed views have no one class to be strict about: their logits are the plain scaled cosines,
    their target `share * CE(label) + (1 - share) * CE(partner)`.
    """

    curriculum: Tensor

    def __init__(
        self, kind: ClassifierKind, *, constants: Constants | None, label_smoothing: float
    ) -> None:
        super().__init__()
        self.kind = kind
        self.scale, self.margin = constants or Constants(1.0, 0.0)
        self.label_smoothing = label_smoothing
        if kind == "curricularface":
            self.register_buffer("curriculum", torch.zeros(()))

    def forward(self, answers: Tensor, labels: Tensor, mix: Mix | None = None) -> Tensor:
        """Logits or cosines [N, K] in float32 and labels [N] -> the loss."""
        if self.kind == "linear":
            logits = answers
        else:
            logits = self.with_margin(answers, labels, mix)
            if mix is not None:
                plain = self.scale * answers
                logits = torch.where(mix.mixed.unsqueeze(1), plain, logits)
        if mix is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return self._of_two(logits, labels, mix)

    def with_margin(self, cosines: Tensor, labels: Tensor, mix: Mix | None) -> Tensor:
        """Cosines [N, K] -> logits [N, K], the own class's lowered."""
        own = cosines.gather(1, labels.unsqueeze(1))
        if self.kind == "cosface":
            # Wang et al. 2018, equation 4.
            return self.scale * cosines.scatter(1, labels.unsqueeze(1), own - self.margin)
        if self.kind == "circle":
            return self._circle(cosines, own, labels)
        lowered = add_angle(own, self.margin)
        if self.kind == "curricularface":
            cosines = self._curricular(cosines, own, lowered, mix)
        # Deng et al. 2019, equation 3.
        return self.scale * cosines.scatter(1, labels.unsqueeze(1), lowered)

    def _circle(self, cosines: Tensor, own: Tensor, labels: Tensor) -> Tensor:
        """Each cosine is weighted by its distance from its optimum, 1 + m or -m.

        Sun et al. 2020, equations 5 to 7 with class weights for the other samples; the weights
        carry no gradient.
        """
        weight = (cosines.detach() + self.margin).relu()
        others = weight * (cosines - self.margin)
        own_weight = (1 + self.margin - own.detach()).relu()
        target = own_weight * (own - (1 - self.margin))
        return self.scale * others.scatter(1, labels.unsqueeze(1), target)

    def _curricular(self, cosines: Tensor, own: Tensor, lowered: Tensor, mix: Mix | None) -> Tensor:
        """Raise the classes that beat the own one: `cosine * (t + cosine)`.

        Huang et al. 2020, equations 5 and 6; t follows the mean own cosine.
        """
        if self.training:
            self._follow(own.detach(), mix)
        hard = cosines > lowered.detach()
        return torch.where(hard, cosines * (self.curriculum + cosines), cosines)

    @torch.no_grad()
    def _follow(self, own: Tensor, mix: Mix | None) -> None:
        """Move t towards the mean own cosine of the whole batch's unmixed views."""
        counts = torch.ones_like(own) if mix is None else (~mix.mixed).unsqueeze(1).to(own.dtype)
        total, count = sum_over_processes(torch.stack(((own * counts).sum(), counts.sum())))
        mean = total / count.clamp_min(1)
        # A batch of mixed views alone says nothing about t.
        rate = CURRICULUM_RATE * count.clamp_max(1)
        moved = self.curriculum + (rate * (mean - self.curriculum)).to(self.curriculum.dtype)
        # A step whose numbers are none is skipped; t would keep them for ever.
        self.curriculum.copy_(torch.where(moved.isfinite(), moved, self.curriculum))

    def _of_two(self, logits: Tensor, labels: Tensor, mix: Mix) -> Tensor:
        def rows(classes: Tensor) -> Tensor:
            return F.cross_entropy(
                logits, classes, label_smoothing=self.label_smoothing, reduction="none"
            )

        # Views left alone have their own class alone, whatever stands beside it.
        share = torch.where(mix.mixed, mix.share.to(logits.dtype), 1.0)
        return (share * rows(labels) + (1 - share) * rows(mix.partner_labels)).mean()


def add_angle(cosines: Tensor, angle: float) -> Tensor:
    """Return cos(theta + angle) of cos(theta), falling monotonously for theta in [0, pi].

    Beyond pi - angle, where the cosine would rise again, it goes on as `-2 - cos(theta +
    angle)`, which meets it with the same slope (Liu et al. 2016, L-Softmax, equation 5).
    """
    theta = cosines.clamp(-LARGEST_COSINE, LARGEST_COSINE).acos()
    moved = (theta + angle).cos()
    return torch.where(theta + angle > math.pi, -2 - moved, moved)
