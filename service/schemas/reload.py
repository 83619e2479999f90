"""The JSON of a reload."""

from typing import Literal

from pydantic import BaseModel, JsonValue


class ReloadState(BaseModel):
    """Answer of POST /admin/reload and GET /admin/reload/{job}.

    `generation` is the one taken up, `error` the problem document of one that was refused.
    """

    id: str
    status: Literal["running", "done", "failed"]
    generation: str | None
    seconds: float | None
    error: dict[str, JsonValue] | None
