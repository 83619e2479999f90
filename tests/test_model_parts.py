"""The model's parts: poolings, reduction, neck, classifiers, and the document about them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from multigrain.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from multigrain.classifier import CosineClassifier, LinearClassifier
from multigrain.document import (
    BackboneSpec,
    ClassifierSpec,
    Document,
    EmbeddingSpec,
    PoolingKind,
    PoolingSpec,
    WhiteningSpec,
)
from multigrain.model import MultiGrain
from multigrain.pooling import SMALLEST_P, GeM, build_pooling
from multigrain.transforms import Preprocessing

TRUNK = BackboneSpec(name="squeezenet1_1", feature_dim=512)


def document_of(**parts: Any) -> Document:
    reduced = parts.get("embedding", EmbeddingSpec(dim=512))
    return Document(
        backbone=TRUNK,
        preprocessing=Preprocessing(size=64),
        **({"embedding": reduced} | parts),
    )


def pixels(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)


@pytest.mark.parametrize("kind", ["gem", "avg", "max", "avg+max"])
def test_a_pooling_by_name_is_its_formula(kind: PoolingKind) -> None:
    """Signed features, in float32 under autocast too."""
    x = torch.randn(2, 5, 3, 4)
    mean, top = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
    gem = x.clamp_min(1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
    expected = {"gem": gem, "avg": mean, "max": top, "avg+max": mean + top}[kind]
    pool = build_pooling(kind, p=3.0 if kind == "gem" else None)
    torch.testing.assert_close(pool(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert pool(x.bfloat16()).dtype == torch.float32
    assert (pool.p is None) == (kind != "gem")


def test_a_learned_exponent_below_the_smallest_comes_back() -> None:
    """It counts as 0.1, its gradient passes, and the optimiser can raise it again."""
    x = torch.rand(2, 3, 4, 4) + 0.1
    pool = GeM(-0.5, learnable=True)
    torch.testing.assert_close(pool(x), GeM(SMALLEST_P)(x))
    pool(x).sum().backward()
    assert pool.p.grad is not None
    assert pool.p.grad > 0  # the pooled value grows with p


@pytest.mark.parametrize("features", ["before", "after"])
def test_reduction_and_neck_stand_between_pooling_and_head(features: str) -> None:
    """The classifier sees the neck's output; the embedding is the side the document names."""
    torch.manual_seed(0)
    document = document_of(
        embedding=EmbeddingSpec(dim=16, reduction=16, neck="bn", neck_features=features),
        classifier=ClassifierSpec(class_names=("a", "b")),
    )
    model = MultiGrain.build(document).eval()
    assert model.neck is not None
    assert model.reduce is not None
    model.neck.running_mean.normal_()  # type: ignore[union-attr]
    photos = pixels()
    with torch.inference_mode():
        pooled = model.pool(model.backbone(model.normalise(photos)))
        e = pooled @ model.reduce.weight.T + model.reduce.bias
        behind = model.neck(e)
        torch.testing.assert_close(model.pooled(photos), e)
        torch.testing.assert_close(model.head_input(e), behind)
        expected = F.normalize(behind if features == "after" else e, dim=1)
        output = model(photos)
        torch.testing.assert_close(output.embedding, expected)
        torch.testing.assert_close(model.embed(e), expected)
        torch.testing.assert_close(output.logits, model.classify(e))
        torch.testing.assert_close(output.logits, model.classifier(behind))  # type: ignore[misc]


def test_one_step_moves_the_neck_s_statistics_once() -> None:
    """Both uses of e come of one pass, and the neck's shift does not learn."""
    document = document_of(
        embedding=EmbeddingSpec(dim=512, neck="bn"),
        classifier=ClassifierSpec(class_names=("a", "b")),
    )
    model = MultiGrain.build(document).train()
    assert model.neck is not None
    model(pixels())
    assert model.neck.num_batches_tracked == 1
    assert not model.neck.bias.requires_grad
    assert model.neck.weight.requires_grad


