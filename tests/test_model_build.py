"""The model that the training program's settings describe."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_fixtures import draw_small

from multigrain.backbone import BackboneError
from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.config import Config, ConfigError
from multigrain.document import Document
from multigrain.model import MultiGrain
from trainer.inputs.data import read_data
from trainer.models.build_model import build_model
from trainer.pretrained import PretrainedConfig, make_pretrained
from trainer.settings import TrainConfig
from trainer.speech import say_nothing


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_small(tmp_path_factory.mktemp("photos") / "drawn", num_classes=2)


def built(photos: Path, **changes: Any) -> tuple[Document, MultiGrain]:
    values: dict[str, Any] = {"data": [photos], "out": "x", "backbone": "timm:test_resnet"}
    config = TrainConfig.from_values(values | {"size": 32, "batch_size": 6} | changes)
    return build_model(config, read_data(config, say=say_nothing), say=say_nothing)


def test_every_part_is_what_the_settings_say(photos: Path, tmp_path: Path) -> None:
    """Trunk, stride, pooling, reduction, neck, head; and the file of it loads."""
    document, model = built(
        photos,
        last_stride=1,
        pooling="avg+max",
        reduction=8,
        neck="bn",
        neck_features="before",
        head="arcface",
        head_scale=20.0,
        rule="whole",
        test_size=64,
    )
    assert document.backbone.model_dump(exclude={"feature_dim"}) == {
        "library": "timm",
        "name": "test_resnet",
        "last_stride": 1,
    }
    assert document.pooling.kind == "avg+max"
    assert document.pooling.p is None
    assert document.embedding.dim == document.embedding.reduction == 8
    assert document.embedding.neck == "bn"
    assert document.embedding.neck_features == "before"
    assert document.classifier is not None
    assert document.classifier.kind == "arcface"
    assert document.classifier.scale == 20.0
    assert document.preprocessing.size == 64
    assert "timm" in document.software
    save_checkpoint(tmp_path / "x.safetensors", model, document)
    assert load_checkpoint(tmp_path / "x.safetensors").document == document


def test_plain_settings_give_a_plain_document(photos: Path) -> None:
    """GeM with its exponent, no reduction, no neck, a linear head; the same weights again."""
    document, model = built(photos, p=4.0, learn_p=True)
    assert document.pooling.p == 4.0
    assert isinstance(model.pool.p, torch.nn.Parameter)
    assert model.reduce is None
    assert model.neck is None
    assert document.classifier is not None
    assert document.classifier.kind == "linear"
    assert document.software["weights"] == "trained from random weights"
    _, again = built(photos, p=4.0, learn_p=True)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_allow": "fc.*"}, "--weights-allow is for --weights"),
        ({"learn_p": True, "pooling": "avg"}, "--learn-p is for --pooling gem"),
        ({"tokens": "class"}, "give --pooling avg"),
        ({"neck_features": "before"}, "needs --neck bn"),
        ({"head_scale": 30}, "are for cosine heads"),
        ({"head_margin": 0.1}, "are for cosine heads"),
    ],
)
def test_options_without_their_part_are_refused(
    photos: Path, changes: dict[str, Any], message: str
) -> None:
    """An option that would do nothing is an error."""
    with pytest.raises(ConfigError, match=message):
        built(photos, **changes)


def test_a_class_token_and_the_mean_of_a_library(photos: Path) -> None:
    """A ViT's class token as the embedding; pixels centred as timm centres them."""
    document, model = built(
        photos, backbone="timm:vit_tiny_patch16_224", tokens="class", pooling="avg"
    )
    assert document.preprocessing.mean == (0.5, 0.5, 0.5)
    with torch.inference_mode():
        assert model.eval().pooled(torch.zeros(1, 3, 48, 32)).shape == (1, 192)


def test_a_trunk_of_one_size_is_found_out_at_the_start(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the shape and what to do."""
    monkeypatch.setattr("multigrain.backbone_timm._ANY_SIZE", ({},))
    with pytest.raises(BackboneError, match=r"does not take photos of 32 x 32 .*another --size"):
        built(photos, backbone="timm:vit_tiny_patch16_224", pooling="avg")
    with pytest.raises(BackboneError, match=r"does not take photos of 64 x 64 "):
        built(
            photos,
            backbone="timm:vit_tiny_patch16_224",
            pooling="avg",
            rule="crop",
            size=224,
            more_test_sizes=[64],
        )


def test_pretrained_offers_the_same_trunks_and_poolings(tmp_path: Path) -> None:
    """From a timm trunk with mean pooling, without any training."""
    out = make_pretrained(
        PretrainedConfig(
            backbone="timm:test_vit",
            weights="none",
            out=tmp_path / "x.safetensors",
            size=64,
            pooling="avg",
        )
    )
    model, document, _ = load_checkpoint(out)
    assert document.pooling.kind == "avg"
    assert model(torch.zeros(1, 3, 64, 96)).embedding.shape == (1, 64)
    with pytest.raises(ConfigError, match="give --pooling avg"):
        PretrainedConfig.from_values({"backbone": "vit_b_16", "out": "x", "tokens": "class"})


def test_no_part_of_the_settings_hides_another_s_check() -> None:
    """Checks of one name in two parts would leave the first part's alone in the whole."""
    names: list[str] = []
    for part in TrainConfig.__bases__:
        checks = part.__pydantic_decorators__  # type: ignore[attr-defined]
        names += [*checks.model_validators, *checks.field_validators]
    own = [name for name in names if name not in Config.__pydantic_decorators__.model_validators]
    assert "_parts_of_the_model_are_there" in own
    assert len(own) == len(set(own))
