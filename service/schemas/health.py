"""The JSON of how the service is, and which it is."""

from typing import Literal

from pydantic import BaseModel


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


class Health(BaseModel):
    """Answer of GET /health."""

    status: Literal["ok", "degraded", "starting", "draining", "dead"]
    checks: Checks
    version: str
    generation: str | None
    uptime_s: float


class Version(BaseModel):
    """Answer of GET /version; the revision is the commit the image was built from, where known."""

    version: str
    revision: str | None
