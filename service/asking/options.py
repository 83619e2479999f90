"""The parameters of the routes beside the search."""

from enum import IntEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.asking.ids import MAX_ID

# Hits beyond this rank are not searched for; paging that deep is an export.
MAX_WINDOW = 1000

EncodingFormat = Literal["float", "base64"]

FILTER_DESCRIPTION = (
    "conditions that the photos found meet, as JSON of at most 4 KB: "
    '{"must": [{"field": "label", "eq": "cat"}], "must_not": [{"field": "width", "lt": 500}]}'
)


class TimedOptions(BaseModel):
    """What every request that waits for a batch may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_ms: int | None = Field(
        None,
        ge=10,
        le=30_000,
        description="time from the complete body to the answer; default: the service's setting",
    )


class EmbedOptions(TimedOptions):
    """Parameters of POST /embed, in the query string or as form fields."""

    encoding_format: EncodingFormat = Field(
        "float", description="numbers, or base64 of their little-endian float32 bytes"
    )


class ScrollOptions(BaseModel):
    """Parameters of GET /images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(100, ge=1, le=MAX_WINDOW, description="how many photos to return")
    cursor: int | None = Field(
        None,
        ge=0,
        le=MAX_ID,
        description="the next_cursor of the page before; none: the first page",
    )
    filter: str | None = Field(None, description=FILTER_DESCRIPTION)


class ThumbnailSize(IntEnum):
    """Longest side of a thumbnail in pixels."""

    SMALL = 128
    MEDIUM = 256
    LARGE = 512


class ThumbnailOptions(BaseModel):
    """Parameters of GET /images/{id}/thumbnail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: ThumbnailSize = Field(ThumbnailSize.MEDIUM, description="longest side in pixels")
