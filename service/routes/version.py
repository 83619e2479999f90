"""GET /version: which release answers, and which commit it was built from."""

from fastapi import APIRouter, Request

from service.schemas.health import Version
from service.serving.runtime import Runtime

router = APIRouter()


@router.get("/version")
async def get_version(request: Request) -> Version:
    """The release, and the commit where the image's builder told it."""
    runtime: Runtime = request.state.runtime
    return Version(version=runtime.release, revision=runtime.settings.revision)
