"""Trunks by name: torchvision's and timm's, their maps, and both engines on them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import VisionTransformer

from multigrain.backbone import BackboneError, build_backbone, split_name
from multigrain.backbone_timm import check_timm_name, timm_pixel_statistics
from multigrain.backbone_torchvision import VitBackbone
from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.classifier import LinearClassifier
from multigrain.document import BackboneSpec, Document, EmbeddingSpec, PoolingSpec, plain_document
from multigrain.embedder import Embedder
from multigrain.engine import DeviceError
from multigrain.engine_openvino import OpenVINOEngine, convert
from multigrain.engine_torch import PooledUnit, TorchEngine
from multigrain.model import MultiGrain
from multigrain.pooling import Mean
from multigrain.transforms import Preprocessing

SAME = 1 - 1e-5
SHAPES = ((1, 64, 64), (3, 64, 96), (2, 96, 64))


def small_vit(*, tokens: Any = "patches") -> tuple[VitBackbone, VisionTransformer]:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    torch.nn.init.normal_(model.encoder.pos_embedding)
    return VitBackbone("small", model, tokens=tokens), model


@pytest.mark.parametrize(
    ("name", "num_channels"),
    [
        ("resnet50", 2048),
        ("wide_resnet50_2", 2048),
        ("resnext50_32x4d", 2048),
        ("convnext_tiny", 768),
        ("swin_t", 768),
        ("swin_v2_t", 768),
        ("vit_b_16", 768),
        ("timm:resnet10t", 512),
        ("timm:resnet10t.c3_in1k", 512),
        ("timm:vit_tiny_patch16_224", 192),
        ("timm:swin_tiny_patch4_window7_224", 768),
        ("timm:convnext_atto", 320),
    ],
)
def test_a_trunk_knows_its_channels(name: str, num_channels: int) -> None:
    """Built without memory for its weights; nothing is downloaded."""
    with torch.device("meta"):
        assert build_backbone(name).num_channels == num_channels


@pytest.mark.parametrize(
    "name",
    ["legacy_seresnet50", "legacy_senet154", "pnasnet5large", "nasnetalarge", "resnest50d"],
)
def test_timm_brings_the_older_trunks(name: str) -> None:
    """SE-ResNet, SENet, PNASNet, NASNet and ResNeSt resolve by name."""
    check_timm_name(name)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("timm:test_resnet", (2, 96, 3, 2)),
        ("timm:test_vit", (2, 64, 24, 1)),
        ("timm:test_convnext", (2, 64, 3, 2)),
        ("squeezenet1_1", (2, 512, 5, 3)),
    ],
)
def test_a_trunk_takes_photos_of_any_size(name: str, shape: tuple[int, ...]) -> None:
    """A map [N, C, h, w] of a 96 x 64 photo; tokens in a row."""
    with torch.inference_mode():
        assert build_backbone(name).eval()(torch.zeros(2, 3, 96, 64)).shape == shape


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "timm:test_resnet"])
def test_without_the_last_stride_the_map_is_twice_as_large(name: str) -> None:
    """And the weights fit both."""
    strided, dense = build_backbone(name), build_backbone(name, last_stride=1)
    assert not any(dense.load_library_state(strided.library_state()))
    pixels = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        small, large = strided.eval()(pixels).shape, dense.eval()(pixels).shape
    assert large[2:] == (2 * small[2], 2 * small[3])


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("resnet51", {}, "did you mean resnet5"),
        ("timm:convnext_atta", {}, "did you mean timm:convnext_atto"),
        ("xyz", {}, "choose of .*vit_b_16"),
        ("swin_t", {"last_stride": 1}, "last_stride 1 is not possible with swin_t"),
        ("timm:test_vit", {"last_stride": 1}, "give last_stride 2"),
        ("resnet18", {"tokens": "class"}, "no class token"),
        ("timm:test_resnet", {"tokens": "class"}, "no class token"),
    ],
)
def test_a_trunk_that_cannot_be_is_named(name: str, asked: dict[str, Any], message: str) -> None:
    """With the nearest name, or what else to ask for."""
    with pytest.raises(BackboneError, match=message), torch.device("meta"):
        build_backbone(name, **asked)


def test_without_timm_its_trunks_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else needs it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BackboneError, match=r"pip install 'multigrain-retrieval\[timm\]'"):
        build_backbone("timm:resnet10t")
    assert split_name("timm:resnet10t") == ("timm", "resnet10t")


def test_timm_says_what_its_weights_were_trained_with() -> None:
    """PNASNet's pixels are centred at 0.5."""
    assert timm_pixel_statistics("pnasnet5large") == ((0.5,) * 3, (0.5,) * 3)


