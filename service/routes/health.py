"""GET /health, /livez and /readyz: cheap answers that wait for nothing."""

import time
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from service.schemas.health import Checks, EngineCheck, Health, IndexCheck, ModelCheck, ReloadCheck
from service.serving.runtime import Ready, Runtime

router = APIRouter()


_PROBE: dict[int | str, dict[str, Any]] = {503: {"description": "not so"}}


@router.get("/health", responses={503: {"model": Health}})
async def health(request: Request, response: Response) -> Health:
    """Whether searches are answered (200) or not (503), and the parts that decide it.

    `degraded` is 200: the generation before answers, as the live one was refused.
    """
    runtime: Runtime = request.state.runtime
    response.status_code = _status_code(ok=runtime.answers)
    response.headers["Cache-Control"] = "no-store"
    checks = _checks(runtime.opened)
    return Health(
        status=runtime.status,
        checks=checks,
        version=runtime.release,
        generation=checks.index.generation if checks.index else None,
        uptime_s=round(time.monotonic() - runtime.started_at, 1),
    )


@router.get("/livez", response_class=Response, responses=_PROBE)
async def livez(request: Request) -> Response:
    """200 unless only a restart helps."""
    runtime: Runtime = request.state.runtime
    return Response(status_code=_status_code(ok=runtime.inference_alive))


@router.get("/readyz", response_class=Response, responses=_PROBE)
async def readyz(request: Request) -> Response:
    """200 when searches should be sent here."""
    runtime: Runtime = request.state.runtime
    return Response(status_code=_status_code(ok=runtime.answers))


def _status_code(*, ok: bool) -> int:
    return HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE


def _checks(opened: Ready | None) -> Checks:
    if opened is None:
        return Checks(
            model=None,
            index=None,
            engine=EngineCheck(queue=0, inflight=0, last_ok_s=None),
            reload=ReloadCheck(last_error=None),
        )
    engine, batcher, reloader = opened.engine, opened.batcher, opened.reloader
    embedder = engine.embedder
    with engine.generations.lease() as searcher:
        index = IndexCheck(generation=searcher.generation, num_photos=searcher.num_live)
    last_ok_at = batcher.runs.last_ok_at
    return Checks(
        model=ModelCheck(
            name=engine.model_name,
            device=str(embedder.device),
            engine=embedder.engine,
            precision=embedder.precision,
        ),
        index=index,
        engine=EngineCheck(
            queue=batcher.num_queued,
            inflight=batcher.runs.num_running,
            last_ok_s=None if last_ok_at is None else round(time.monotonic() - last_ok_at, 3),
        ),
        reload=ReloadCheck(last_error=reloader.last_error),
    )
