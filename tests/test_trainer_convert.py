"""Other projects' files become checkpoints, whole or not at all."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from multigrain.checkpoint import load_checkpoint
from multigrain.config import ConfigError
from trainer.convert import ConvertConfig, convert
from trainer.models.weights import WeightsError

NAME = "resnet18"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(torchvision.models.get_model(NAME, num_classes=3).state_dict())


def converted(folder: Path, file: Any, **options: Any) -> Any:
    torch.save(file, folder / "weights.pth")
    values = {"weights": folder / "weights.pth", "backbone": NAME, "size": 32}
    config = ConvertConfig(**values, out=folder / "out.safetensors", **options)
    return load_checkpoint(convert(config))


def pycls_name(name: str) -> str:
    """Torchvision's name of a ResNet's tensor as pycls spells it."""
    name = re.sub(r"^conv1\.", "stem.conv.", re.sub(r"^bn1\.", "stem.bn.", name))
    block = re.match(r"layer(\d)\.(\d+)\.(.*)", name)
    if block is None:
        return name.replace("fc.", "head.fc.")
    inner = block[3].replace("downsample.0", "proj").replace("downsample.1", "bn")
    inner = re.sub(r"^conv(\d)", lambda m: f"f.{'abc'[int(m[1]) - 1]}", inner)
    inner = re.sub(r"^bn(\d)", lambda m: f"f.{'abc'[int(m[1]) - 1]}_bn", inner)
    return f"s{block[1]}.b{int(block[2]) + 1}.{inner}"


@pytest.mark.parametrize("layout", ["torchvision", "pycls", "pymetric", "multigrain"])
def test_a_trunk_is_found_in_every_layout(
    layout: str,
    state: dict[str, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its values are the file's, whatever its names stand behind."""
    pycls = {pycls_name(name): tensor for name, tensor in state.items()}
    file = {
        "torchvision": state,
        "pycls": {"epoch": 3, "state_dict": pycls},
        "pymetric": {"model_state": {f"module.backbone.{n}": t for n, t in pycls.items()}},
        "multigrain": {
            "model_state": {
                **{f"features.{n}": t for n, t in state.items() if not n.startswith("fc.")},
                **{n.replace("fc.", "classifier."): t for n, t in state.items() if "fc." in n},
                "pool.p": torch.tensor(4.0),
            }
        },
    }[layout]
    model, document, _ = converted(tmp_path, file)
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert document.pooling.p == (4.0 if layout == "multigrain" else 3.0)
    assert document.classifier is None
    assert model.pool.p == document.pooling.p
    assert "the classifier of 3 classes is left out" in capsys.readouterr().err