def test_our_vit_is_torchvision_s_at_its_own_size() -> None:
    """Patch tokens and class token equal those of the library's own forward pass."""
    pixels = torch.randn(2, 3, 32, 32)
    for tokens, rows in (("patches", slice(1, None)), ("class", slice(0, 1))):
        ours, theirs = small_vit(tokens=tokens)
        seen: list[torch.Tensor] = []
        theirs.encoder.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
        with torch.inference_mode():
            theirs.eval()(pixels)
            features = ours.eval()(pixels)
        torch.testing.assert_close(features[..., 0], seen[0][:, rows].transpose(1, 2))
        assert set(ours.state_dict()) == {
            name for name in theirs.state_dict() if not name.startswith("heads.")
        }


def _model(name: str) -> MultiGrain:
    torch.manual_seed(0)
    backbone = small_vit()[0] if name == "small" else build_backbone(name)
    num_channels = backbone.num_channels
    neck = torch.nn.BatchNorm1d(8)
    neck.running_mean = torch.randn(8)
    return MultiGrain(
        backbone=backbone,
        pool=Mean(),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        reduce=torch.nn.Linear(num_channels, 8),
        neck=neck,
        classifier=LinearClassifier(8, 2),
    ).eval()


@pytest.mark.parametrize("name", ["small", "timm:test_vit", "timm:test_efficientnet"])
def test_both_engines_compute_the_model(name: str) -> None:
    """Reduction, neck, mean pooling, attention: the same vectors in other batches and shapes."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    model = _model(name)
    engines = (
        TorchEngine(model, device="cpu", precision="fp32"),
        OpenVINOEngine(convert(model), precision="fp32", num_threads=1),
    )
    for shape in SHAPES:
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = PooledUnit(model)(torch.from_numpy(pixels)).numpy()
            whole = model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).embedding.numpy()
        np.testing.assert_allclose(expected, whole, atol=1e-6)
        for engine in engines:
            assert (engine.infer(pixels) * expected).sum(axis=1).min() >= SAME, engine.name


def test_a_reduced_embedding_goes_through_the_embedder(tmp_path: Path, draw: Any) -> None:
    """The embedder's width is the reduction's."""
    document = Document(
        backbone=BackboneSpec(library="timm", name="test_resnet", feature_dim=96),
        pooling=PoolingSpec(kind="avg+max", p=None),
        embedding=EmbeddingSpec(dim=8, reduction=8, neck="bn", neck_features="before"),
        preprocessing=Preprocessing(size=64, rule="whole"),
    )
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, MultiGrain.build(document), document)
    embedder = Embedder.open(path, device="cpu", engine="torch", precision="fp32", num_threads=1)
    assert embedder.embed([draw(0), draw(1).rotate(90, expand=True)]).shape == (2, 8)


def test_a_trunk_that_computes_its_own_widths_can_be_saved(tmp_path: Path) -> None:
    """RegNet is the one that needs data to be described."""
    document = plain_document(
        backbone_name="regnet_y_400mf", feature_dim=440, preprocessing=Preprocessing(size=32), p=3.0
    )
    path = tmp_path / "x.safetensors"
    assert save_checkpoint(path, MultiGrain.build(document), document)
    assert load_checkpoint(path).document == document


def test_a_conversion_that_computes_something_else_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, it is an error and leaves nothing in the cache; `auto` takes torch."""
    pytest.importorskip("openvino", reason="the cpu extra is not installed")
    monkeypatch.setattr("multigrain.engine._MIN_CONVERSION_COSINE", {"fp32": 1.1, "bf16": 1.1})
    asked: dict[str, Any] = {"device": "cpu", "cache_dir": tmp_path, "precision": "fp32"}
    with pytest.raises(DeviceError, match="use engine torch"):
        Embedder.open(tiny_checkpoint, engine="openvino", **asked)
    assert not list(tmp_path.rglob("model.xml"))
    assert Embedder.open(tiny_checkpoint, engine="auto", **asked).engine == "torch"