def test_what_stands_behind_the_trunk_is_float32_under_autocast() -> None:
    """Reduction, neck, logits of both classifiers."""
    for spec in (
        ClassifierSpec(class_names=("a", "b")),
        ClassifierSpec(kind="arcface", scale=30.0, class_names=("a", "b")),
    ):
        document = document_of(
            embedding=EmbeddingSpec(dim=8, reduction=8, neck="bn"), classifier=spec
        )
        model = MultiGrain.build(document).eval()
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            e = model.pooled(pixels())
            output = model(pixels())
        assert e.dtype == output.embedding.dtype == torch.float32
        assert output.logits is not None
        assert output.logits.dtype == torch.float32


def test_a_cosine_head_answers_with_scaled_cosines() -> None:
    """Lengths of vectors and of classes do not matter."""
    head = CosineClassifier(8, 3, scale=30.0)
    vectors = torch.randn(4, 8)
    expected = 30 * F.cosine_similarity(vectors[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(vectors), expected)
    torch.testing.assert_close(head.logits(5 * vectors), expected)
    assert set(head.state_dict()) == {"weight"}
    assert set(LinearClassifier(8, 3).state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({}, {"pool.p"}),
        ({"pooling": PoolingSpec(kind="avg", p=None)}, set()),
        (
            {"embedding": EmbeddingSpec(dim=8, reduction=8)},
            {"pool.p", "reduce.weight", "reduce.bias"},
        ),
        (
            {"embedding": EmbeddingSpec(dim=512, neck="bn")},
            {"pool.p"}
            | {
                f"neck.{name}"
                for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            },
        ),
        (
            {"classifier": ClassifierSpec(kind="circle", scale=64.0, class_names=("a", "b"))},
            {"pool.p", "classifier.weight"},
        ),
    ],
)
def test_tensors_are_in_the_file_exactly_when_the_document_says_so(
    parts: dict[str, Any], names: set[str], tmp_path: Any
) -> None:
    """A model comes back equal; a file of another document is refused."""
    document = document_of(**parts)
    model = MultiGrain.build(document).eval()
    found = {name for name in model.state_dict() if not name.startswith("backbone.")}
    assert found == names
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, model, document)
    loaded = load_checkpoint(path)
    assert loaded.document == document
    photos = pixels()
    with torch.inference_mode():
        assert torch.equal(loaded.model(photos).embedding, model(photos).embedding)
    if parts:
        with pytest.raises(CheckpointError, match="tensors and document disagree"):
            save_checkpoint(path, model, document_of())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": EmbeddingSpec(dim=512, reduction=8)}, "the parts give 8"),
        ({"embedding": EmbeddingSpec(dim=8)}, "the parts give 512"),
        (
            {
                "embedding": EmbeddingSpec(
                    dim=4, reduction=8, whitening=WhiteningSpec(in_=512, out=4, photos=9, size=64)
                )
            },
            "the parts before it give 8",
        ),
        ({"backbone": TRUNK.model_copy(update={"tokens": "class"})}, "pool it with avg"),
    ],
)
def test_dimensions_that_disagree_are_refused(change: dict[str, Any], message: str) -> None:
    """Reduction, whitening and embedding follow one another; a class token is one position."""
    with pytest.raises(ValidationError, match=message):
        Document(**({"backbone": TRUNK, "embedding": EmbeddingSpec(dim=512)} | change))


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (PoolingSpec, {"kind": "avg"}),
        (PoolingSpec, {"kind": "gem", "p": None}),
        (PoolingSpec, {"kind": "max", "p": None, "p_by_size": {64: 3.0}}),
        (EmbeddingSpec, {"dim": 8, "neck_features": "before"}),
        (ClassifierSpec, {"kind": "arcface", "class_names": ("a",)}),
        (ClassifierSpec, {"kind": "linear", "scale": 30.0, "class_names": ("a",)}),
        (ClassifierSpec, {"kind": "softmax", "class_names": ("a",)}),
    ],
)
def test_parts_that_say_what_cannot_be_are_refused(spec: Any, values: dict[str, Any]) -> None:
    """Exponents without GeM, sides without a neck, scales without cosines."""
    with pytest.raises(ValidationError):
        spec(**values)
