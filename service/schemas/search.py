"""The JSON of an answer to a search: hits, what was sent, how long it took."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

from service.schemas.problem import Problem

# A cosine of unit vectors may leave [-1, 1] by a rounding error.
Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class Hit(BaseModel):
    """One neighbour of the query; the id is a string, because JavaScript has no int64.

    The last four are there when they were asked for.
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
    collapsed: int = Field(
        default=0,
        ge=0,
        description="how many hits that are as near to this one as `dedup` says it stands for",
    )


class QueryPhoto(BaseModel):
    """What the service saw: hash of the bytes, upright size in pixels, format."""

    sha256: str
    width: int
    height: int
    format: str
    exif_rotated: bool


class TimingMs(BaseModel):
    """Milliseconds each stage took; `infer`, `search` and `metadata` are those of the whole batch.

    `metadata` is what the catalog is asked for. Server-Timing tells `serialize` as well: what it
    takes to write the answer.
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

    `query` is null where no photo was sent; the last three are there when they were asked for.
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
    dedup_cosine: float = Field(
        default=1.0, description="the cosine from which hits were collapsed by `dedup`"
    )
    collapsed: int = Field(
        default=0, ge=0, description="how many hits `dedup` has left out for those returned"
    )


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
