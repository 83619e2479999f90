"""Build the model that the settings describe, with its initial weights."""

from collections.abc import Callable

import torch

from multigrain.document import ClassifierSpec, Document, EmbeddingSpec
from multigrain.model import MultiGrain
from trainer.inputs.data import Data
from trainer.losses.heads import constants_of
from trainer.models.model_parts import (
    backbone_spec,
    check_shapes,
    pooling_spec,
    preprocessing_of,
    software_of,
)
from trainer.models.weights import NONE, load_weights
from trainer.seeds import seed_of
from trainer.settings import TrainConfig

Say = Callable[[str], None]


def build_model(config: TrainConfig, data: Data, *, say: Say) -> tuple[Document, MultiGrain]:
    """Build the model with its initial weights, the same on every process.

    Raises BackboneError for a trunk that does not exist or does not take photos of the
    training size or a test size, WeightsError for weights that do not fit.
    """
    torch.manual_seed(seed_of(config.seed, "weights"))
    class_names = data.training.class_names if data.lambda_ > 0 else None
    trunk = backbone_spec(config.backbone, last_stride=config.last_stride, tokens=config.tokens)
    document = Document(
        backbone=trunk,
        pooling=pooling_spec(config.pooling, config.p),
        embedding=EmbeddingSpec(
            dim=config.reduction or trunk.feature_dim,
            reduction=config.reduction,
            neck="bn" if config.neck == "bn" else None,
            neck_features=config.neck_features,
        ),
        classifier=_classifier_of(config, class_names) if class_names else None,
        preprocessing=preprocessing_of(
            config.backbone, size=config.test_size or config.size, rule=config.rule
        ),
        weights_licence=config.weights_licence,
        software=software_of(config.backbone),
    )
    model = MultiGrain.build(document, learnable_p=config.learn_p)
    check_shapes(model.backbone, _shapes_of(config, document))
    origin = load_weights(
        model,
        config.weights,
        class_names=class_names,
        allow=config.weights_allow,
        say=say,
    )
    if config.weights == NONE:
        origin = {"weights": "trained from random weights"}
    return document.model_copy(update={"software": document.software | origin}), model


def _shapes_of(config: TrainConfig, document: Document) -> set[tuple[int, int]]:
    """Every (height, width) that training and the work after it prepare photos to."""
    tested = [
        document.preprocessing.model_copy(update={"size": size})
        for size in (document.preprocessing.size, *config.more_test_sizes)
    ]
    return {(config.size, config.size)}.union(*(rule.shapes() for rule in tested))


def _classifier_of(config: TrainConfig, class_names: tuple[str, ...]) -> ClassifierSpec:
    constants = constants_of(config.head, scale=config.head_scale, margin=config.head_margin)
    return ClassifierSpec(
        kind=config.head, scale=constants.scale if constants else None, class_names=class_names
    )
