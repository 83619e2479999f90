"""The JSON that goes in and out, as service clients see it."""

from enum import IntEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

# A cosine of unit vectors may leave [-1, 1] by a rounding error.
Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class ThumbnailSize(IntEnum):
    """Longest side of a thumbnail in pixels."""

    SMALL = 128
    MEDIUM = 256
    LARGE = 512


class ThumbnailOptions(BaseModel):
    """Parameters of GET /images/{id}/thumbnail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: ThumbnailSize = Field(ThumbnailSize.MEDIUM, description="longest side in pixels")


class Hit(BaseModel):
    """One neighbour of the query; the id is a string, because JavaScript has no int64.

    The last three are there when they were asked for.
    """

    rank: int
    id: str
    score: Cosine
    same_probability: float | None = Field(
        ge=0,
        le=1,
        description="that both photos show the same thing; null where the index is not calibrated",
    )
    uri: str
    thumbnail_url: str = ""
    metadata: dict[str, JsonValue] = {}
    embedding: list[float] = []


class QueryPhoto(BaseModel):
    """What the service saw: hash of the bytes, upright size in pixels, format."""

    sha256: str
    width: int
    height: int
    format: str
    exif_rotated: bool


class TimingMs(BaseModel):
    """Milliseconds each stage took; `infer` and `search` are those of the whole batch.

    `search` holds the look-up in the catalog, `metadata` what it takes to write the hits.
    """

    receive: float
    decode: float
    queue: float
    infer: float
    search: float
    metadata: float
    total: float


class SearchResponse(BaseModel):
    """Answer of a search: hits by falling cosine, equal cosines by id, or as `rerank` orders.

    `query` is null where no photo was sent; `query_embedding` is there when it was asked for.
    """

    request_id: str
    generation: str
    model: str
    metric: Literal["cosine"]
    query: QueryPhoto | None
    results: list[Hit]
    count: int
    offset: int
    has_more: bool
    batch_size: int = Field(
        description="photos that shared this photo's forward pass; 0 where none was needed"
    )
    timing_ms: TimingMs
    query_embedding: list[float] = []


class EmbedResponse(BaseModel):
    """Answer of POST /embed: a unit embedding of `dim` numbers, as a list or in base64."""

    request_id: str
    model: str
    dim: int
    encoding_format: Literal["float", "base64"]
    embedding: list[float] | str
    query: QueryPhoto
    batch_size: int = Field(
        description="photos that shared this photo's forward pass; 0 where none was needed"
    )
    timing_ms: TimingMs


class Fault(BaseModel):
    """One invalid parameter: where it stands, `query.limit`, and what is wrong with it."""

    loc: str
    msg: str


class Problem(BaseModel):
    """An error (RFC 9457) with a stable code."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[Fault] = []


class BatchResult(BaseModel):
    """A photo of POST /search/batch that was searched with."""

    result: SearchResponse


class BatchProblem(BaseModel):
    """A photo of POST /search/batch that was not."""

    problem: Problem


class BatchResponse(BaseModel):
    """Answer of POST /search/batch: one item for each photo, in their order."""

    request_id: str
    count: int
    items: list[BatchResult | BatchProblem]


class Image(BaseModel):
    """A photo of the index; `taken_at` is the camera's clock, YYYY-MM-DDTHH:MM:SS."""

    id: str
    uri: str
    thumbnail_url: str
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    taken_at: str | None
    camera: str | None
    metadata: dict[str, JsonValue]


class ImagePage(BaseModel):
    """Answer of GET /images: photos by id; `next_cursor` is null on the last page."""

    generation: str
    images: list[Image]
    count: int
    next_cursor: str | None


class AddedImage(BaseModel):
    """Answer of POST /images."""

    id: str
    thumbnail_url: str


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


class ModelCheck(BaseModel):
    """The loaded model: name with fingerprint, where and how it runs."""

    name: str
    device: str
    engine: str
    precision: str


class IndexCheck(BaseModel):
    """The opened index: its generation and how many photos can be found."""

    generation: str
    num_photos: int


class EngineCheck(BaseModel):
    """The batches: requests waiting and running, seconds since one succeeded."""

    queue: int
    inflight: int
    last_ok_s: float | None


class ReloadCheck(BaseModel):
    """Why the last reload was refused; null when it was not, or when there was none."""

    last_error: str | None


class Checks(BaseModel):
    """The parts of the service; null while they are being opened."""

    model: ModelCheck | None
    index: IndexCheck | None
    engine: EngineCheck
    reload: ReloadCheck


class Version(BaseModel):
    """Answer of GET /version; the revision is the commit the image was built from, where known."""

    version: str
    revision: str | None


class Health(BaseModel):
    """Answer of GET /health."""

    status: Literal["ok", "degraded", "starting", "draining", "dead"]
    checks: Checks
    version: str
    generation: str | None
    uptime_s: float


class ReloadState(BaseModel):
    """Answer of POST /admin/reload and GET /admin/reload/{job}.

    `generation` is the one taken up, `error` the problem document of one that was refused.
    """

    id: str
    status: Literal["running", "done", "failed"]
    generation: str | None
    seconds: float | None
    error: dict[str, JsonValue] | None
