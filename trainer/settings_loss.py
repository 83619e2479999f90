"""Flags of the training program: the loss."""

import difflib
from typing import Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from multigrain.config import Config

Negatives = Literal["uniform", "distance", "hard", "reference"]

# `margin` is ours; the others are built by trainer/losses/pair_losses.py.
PAIR_LOSSES = (
    "margin", "triplet", "triplet-soft", "contrastive", "circle", "multi-similarity",
    "supcon", "nt-xent", "proxy-anchor", "proxy-nca",
)  # fmt: skip
PROXY_LOSSES = ("proxy-anchor", "proxy-nca")  # between views and classes: one view a photo will do


class WeightedLoss(NamedTuple):
    """A pair loss by name, and its weight in the sum."""

    name: str
    weight: float


class LossSettings(Config):
    """What training minimises: `lambda * classes + (1 - lambda) * pairs`."""

    lambda_: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="lambda: weight of the classes beside the instances; "
        "unset: 0.5 with classes, 0 without",
    )
    pair_losses: tuple[str, ...] = Field(
        default=("margin",),
        min_length=1,
        description="pair losses, NAME or NAME:WEIGHT, summed: margin, or one of "
        f"pytorch-metric-learning's ({', '.join(PAIR_LOSSES[1:])}); repeatable",
    )
    positives: Literal["instance", "class"] = Field(
        default="instance",
        description="what views of a pair share: the photo, or its class (proxies are of classes)",
    )
    alpha: float = Field(default=0.2, ge=0, description="margin of the margin loss")
    beta: float = Field(
        default=1.2, gt=0, lt=2, description="its distance boundary at the start; learned"
    )
    margin_divisor: Literal["both", "either"] = Field(
        default="both",
        description="count of the margin loss's non-zero terms: each of them, or a positive and "
        "its negative once (parity with code of torch before 1.2)",
    )
    negatives: Negatives = Field(
        default="uniform",
        description="the margin loss's negatives: any, weighted by distance, the nearest, or "
        "weighted with the underflow of published code",
    )
    effective_dim: int = Field(
        default=128,
        ge=0,
        description="dimension in the density of --negatives distance; 0: the embedding's own, "
        "as in published code (reference)",
    )

    @field_validator("pair_losses")
    @classmethod
    def _known_once(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        names = [weighted_loss(text).name for text in texts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]} is given twice: once, with the sum of the weights")
        return texts

    @model_validator(mode="after")
    def _dimension_is_used(self) -> Self:
        # 0 is what `reference` takes in any case.
        fitting = {"distance": None, "reference": (0,)}.get(self.negatives, ())
        default = _default_of(type(self), "effective_dim")
        if fitting is not None and self.effective_dim not in (*fitting, default):
            raise ValueError(
                f"--effective-dim {self.effective_dim} belongs to --negatives distance, not to "
                f"{self.negatives}: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_the_margin_loss_are_used(self) -> Self:
        uses_margin = any(weighted_loss(text).name == "margin" for text in self.pair_losses)
        given = self.model_fields_set & {
            "alpha", "beta", "margin_divisor", "negatives", "effective_dim"
        }  # fmt: skip
        changed = sorted(
            name for name in given if getattr(self, name) != _default_of(type(self), name)
        )
        if changed and not uses_margin:
            flag = f"--{changed[0].replace('_', '-')}"
            raise ValueError(
                f"{flag} belongs to the margin loss, which --pair-losses leaves out: "
                f"add margin, or leave {flag} out"
            )
        return self


def weighted_loss(text: str) -> WeightedLoss:
    """Read NAME or NAME:WEIGHT; raises ValueError naming the nearest name, or the weight."""
    name, colon, weight = text.partition(":")
    if name not in PAIR_LOSSES:
        near = difflib.get_close_matches(name, PAIR_LOSSES, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(PAIR_LOSSES)}"
        raise ValueError(f"no pair loss is named {name!r}: {advice}")
    try:
        value = float(weight) if colon else 1.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{text!r}: the weight must be a number above 0")
    return WeightedLoss(name, value)


def _default_of(cls: type[Config], name: str) -> object:
    return cls.model_fields[name].default
