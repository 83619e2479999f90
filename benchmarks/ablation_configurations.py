"""What the ablation trains: the recipe with the published pair term, one factor at a time."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "trainer/recipes/cpu-small.yaml"
WEIGHTS = "weights/squeezenet1_1_imagenet_features.pth"
WEIGHTS_LICENCE = "MIT"
SEEDS = (0, 1, 2)

# Scores come from the embeddings without whitening; whitenings are tried on those afterwards.
# All photos of `train` are trained on: none is held back, and no exponent is chosen.
_LATER = {"weights", "whiten_dim", "whiten_power", "whiten_floor", "exponents"}
_COMMON: dict[str, Any] = {"whiten_dim": 0, "exponents": [], "val_fraction": 0.0}
# What each factor is changed from. The recipe follows from the table, and is its last row.
_PUBLISHED: dict[str, Any] = {"negatives": "uniform", "effective_dim": 128, "beta": 1.2}


class Configuration(NamedTuple):
    """A row of the table: what it changes in the base; without training when `is_trained` not."""

    name: str
    factor: str
    changes: dict[str, Any]
    is_trained: bool = True

    @property
    def tries_whitenings(self) -> bool:
        """Whether all whitenings are tried on it: with and without training, nothing changed."""
        return not self.changes


BASE = Configuration("published", "negatives uniform, beta 1.2, lambda 0.5, N 3, p 3", {})
TRAINED = Configuration(
    "cpu-small",
    "the recipe: negatives distance (512) and beta 0.8",
    {"negatives": "distance", "effective_dim": 0, "beta": 0.8},
)
PRETRAINED = Configuration("pretrained", "no training", {}, is_trained=False)

CONFIGURATIONS = (
    PRETRAINED,
    BASE,
    Configuration(
        "distance-own",
        "negatives: distance, dimension 512, the embedding's own",
        {"negatives": "distance", "effective_dim": 0},
    ),
    Configuration(
        "distance-128",
        "negatives: distance, dimension 128",
        {"negatives": "distance", "effective_dim": 128},
    ),
    Configuration(
        "reference",
        "negatives: reference, as published code computes them",
        {"negatives": "reference", "effective_dim": 0},
    ),
    Configuration("hard", "negatives: hard", {"negatives": "hard"}),
    Configuration("lambda-1", "lambda 1: classes alone", {"lambda_": 1.0}),
    Configuration("lambda-0", "lambda 0: instances alone", {"lambda_": 0.0}),
    Configuration("views-1", "N 1: one view a photo, no pairs", {"num_views": 1}),
    Configuration("p-1", "p 1: average pooling", {"p": 1.0}),
    Configuration("p-learned", "p learned, from 3", {"learn_p": True}),
    Configuration("beta-0.8", "beta 0.8", {"beta": 0.8}),
    Configuration(
        "head-linear",
        "head: linear, on vectors of any length",
        {"head": "linear", "head_scale": None, "head_margin": None},
    ),
    TRAINED,
    Configuration("pretrained-p-1", "no training, p 1", {"p": 1.0}, is_trained=False),
)


class Run(NamedTuple):
    """A configuration with a seed."""

    configuration: Configuration
    seed: int

    @property
    def name(self) -> str:
        """Unique among runs, and a file's name."""
        return f"{self.configuration.name}-seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Settings of the trainer that are not paths."""
        recipe: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
        changes = self.configuration.changes
        assert self.configuration != TRAINED or changes.items() <= recipe.items(), "see TRAINED"
        kept = {name: value for name, value in recipe.items() if name not in _LATER}
        return kept | _COMMON | _PUBLISHED | changes | {"seed": self.seed}

    def digest(self) -> str:
        """Of all that the recipe and the configuration set: another recipe is another run."""
        text = json.dumps(self.settings(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
