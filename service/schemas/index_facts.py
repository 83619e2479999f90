"""The JSON that describes the index."""

from typing import Literal

from pydantic import BaseModel, Field


class IndexCounts(BaseModel):
    """Photos that can be found, those of them added since the build, and rows that are dead."""

    vectors: int
    adds: int
    tombstones: int


class BuiltWith(BaseModel):
    """What computed the stored embeddings."""

    engine: str
    precision: str


class Fingerprints(BaseModel):
    """SHA-256 of what decides an embedding: model and preprocessing."""

    model: str
    preprocessing: str


class IndexFacts(BaseModel):
    """Answer of GET /index; nlist is 0 and nprobe null where every photo is compared."""

    generation: str
    built_at: str
    counts: IndexCounts
    dim: int
    metric: Literal["cosine"]
    type: str
    nlist: int
    nprobe: int | None
    recall: float | None = Field(description="recall@10 the search was tuned to; null: not tuned")
    model: str
    engine: str
    precision: str
    built_with: BuiltWith
    fingerprints: Fingerprints
