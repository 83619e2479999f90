"""What the service answers, as a client reads it.

Apart from `service.schemas`, since a client outlives the service it was installed with: what a
newer one adds is ignored, what an older one leaves out has a default.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Hit(_Answer):
    """One neighbour; `score` is the cosine in [-1, 1], `uri` the first of `metadata["paths"]`.

    `same_probability` is that both photos show the same thing, None where it is not known;
    `collapsed` how many near-duplicates it stands for, where they were to be collapsed.
    """

    rank: int
    id: str
    score: float
    same_probability: float | None = None
    uri: str
    thumbnail_url: str | None = None
    metadata: dict[str, JsonValue] = {}
    embedding: tuple[float, ...] | None = None
    collapsed: int = 0


class QueryPhoto(_Answer):
    """The photo as the service saw it: hash of its bytes, upright size in pixels, format."""

    sha256: str
    width: int
    height: int
    format: str
    exif_rotated: bool


class SearchAnswer(_Answer):
    """Hits by falling cosine; `timing_ms` maps each stage, and `total`, to milliseconds."""

    request_id: str
    generation: str
    model: str
    query: QueryPhoto | None = None
    results: tuple[Hit, ...]
    offset: int = 0
    has_more: bool = False
    batch_size: int | None = None
    timing_ms: dict[str, float] = {}
    query_embedding: tuple[float, ...] | None = None
    dedup_cosine: float | None = None
    collapsed: int = 0


class EmbedAnswer(_Answer):
    """An embedding as little-endian float32 in base64."""

    model: str
    embedding: str


class AddAnswer(_Answer):
    """The id of a photo that was added, or was there already."""

    id: str


class Health(_Answer):
    """How the service is; `checks` holds its parts as it sent them."""

    status: str
    checks: dict[str, Any] = {}
    version: str = ""
    generation: str | None = None
    uptime_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether searches are answered."""
        return self.status in {"ok", "degraded"}
