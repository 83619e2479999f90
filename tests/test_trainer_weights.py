"""Initial weights: where they may come from, what fits, what is said, what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from multigrain.backbone import BackboneError, build_backbone
from multigrain.checkpoint import save_checkpoint
from multigrain.document import ClassifierSpec, Document, EmbeddingSpec, plain_document
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from trainer.models.weights import WeightsError, load_weights
from trainer.pretrained import PretrainedConfig, make_pretrained

SMALL = "squeezenet1_1"


def model_of(name: str = SMALL, *, classes: tuple[str, ...] = (), **embedding: Any) -> MultiGrain:
    return MultiGrain.build(document_of(name, classes=classes, **embedding)).eval()


def document_of(name: str = SMALL, *, classes: tuple[str, ...] = (), **embedding: Any) -> Document:
    library, _, bare = name.rpartition(":")
    feature_dim = build_backbone(name).num_channels
    plain = plain_document(
        backbone_name=bare, feature_dim=feature_dim, preprocessing=Preprocessing(size=32), p=3.0
    )
    return plain.model_copy(
        update={
            "backbone": plain.backbone.model_copy(update={"library": library or "torchvision"}),
            "embedding": EmbeddingSpec(dim=embedding.get("reduction") or feature_dim, **embedding),
            "classifier": ClassifierSpec(class_names=classes) if classes else None,
        }
    )


def fill(name: str, source: Path | str, **options: Any) -> list[str]:
    said: list[str] = []
    load_weights(model_of(name), str(source), say=said.append, **options)
    return said


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(torchvision.models.get_model(SMALL, weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def small() -> MultiGrain:
    return model_of()


def test_a_trunk_without_classifier_and_our_own_file_serve_as_weights(
    weights: Path, tmp_path: Path
) -> None:
    """Both fill the whole trunk with the same values."""
    state = torch.load(weights, weights_only=True)
    trunk_only = tmp_path / "trunk.pth"
    torch.save(
        {name: t for name, t in state.items() if not name.startswith("classifier.")}, trunk_only
    )
    own = make_pretrained(
        PretrainedConfig(backbone=SMALL, weights=str(weights), out=tmp_path / "own.safetensors")
    )
    for source in (trunk_only, own):
        model = model_of()
        load_weights(model, str(source), say=lambda _: None)
        for name, tensor in model.backbone.state_dict().items():
            assert torch.equal(tensor, state[name]), (source, name)


def test_weights_that_do_not_fit_are_an_error(weights: Path, tmp_path: Path) -> None:
    """Another model's names, a missing tensor, a wrong shape, no state dict, no file."""
    state = torch.load(weights, weights_only=True)
    state.pop("features.0.weight")
    lacking, listing = tmp_path / "lacking.pth", tmp_path / "list.pth"
    torch.save(state, lacking)
    torch.save([1, 2], listing)
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"no weights")
    numbered = tmp_path / "numbered.pth"
    torch.save({1: torch.zeros(1)}, numbered)

    with pytest.raises(WeightsError, match="does not fit mobilenet_v2"):
        fill("mobilenet_v2", weights)
    with pytest.raises(WeightsError, match=r"missing 1 \(features.0.weight"):
        fill(SMALL, lacking)
    with pytest.raises(BackboneError, match="another model"):
        fill("squeezenet1_0", weights)
    with pytest.raises(WeightsError, match="not a state dict"):
        fill(SMALL, listing)
    with pytest.raises(WeightsError, match="not a state dict"):
        fill(SMALL, numbered)
    with pytest.raises(WeightsError, match="no file of weights"):
        fill(SMALL, garbage)
    with pytest.raises(WeightsError, match=r"no weights file .*IMAGENET1K_V1"):
        fill(SMALL, tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match=r"of that tag for test_resnet.*DEFAULT, r160"):
        fill("timm:test_resnet", "a9_in1k")
    (tmp_path / "run").mkdir()
    with pytest.raises(WeightsError, match=r"no weights file .*model.safetensors"):
        fill(SMALL, tmp_path / "run")


@given(
    content=st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
    suffix=st.sampled_from([".pth", ".safetensors", ""]),
)
@example(content=b"hello, these are no weights\n", suffix=".txt")
@example(content="é".encode("latin-1"), suffix=".pth")
@example(content=b"\x80\x02X\x01\x00\x00\x00\xe9.", suffix=".pth")
@example(content=b"", suffix=".pth")
@example(content=b"PK\x03\x04", suffix=".pth")
@settings(deadline=None, max_examples=30)
def test_any_other_file_as_weights_is_one_clear_error(
    small: MultiGrain, tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    """Whatever reading it raises, the message names the file."""
    path = tmp_path_factory.mktemp("other") / f"other{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        load_weights(small, str(path), say=lambda _: None)


def test_allowed_names_may_differ_and_are_said(weights: Path, tmp_path: Path) -> None:
    """A missing, a left-over and a misshapen tensor, each only where a pattern says so."""
    state = torch.load(weights, weights_only=True)
    kept = state.pop("features.0.weight")
    state["features.99.weight"] = torch.ones(1)
    state["features.0.bias"] = torch.ones(3)
    odd = tmp_path / "odd.pth"
    torch.save(state, odd)
    with pytest.raises(WeightsError, match=r"missing 1 \(features.0.weight"):
        fill(SMALL, odd, allow=["features.0.bias"])
    said = fill(SMALL, odd, allow=["features.0.*", "features.99.*"])
    (line,) = [line for line in said if ": allowed: " in line]
    assert "random 2 (features.0.bias, features.0.weight, ...)" in line
    assert "of another shape 1 (features.0.bias" in line
    assert "left over 1 (features.99.weight" in line
    assert kept.shape == (64, 3, 3, 3)


@pytest.mark.parametrize(
    ("classes", "taken"),
    [(("cat", "dog"), True), (("dog", "cat"), False), (("cat", "dog", "owl"), False)],
)
def test_a_classifier_is_taken_for_the_same_classes_alone(
    classes: tuple[str, ...], *, taken: bool, tmp_path: Path
) -> None:
    """In their order; otherwise its new start is said. A run's folder stands for its model."""
    torch.manual_seed(0)
    document = document_of(classes=("cat", "dog"), reduction=8, neck="bn")
    source = MultiGrain.build(document)
    save_checkpoint(tmp_path / "model.safetensors", source, document)
    ours, said = model_of(classes=classes, reduction=8, neck="bn"), list[str]()
    origin = load_weights(ours, str(tmp_path), class_names=classes, say=said.append)
    assert origin["weights"] == "model.safetensors"
    assert len(origin["weights_sha256"]) == 64
    assert torch.equal(ours.reduce.weight, source.reduce.weight)  # type: ignore[union-attr]
    text = " / ".join(said)
    assert "its reduce is taken" in text
    assert "its neck is taken" in text
    assert ("classifier of the same 2 classes is taken" in text) == taken
    assert ("the classifier starts from random weights" in text) != taken
    if taken:
        assert torch.equal(ours.classifier.weight, source.classifier.weight)  # type: ignore[union-attr]


def test_parts_that_one_side_lacks_are_said(tmp_path: Path) -> None:
    """A reduction of another width is random, a neck without a place is left out."""
    document = document_of(reduction=8, neck="bn", classes=("cat",))
    save_checkpoint(tmp_path / "x.safetensors", MultiGrain.build(document), document)
    said: list[str] = []
    load_weights(model_of(reduction=4), str(tmp_path / "x.safetensors"), say=said.append)
    text = " / ".join(said)
    assert "the reduce starts from random weights" in text
    assert "its neck is left out" in text
    assert "its classifier is left out" in text


def test_a_checkpoint_of_another_trunk_is_named(tmp_path: Path) -> None:
    """Before any tensor is compared."""
    document = document_of("timm:test_resnet")
    save_checkpoint(tmp_path / "x.safetensors", MultiGrain.build(document), document)
    with pytest.raises(WeightsError, match="holds a test_resnet of timm, not squeezenet1_1"):
        fill(SMALL, tmp_path / "x.safetensors")


def test_timm_s_own_state_dict_and_our_file_fill_a_timm_trunk(tmp_path: Path) -> None:
    """A file of the library's names, with its classifier, or a checkpoint of ours."""
    import timm

    theirs = timm.create_model("test_resnet", pretrained=False)
    save_file(theirs.state_dict(), str(tmp_path / "theirs.safetensors"))
    document, model = document_of("timm:test_resnet"), model_of("timm:test_resnet")
    said: list[str] = []
    load_weights(model, str(tmp_path / "theirs.safetensors"), say=said.append)
    assert torch.equal(model.backbone.body.conv1[0].weight, theirs.conv1[0].weight)  # type: ignore[union-attr,index]
    assert any("its classifier is dropped (2 tensors)" in line for line in said)
    save_checkpoint(tmp_path / "ours.safetensors", model, document)
    again = model_of("timm:test_resnet")
    load_weights(again, str(tmp_path / "ours.safetensors"), say=said.append)
    for name, tensor in again.backbone.state_dict().items():
        assert torch.equal(tensor, model.backbone.state_dict()[name]), name


@pytest.mark.parametrize("source", ["DEFAULT", "IMAGENET1K_V1"])
def test_weights_by_name_come_from_torchvision(
    source: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address and a digest of what came are recorded; no network is a clear error."""
    enum = torchvision.models.get_model_weights(SMALL)
    state = torch.load(weights, weights_only=True)
    monkeypatch.setattr(enum, "get_state_dict", lambda _self, **_options: state)
    model = model_of()
    origin = load_weights(model, source, say=lambda _: None)
    assert origin["weights"].endswith("IMAGENET1K_V1")
    assert origin["weights_url"].startswith("https://")
    assert len(origin["weights_tensors_sha256"]) == 64

    def no_network(_self: Any, **_options: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(enum, "get_state_dict", no_network)
    with pytest.raises(WeightsError, match=r"fetch https://.* elsewhere and give the file"):
        load_weights(model, source, say=lambda _: None)


def test_weights_by_tag_come_from_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag is asked for; what its client raises becomes one clear error."""
    asked: list[str] = []

    def create(name: str, *, pretrained: bool) -> Any:
        asked.append(name)
        assert pretrained
        return build_backbone("timm:test_resnet").body

    monkeypatch.setattr("trainer.models.weights_sources.create_timm", create)
    model = model_of("timm:test_resnet")
    origin = load_weights(model, "r160_in1k", say=lambda _: None)
    assert asked == ["test_resnet.r160_in1k"]
    assert origin["weights"] == "timm test_resnet.r160_in1k"

    def no_network(name: str, *, pretrained: bool) -> Any:
        raise ConnectionError(f"{name} {pretrained}")

    monkeypatch.setattr("trainer.models.weights_sources.create_timm", no_network)
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        load_weights(model, "DEFAULT", say=lambda _: None)