def test_bgr_weights_see_rgb_photos(state: dict[str, Tensor], tmp_path: Path) -> None:
    """The first convolution's channels are turned, nothing else; an exponent asked for wins."""
    file = {**state, "pool.p": torch.tensor([5.0])}
    model, document, _ = converted(tmp_path, file, bgr=True, p=2.0)
    assert document.pooling.p == 2.0
    own = model.backbone.state_dict()
    assert torch.equal(own["conv1.weight"], state["conv1.weight"].flip(1))
    assert torch.equal(own["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_a_classifier_is_kept_when_its_classes_are_named(
    state: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With mean pooling its logits are the other library's own; by another number it is refused."""
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    model, document, _ = converted(
        tmp_path, state, class_names=tmp_path / "names.txt", pooling="avg"
    )
    assert document.classifier.class_names == ("ant", "bee", "cow")
    theirs = torchvision.models.get_model(NAME, num_classes=3).eval()
    theirs.load_state_dict(state)
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).float()
    with torch.inference_mode():
        torch.testing.assert_close(
            model(pixels).logits, theirs(model.normalise(pixels)), rtol=1e-4, atol=1e-4
        )
    assert "left out" not in capsys.readouterr().err
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    with pytest.raises(WeightsError, match="holds 2 names, the classifier has 3"):
        converted(tmp_path, state, class_names=tmp_path / "names.txt")

    (tmp_path / "names.txt").write_text("crane\nbee\ncrane\n")
    with pytest.raises(WeightsError, match="'crane' stands on lines 1 and 3"):
        converted(tmp_path, state, class_names=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("ant\nbee\ncow\n")
    converted(tmp_path, state, class_names=tmp_path / "names.txt")
    assert "--pooling avg keeps its scores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "between"), [("test_convnext", "head.norm"), ("test_vit", "cls_token")]
)
def test_a_classifier_behind_something_else_is_refused(
    name: str, between: str, tmp_path: Path
) -> None:
    """A norm of the head, or a class token: its scores on pooled features would be others."""
    import timm

    (tmp_path / "names.txt").write_text("ant\nbee\n")
    theirs = (
        timm.create_model(name, pretrained=False, num_classes=2, img_size=160)
        if (name == "test_vit")
        else timm.create_model(name, pretrained=False, num_classes=2)
    )
    save_file(theirs.state_dict(), str(tmp_path / "timm.safetensors"))
    values = {"weights": tmp_path / "timm.safetensors", "backbone": f"timm:{name}", "size": 160}
    config = ConvertConfig(**values, rule="crop", out=tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=f"{between} stands between"):
        convert(config.model_copy(update={"class_names": tmp_path / "names.txt"}))
    convert(config)


@pytest.mark.parametrize(
    ("p", "message"),
    [([3.0, 4.0], "2 exponents"), ([0.0], "exponent is 0"), ([float("nan")], "exponent is nan")],
)
def test_an_exponent_that_gem_cannot_have_is_refused(
    p: list[float], message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    """Until another is given."""
    file = {**state, "pool.p": torch.tensor(p)}
    with pytest.raises(WeightsError, match=message):
        converted(tmp_path, file)
    assert converted(tmp_path, file, p=2.0).document.pooling.p == 2.0


def test_which_of_several_weights_is_taken_is_said(
    state: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrapper of several, and of two encoders the one that was trained."""
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    pair = {f"encoder_k.{n}": t for n, t in zeros.items()}
    pair |= {f"encoder_q.{n}": t for n, t in state.items()}
    model = converted(tmp_path, {"model_ema": zeros, "state_dict": pair}).model
    assert torch.equal(model.backbone.state_dict()["conv1.weight"], state["conv1.weight"])
    said = capsys.readouterr().err
    assert "those of 'state_dict'; beside them lie model_ema" in said
    assert "that under 'encoder_q.'; beside it lie 'encoder_k.'" in said


def test_the_original_s_whitening_is_left_out_and_said(
    state: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is of [e; 1], and its classifier expects its vectors."""
    file = {f"features.{name}": t for name, t in state.items() if not name.startswith("fc.")}
    file |= {
        "classifier.weight": torch.zeros(3, 513),
        "classifier.bias": torch.zeros(3),
        "whitening.pca.pca_P": torch.zeros(513, 513),
        "whitening.pca.pca_m": torch.zeros(513),
    }
    model, document, _ = converted(tmp_path, {"model_state": file})
    assert model.whiten is None
    assert document.classifier is None
    said = capsys.readouterr().err
    assert "the whitening is left out" in said
    assert "2 tensors are not understood and left out: classifier.bias, classifier.weight" in said


def test_a_trunk_in_parts_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    """A missing tensor, another model, no tensors, pickled code; no file is written."""
    part = {name: t for name, t in state.items() if not name.startswith("layer4.1.")}
    with pytest.raises(WeightsError, match=r"absent or of another shape: layer4.1.conv1.weight"):
        converted(tmp_path, part)
    with pytest.raises(WeightsError, match="no named tensors"):
        converted(tmp_path, {"epoch": 3})
    with pytest.raises(WeightsError, match="no file of weights"):
        converted(tmp_path, {"model_state": state, "optimiser": Path()})
    assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(ConfigError, match="--p"):
        ConvertConfig.from_values({"weights": "x", "backbone": "x", "out": "x", "p": 0})


def test_timm_s_safetensors_convert(tmp_path: Path) -> None:
    """By timm's own names."""
    import timm

    theirs = timm.create_model("test_resnet", pretrained=False)
    save_file(theirs.state_dict(), str(tmp_path / "timm.safetensors"))
    out = convert(
        ConvertConfig(
            weights=tmp_path / "timm.safetensors",
            backbone="timm:test_resnet",
            out=tmp_path / "out.safetensors",
            size=32,
        )
    )
    body = load_checkpoint(out).model.backbone.state_dict()
    assert torch.equal(body["body.conv1.0.weight"], theirs.state_dict()["conv1.0.weight"])
