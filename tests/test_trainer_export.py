"""Exported files compute what the checkpoint computes, or are not written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_fixtures import draw_flat

from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.config import ConfigError
from multigrain.document import (
    BackboneSpec,
    ClassifierSpec,
    Document,
    EmbeddingSpec,
    WhiteningSpec,
)
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing
from multigrain.whitening import Whitening
from trainer.export import ExportConfig, export
from trainer.inputs.labels import PhotoSet
from trainer.models.export_check import check, noise_batches, photo_batches
from trainer.models.export_graph import ExportError


def checkpoint_of(folder: Path, **preprocessing: Any) -> Path:
    """A tiny trunk with everything behind it: reduction, neck, whitening, cosine classifier."""
    torch.manual_seed(0)
    document = Document(
        backbone=BackboneSpec(library="timm", name="test_resnet", feature_dim=96),
        embedding=EmbeddingSpec(
            dim=4,
            reduction=8,
            neck="bn",
            whitening=WhiteningSpec(in_=8, out=4, photos=9, size=96),
        ),
        classifier=ClassifierSpec(kind="arcface", scale=30.0, class_names=("cat", "dog")),
        preprocessing=Preprocessing(**({"size": 96, "rule": "whole"} | preprocessing)),
    )
    model = MultiGrain.build(document)
    model.whiten = Whitening(torch.randn(8) / 10, torch.randn(4, 8))
    save_checkpoint(folder / "model.safetensors", model, document)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    folder = tmp_path_factory.mktemp("onnx")
    photos = draw_flat(folder / "photos", num_photos=3)
    return export(ExportConfig(checkpoint=checkpoint, out=folder / "model.onnx", photos=[photos]))


def test_onnx_holds_the_whole_embedding_for_any_batch_and_size(
    checkpoint: Path, onnx_file: Path
) -> None:
    """In onnxruntime, with the preprocessing beside it; one file and nothing else."""
    import onnxruntime

    model, document, fingerprint = load_checkpoint(checkpoint)
    session = onnxruntime.InferenceSession(str(onnx_file))
    assert [output.name for output in session.get_outputs()] == ["embedding", "logits"]
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["multigrain.fingerprint"] == fingerprint
    rule = Preprocessing.model_validate_json(metadata["multigrain.preprocessing"])
    assert rule == document.preprocessing
    assert json.loads(metadata["multigrain.class_names"]) == ["cat", "dog"]
    for shape in ((1, 3, 64, 64), (5, 3, 160, 96)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        embedding, logits = session.run(None, {"pixels": pixels})
        expected = model(torch.from_numpy(pixels))
        cosines = (embedding * expected.embedding.detach().numpy()).sum(axis=1)
        assert cosines.min() > 1 - 1e-5
        np.testing.assert_allclose(logits, expected.logits.detach().numpy(), atol=1e-3)
    assert [path.name for path in onnx_file.parent.iterdir() if path.is_file()] == ["model.onnx"]


def test_a_torch_program_takes_float_pixels_of_one_size(tmp_path: Path) -> None:
    """Read back from its file, for any batch of the crop."""
    checkpoint = checkpoint_of(tmp_path, rule="crop")
    out = export(
        ExportConfig(
            checkpoint=checkpoint,
            out=tmp_path / "model.pt2",
            format="torch",
            input="float32",
            dynamic="batch",
        )
    )
    module = torch.export.load(out).module()
    pixels = torch.randint(0, 256, (4, 3, 96, 96)).float()
    expected = load_checkpoint(checkpoint).model(pixels).embedding
    torch.testing.assert_close(module(pixels)[0], expected, atol=1e-5, rtol=1e-5)


def test_an_export_that_computes_something_else_leaves_no_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedding, or only the classifier."""
    model, document, _ = load_checkpoint(checkpoint)
    batches = noise_batches(document.preprocessing, dynamic="size")
    assert {batch.shape[0] for batch in batches} == {1, 3}
    assert len({batch.shape[2:] for batch in batches}) == 4

    def run(pixels: Any, *, embedding: float = 1.0, logits: float = 0.0) -> list[Any]:
        output = model(torch.from_numpy(pixels))
        return [
            embedding * output.embedding.detach().numpy(),
            output.logits.detach().numpy() + logits,
        ]  # type: ignore[union-attr]

    assert check(run, model, batches, input_type="uint8") > 0.99999
    with pytest.raises(ExportError, match="disagrees with the checkpoint"):
        check(lambda p: run(p, embedding=0.9), model, batches, input_type="uint8")
    with pytest.raises(ExportError, match="classifier is off"):
        check(lambda p: run(p, logits=1.0), model, batches, input_type="uint8")
    monkeypatch.setattr("trainer.models.export_check.MIN_COSINE", 1.1)
    with pytest.raises(ExportError, match="nothing is written"):
        export(ExportConfig(checkpoint=checkpoint, out=tmp_path / "x.pt2", format="torch"))
    assert not list(tmp_path.iterdir())


def test_photos_are_spread_and_unreadable_ones_are_named(tmp_path: Path) -> None:
    """Of twenty photos four from all over; none at all is an error."""
    folder = draw_flat(tmp_path / "photos", num_photos=20)
    for damaged in (5, 1):  # one that is tried, one that is not
        (folder / f"photo-{damaged:03}.jpg").write_bytes(b"no photo")
    names = [f"photo-{number:03}.jpg" for number in range(20)]
    photos, said = PhotoSet.of_files(folder, names), list[str]()
    rule = Preprocessing(size=96, rule="crop")
    (batch,) = photo_batches(photos, rule, most=4, say=said.append)
    assert batch.shape == (3, 3, 96, 96)
    assert len(said) == 1
    assert "photo-005.jpg is left out" in said[0]
    with pytest.raises(ExportError, match="none of the photos"):
        photo_batches(photos.pick([5]), rule, most=4, say=said.append)


def test_what_cannot_be_exported_is_said(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several shapes with one size, the checkpoint as the out file, a missing extra."""
    with pytest.raises(ExportError, match="have 3 shapes"):
        export(
            ExportConfig(checkpoint=checkpoint, out=tmp_path / "x", format="torch", dynamic="batch")
        )
    with pytest.raises(ConfigError, match="is the checkpoint itself"):
        ExportConfig.from_values({"checkpoint": "x", "out": "x"})
    monkeypatch.setattr("trainer.models.export_graph.find_spec", lambda _name: None)
    with pytest.raises(ExportError, match=r"pip install 'multigrain-retrieval\[onnx\]'"):
        export(ExportConfig(checkpoint=checkpoint, out=tmp_path / "x.onnx"))
    assert not list(tmp_path.iterdir())
