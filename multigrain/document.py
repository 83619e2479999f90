"""The JSON document of a checkpoint: everything about an embedding that is not a tensor."""

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from multigrain.transforms import Preprocessing

FORMAT = 1

_SOFTWARE = ("multigrain-retrieval", "torch", "torchvision", "numpy", "pillow", "safetensors")
# The parts that change an embedding; the classifier, metrics and versions do not.
_EMBEDDING_PARTS = {"format", "backbone", "pooling", "embedding", "preprocessing"}

PoolingKind = Literal["gem", "avg", "max", "avg+max"]
ClassifierKind = Literal["linear", "arcface", "cosface", "curricularface", "circle"]

PositiveInt = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _Extended(_Part):
    """A part that grew since format 1: a new field is written only when it is not the default.

    A checkpoint that does not use it thus keeps its fingerprint, and older programs read it.
    """

    _ADDED: ClassVar[Mapping[str, Any]]

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return {
            name: value
            for name, value in fields.items()
            if name not in self._ADDED or value != self._ADDED[name]
        }


class BackboneSpec(_Extended):
    """Which trunk, from which library, and how many channels its last map has.

    `last_stride` 1 doubles the sides of the last map; `tokens` says what of a ViT is pooled.
    """

    _ADDED = {"last_stride": 2, "tokens": "patches"}

    library: Literal["torchvision", "timm"] = "torchvision"
    name: str
    feature_dim: PositiveInt
    last_stride: Literal[1, 2] = 2
    tokens: Literal["patches", "class"] = "patches"


class PoolingSpec(_Part):
    """How the last map becomes a vector; `p` is GeM's exponent, None for any other kind.

    `p_by_size` overrides it for photos prepared at that size.
    """

    kind: PoolingKind = "gem"
    p: Annotated[float, Field(gt=0)] | None = 3.0
    p_by_size: dict[int, Annotated[float, Field(gt=0)]] = {}

    @model_validator(mode="after")
    def _exponent_belongs_to_gem(self) -> Self:
        if (self.p is None) == (self.kind == "gem"):
            raise ValueError(
                f"pooling {self.kind} with p {self.p}: gem has an exponent, and only it"
            )
        if self.p_by_size and self.kind != "gem":
            raise ValueError(f"pooling {self.kind} has no exponent, so no p_by_size")
        return self


class WhiteningSpec(_Part):
    """How the whitening was fitted: dimensions in and out, power, eigenvalue floor, photos."""

    model_config = ConfigDict(serialize_by_alias=True)

    in_: PositiveInt = Field(alias="in")
    out: PositiveInt
    power: float = 1.0
    floor: float = 1e-3
    photos: PositiveInt
    size: PositiveInt


class EmbeddingSpec(_Extended):
    """The vector a photo becomes: its dimension, and what lies between pooling and it.

    `reduction` is the width of a linear layer behind the pooling, whose result is e; `neck` a
    batch norm between e and the classifier; `neck_features` on which side of it the embedding
    is taken.
    """

    _ADDED = {"neck_features": "after"}

    dim: PositiveInt
    reduction: PositiveInt | None = None
    neck: Literal["bn"] | None = None
    neck_features: Literal["before", "after"] = "after"
    whitening: WhiteningSpec | None = None

    @model_validator(mode="after")
    def _side_of_a_neck(self) -> Self:
        if self.neck is None and self.neck_features != "after":
            raise ValueError("neck_features without a neck: there is only one side")
        return self


class ClassifierSpec(_Extended):
    """The classifier beside the embedding and its class names, in output order.

    `scale` multiplies the cosines of every kind but `linear`, which has none.
    """

    _ADDED = {"scale": None}

    kind: ClassifierKind = "linear"
    scale: Annotated[float, Field(gt=0)] | None = None
    class_names: tuple[str, ...]

    @model_validator(mode="after")
    def _scale_belongs_to_cosines(self) -> Self:
        if (self.scale is None) != (self.kind == "linear"):
            raise ValueError(f"classifier {self.kind} with scale {self.scale}: cosines have one")
        return self


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
        if whitening is not None and whitening.in_ != self.reduced_dim:
            raise ValueError(
                f"whitening takes {whitening.in_} dimensions, the parts before it give "
                f"{self.reduced_dim}"
            )
        expected = whitening.out if whitening is not None else self.reduced_dim
        if self.embedding.dim != expected:
            raise ValueError(f"embedding.dim is {self.embedding.dim}, the parts give {expected}")
        if self.backbone.tokens == "class" and self.pooling.kind != "avg":
            raise ValueError(
                f"a class token is one position: pool it with avg, not {self.pooling.kind}"
            )
        return self

    @property
    def reduced_dim(self) -> int:
        """Dimensions of e: the reduction's, or the trunk's channels without one."""
        return self.embedding.reduction or self.backbone.feature_dim

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
    """The document of a torchvision trunk with GeM, without whitening and without training."""
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
