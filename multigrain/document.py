"""The JSON document of a checkpoint: everything about an embedding that is not a tensor."""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from multigrain.transforms import Preprocessing

FORMAT = 1

_SOFTWARE = ("multigrain-retrieval", "torch", "torchvision", "numpy", "pillow", "safetensors")
# The parts that change an embedding; the classifier, metrics and versions do not.
_EMBEDDING_PARTS = {"format", "backbone", "pooling", "embedding", "preprocessing"}

PositiveInt = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class BackboneSpec(_Part):
    """Which trunk, from which library, and how many channels its last map has."""

    library: Literal["torchvision"] = "torchvision"
    name: str
    feature_dim: PositiveInt


class PoolingSpec(_Part):
    """GeM and its exponent; `p_by_size` overrides it for photos prepared at that size."""

    kind: Literal["gem"] = "gem"
    p: Annotated[float, Field(gt=0)] = 3.0
    p_by_size: dict[int, Annotated[float, Field(gt=0)]] = {}


class WhiteningSpec(_Part):
    """How the whitening was fitted: dimensions in and out, power, eigenvalue floor, photos."""

    model_config = ConfigDict(serialize_by_alias=True)

    in_: PositiveInt = Field(alias="in")
    out: PositiveInt
    power: float = 1.0
    floor: float = 1e-3
    photos: PositiveInt
    size: PositiveInt


class EmbeddingSpec(_Part):
    """The vector a photo becomes: its dimension, and what lies between pooling and it."""

    dim: PositiveInt
    reduction: None = None
    neck: None = None
    whitening: WhiteningSpec | None = None


class ClassifierSpec(_Part):
    """The classifier beside the embedding and its class names, in output order."""

    kind: Literal["linear"] = "linear"
    class_names: tuple[str, ...]


class TrainingSpec(_Part):
    """What the trunk was trained with: loss weight, margin offset, views a photo, steps."""

    model_config = ConfigDict(serialize_by_alias=True)

    lambda_: Annotated[float, Field(ge=0, le=1)] = Field(alias="lambda")
    beta: float
    views: PositiveInt
    steps: Annotated[int, Field(ge=0)]


class Document(_Part):
    """What a checkpoint says about itself (`multigrain.format = 1`)."""

    format: Literal[1] = 1
    backbone: BackboneSpec
    pooling: PoolingSpec = PoolingSpec()
    embedding: EmbeddingSpec
    classifier: ClassifierSpec | None = None
    preprocessing: Preprocessing = Preprocessing()
    training: TrainingSpec | None = None
    metrics: dict[str, float] = {}
    weights_licence: str = "unknown"
    software: dict[str, str] = {}

    @model_validator(mode="after")
    def _dimensions_agree(self) -> Self:
        whitening = self.embedding.whitening
        if whitening is not None and whitening.in_ != self.backbone.feature_dim:
            raise ValueError(
                f"whitening takes {whitening.in_} dimensions, the trunk gives "
                f"{self.backbone.feature_dim}"
            )
        expected = whitening.out if whitening is not None else self.backbone.feature_dim
        if self.embedding.dim != expected:
            raise ValueError(f"embedding.dim is {self.embedding.dim}, the parts give {expected}")
        return self

    def embedding_digest(self) -> bytes:
        """SHA-256 of the parts that change an embedding, in canonical form."""
        text = self.model_dump_json(include=_EMBEDDING_PARTS)
        return hashlib.sha256(text.encode()).digest()


def plain_document(
    *,
    backbone_name: str,
    feature_dim: int,
    preprocessing: Preprocessing,
    p: float,
    class_names: tuple[str, ...] | None = None,
    weights_licence: str = "unknown",
) -> Document:
    """The document of a model without whitening and without training."""
    return Document(
        backbone=BackboneSpec(name=backbone_name, feature_dim=feature_dim),
        pooling=PoolingSpec(p=p),
        embedding=EmbeddingSpec(dim=feature_dim),
        classifier=ClassifierSpec(class_names=class_names) if class_names else None,
        preprocessing=preprocessing,
        weights_licence=weights_licence,
        software=software_versions(),
    )


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape an embedding, without importing them."""
    versions = {"python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions
