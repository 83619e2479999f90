"""GET /version: which release answers, and which commit it was built from."""

from importlib.metadata import version

from fastapi import APIRouter, Request

from service.runtime import Runtime
from service.schemas import Version

router = APIRouter()

_DISTRIBUTION = "multigrain-retrieval"


def release() -> str:
    """The installed version of the distribution."""
    return version(_DISTRIBUTION)


@router.get("/version")
async def get_version(request: Request) -> Version:
    """The release, and the commit where the image's builder told it."""
    runtime: Runtime = request.state.runtime
    return Version(version=release(), revision=runtime.settings.revision)
