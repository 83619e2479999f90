"""The checkpoint file: round trip, strictness, fingerprint."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from multigrain.checkpoint import (
    CheckpointError,
    fingerprint_of,
    load_checkpoint,
    read_document,
    save_checkpoint,
)
from multigrain.document import (
    Document,
    EmbeddingSpec,
    PoolingSpec,
    WhiteningSpec,
    plain_document,
)
from multigrain.model import ModelError, MultiGrain
from multigrain.transforms import Preprocessing
from multigrain.whitening import Whitening

DOCUMENT = plain_document(
    backbone_name="squeezenet1_1",
    feature_dim=512,
    preprocessing=Preprocessing(size=64),
    p=3.0,
    class_names=("cat", "dog"),
)
WHITENED = DOCUMENT.model_copy(
    update={
        "embedding": EmbeddingSpec(
            dim=4, whitening=WhiteningSpec(in_=512, out=4, photos=9, size=64)
        )
    }
)


@pytest.fixture(scope="module")
def model() -> MultiGrain:
    torch.manual_seed(0)
    return MultiGrain.build(DOCUMENT).eval()


@pytest.fixture
def saved(model: MultiGrain, tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model.safetensors", model, DOCUMENT)
    return tmp_path / "model.safetensors"


def rewrite(
    path: Path,
    change_tensors: Callable[[dict[str, Tensor]], None] = lambda _tensors: None,
    change_document: Callable[[dict[str, object]], None] = lambda _document: None,
) -> None:
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    document = json.loads(metadata["multigrain.document"])
    change_tensors(tensors)
    change_document(document)
    save_file(tensors, str(path), metadata | {"multigrain.document": json.dumps(document)})


def test_a_model_comes_back_as_it_was_saved(model: MultiGrain, saved: Path) -> None:
    """Document, embedding and logits are equal to the bit, in evaluation mode."""
    checkpoint = load_checkpoint(saved)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert checkpoint.document == DOCUMENT == read_document(saved)
    assert not checkpoint.model.training
    for ours, theirs in zip(checkpoint.model(pixels), model(pixels), strict=True):
        assert torch.equal(ours, theirs)


def test_whitening_is_part_of_the_file_exactly_when_the_document_says_so(
    model: MultiGrain, tmp_path: Path
) -> None:
    """A whitened model loads with its dimension; without its tensors it cannot be saved."""
    with pytest.raises(CheckpointError, match=r"missing \['whiten.mean', 'whiten.projection'\]"):
        save_checkpoint(tmp_path / "x.safetensors", model, WHITENED)
    assert not list(tmp_path.iterdir())
    white = MultiGrain.build(WHITENED)
    white.whiten = Whitening(torch.zeros(512), torch.randn(4, 512))
    save_checkpoint(tmp_path / "x.safetensors", white, WHITENED)
    loaded = load_checkpoint(tmp_path / "x.safetensors").model.eval()
    assert loaded(torch.zeros(1, 3, 64, 64)).embedding.shape == (1, 4)


def test_the_fingerprint_follows_the_embedding_and_not_the_classifier(saved: Path) -> None:
    """Another trunk weight or size changes it; another classifier, metric or licence does not."""
    original = load_checkpoint(saved).fingerprint

    def fingerprint_after(**changes: Callable[..., None]) -> str:
        copy = saved.with_name("copy.safetensors")
        copy.write_bytes(saved.read_bytes())
        rewrite(copy, **changes)
        return load_checkpoint(copy).fingerprint

    same = [
        {"change_tensors": lambda tensors: tensors["classifier.bias"].add_(1)},
        {"change_document": lambda document: document.update(metrics={"top1": 0.5})},
        {"change_document": lambda document: document.update(weights_licence="MIT")},
    ]
    other = [
        {"change_tensors": lambda tensors: tensors["backbone.features.0.bias"].add_(1e-6)},
        {"change_tensors": lambda tensors: tensors["pool.p"].add_(1)},
        {"change_document": lambda document: document["preprocessing"].update(size=96)},
    ]
    assert {fingerprint_after(**changes) for changes in same} == {original}
    assert original not in {fingerprint_after(**changes) for changes in other}


def test_the_exponent_of_a_size_overrides_the_trained_one(saved: Path) -> None:
    """With p 5 recorded for 64 px, photos prepared at 64 px are pooled with 5."""
    rewrite(saved, change_document=lambda document: document["pooling"].update(p_by_size={64: 5.0}))
    assert load_checkpoint(saved).model.pool.p == 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"change_tensors": lambda t: t.pop("pool.p")}, r"missing \['pool.p'\]"),
        ({"change_tensors": lambda t: t.update(spare=torch.ones(1))}, r"extra \['spare'\]"),
        (
            {"change_tensors": lambda t: t.update({"classifier.bias": torch.ones(3)})},
            "classifier.bias has shape",
        ),
        ({"change_document": lambda d: d.update(colour="red")}, "document is damaged"),
        ({"change_document": lambda d: d["embedding"].update(dim=7)}, "document is damaged"),
    ],
)
def test_what_does_not_fit_is_an_error(
    saved: Path, change: dict[str, Callable[..., None]], message: str
) -> None:
    """A missing, extra or misshapen tensor, an unknown key, dimensions that disagree."""
    rewrite(saved, **change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"top1": float("nan")}},
        {"pooling": DOCUMENT.pooling.model_copy(update={"p": 0.0})},
    ],
)
def test_a_document_that_could_not_be_read_back_is_not_written(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """A score or an exponent that is no number is found out before, not at the next start."""
    wrong = DOCUMENT.model_copy(update=changes)
    with pytest.raises(CheckpointError, match=r"(metrics.top1|pooling.p)"):
        save_checkpoint(tmp_path / "x.safetensors", MultiGrain.build(DOCUMENT), wrong)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_checkpoints_are_named(tmp_path: Path) -> None:
    """A missing file, garbage, and plain safetensors each get their own message."""
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "absent")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint file"):
        load_checkpoint(garbage)
    save_file({"x": torch.ones(1)}, str(garbage))
    with pytest.raises(CheckpointError, match=r"multigrain.format is None"):
        load_checkpoint(garbage)


def test_a_document_with_the_wrong_width_is_refused() -> None:
    """The trunk's channels are checked when the model is built."""
    wrong = plain_document(
        backbone_name="squeezenet1_1", feature_dim=100, preprocessing=Preprocessing(), p=3.0
    )
    with pytest.raises(ModelError, match="gives 512 channels"):
        MultiGrain.build(wrong)


def test_the_document_survives_json() -> None:
    """Aliases (`in`, `lambda`) are written and read back."""
    assert Document.model_validate_json(WHITENED.model_dump_json()) == WHITENED
    assert '"in":512' in WHITENED.model_dump_json()


def test_fingerprints_of_the_first_release_stay_as_they_were() -> None:
    """Digests computed by version 0.1.0, before the document knew necks, strides or scales."""
    assert DOCUMENT.embedding_digest().hex() == (
        "e77259b82689a53b16e9ede6c98f9ca175a116fa1db133eaf1937568cdee2011"
    )
    tuned = WHITENED.model_copy(update={"pooling": PoolingSpec(p=3.0, p_by_size={64: 5.0})})
    assert tuned.embedding_digest().hex() == (
        "e6b90b7df6f1eaa11ecc97492a8b06e4c687dd1335e327e974110034ff415e7e"
    )
    state = MultiGrain.build(DOCUMENT).state_dict()
    halves = {name: torch.full_like(tensor, 0.5) for name, tensor in state.items()}
    assert fingerprint_of(halves, DOCUMENT) == (
        "40c9085b2d3b3dc7ea5ce2e293c9b1499eae6d077a08b81b91eb04ed27a8642b"
    )
