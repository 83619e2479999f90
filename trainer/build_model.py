"""Build the model that the settings describe, with its initial weights."""

from collections.abc import Callable

import torch

from multigrain.backbone import build_backbone
from multigrain.document import Document, plain_document
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from trainer.data import Data
from trainer.seeds import seed_of
from trainer.settings import TrainConfig
from trainer.weights import NONE, load_weights

Say = Callable[[str], None]


def build_model(config: TrainConfig, data: Data, *, say: Say) -> tuple[Document, MultiGrain]:
    """Build the model with its initial weights, the same on every process."""
    torch.manual_seed(seed_of(config.seed, "weights"))
    document = plain_document(
        backbone_name=config.backbone,
        feature_dim=build_backbone(config.backbone).num_channels,
        preprocessing=Preprocessing(size=config.test_size or config.size, rule=config.rule),
        p=config.p,
        class_names=data.training.class_names if data.lambda_ > 0 else None,
        weights_licence=config.weights_licence,
    )
    model = MultiGrain.build(document, learnable_p=config.learn_p)
    origin = load_weights(model.backbone, config.weights, say=say)
    if config.weights == NONE:
        origin = {"weights": "trained from random weights"}
    return document.model_copy(update={"software": document.software | origin}), model
