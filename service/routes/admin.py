"""POST /admin/reload, and what became of it."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from service.errors import ProblemError, problem_document
from service.routes.problems import READY, problems
from service.schemas.reload import ReloadState
from service.serving.reload import ReloadInProgressError
from service.serving.reload_job import ReloadJob
from service.serving.runtime import Runtime

router = APIRouter(prefix="/admin")


@router.post(
    "/reload",
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(*READY, "forbidden", "reload_in_progress"),
)
async def reload(request: Request, response: Response) -> ReloadState:
    """Begin to take up the generation that CURRENT names; Location tells where to ask for it."""
    runtime: Runtime = request.state.runtime
    try:
        job = runtime.ready().reloader.begin()
    except ReloadInProgressError as error:
        raise ProblemError("reload_in_progress", str(error)) from None
    response.headers["Location"] = f"/admin/reload/{job.id}"
    return _state(request, job)


@router.get("/reload/{job_id}", responses=problems(*READY, "forbidden"))
async def reload_job(request: Request, job_id: str) -> ReloadState:
    """Whether a reload is under way, is done, or was refused, and why."""
    runtime: Runtime = request.state.runtime
    job = runtime.ready().reloader.job(job_id)
    if job is None:
        raise ProblemError("not_found", "no such reload; the last 16 are known")
    return _state(request, job)


def _state(request: Request, job: ReloadJob) -> ReloadState:
    status = job.status  # first: the thread writes it last
    refused = ProblemError("index_refused", job.error or "") if status == "failed" else None
    return ReloadState(
        id=job.id,
        status=status,
        generation=job.generation,
        seconds=None if job.seconds is None else round(job.seconds, 3),
        error=refused and problem_document(request.state.request_id, refused),
    )
