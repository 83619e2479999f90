"""The ASGI application: routes, page, errors, and one lifespan that opens and closes the rest."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.gate import Gate
from service.middleware import RequestMiddleware
from service.openapi import complete
from service.pages import add_pages
from service.routes import (
    adds,
    admin,
    batch,
    embed,
    exposition,
    health,
    images,
    index_facts,
    search,
    similar,
    thumbnails,
    version,
)
from service.serving.runtime import Runtime
from service.translations import install_error_handlers
from service.watching.loop_lag import measure_lag
from service.watching.observing import ObservingMiddleware
from service.watching.state_metrics import StateMetrics
from service.watching.telemetry import telemetry_config

logger = logging.getLogger(__name__)

_ROOMS = (
    search,
    batch,
    similar,
    embed,
    thumbnails,
    images,
    adds,
    index_facts,
    health,
    version,
    admin,
)

EXPOSED_HEADERS = ["Location", "Retry-After", "Server-Timing", "X-Index-Generation", "X-Request-ID"]


def create_app(runtime: Runtime, *, on_failure: Callable[[BaseException], None]) -> FastAPI:
    """Build the application; `on_failure` is called when the runtime cannot be opened, or dies.

    Opening goes on in the background, so that /health answers 503 while a model is converted.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        tasks = [
            asyncio.create_task(_live(runtime, on_failure), name="live"),
            asyncio.create_task(measure_lag(runtime.metrics.loop_lag_seconds.set), name="lag"),
        ]
        yield {"runtime": runtime}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runtime.close()

    # FastAPI's own pages would load scripts from elsewhere.
    app = FastAPI(
        title="MultiGrain",
        version=runtime.release,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        telemetry=telemetry_config(wanted=runtime.settings.telemetry),
    )
    own_port = runtime.settings.metrics_port is not None
    for room in _ROOMS if own_port else (*_ROOMS, exposition):
        app.include_router(room.router)
    add_pages(app, max_limit=runtime.settings.max_limit)
    runtime.metrics.registry.register(StateMetrics(runtime))
    _add_middleware(app, runtime)
    install_error_handlers(app)
    complete(app.openapi(), runtime.settings)  # which is kept, as no route is added after
    return app


def _add_middleware(app: FastAPI, runtime: Runtime) -> None:
    """Put what each request passes around the routes, the innermost first."""
    settings = runtime.settings
    gate = Gate(api_keys=settings.api_key, admin_keys=settings.admin_key)
    app.add_middleware(RequestMiddleware, gate=gate)
    if settings.cors_origins:  # before the gate: a browser asks without a key whether it may ask
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(ObservingMiddleware, metrics=runtime.metrics)


async def _live(runtime: Runtime, on_failure: Callable[[BaseException], None]) -> None:
    """Open the runtime, and watch it."""
    try:
        await runtime.open()
        logger.info("ready")
        await runtime.watch()
    except Exception as error:  # noqa: BLE001 - whoever started the service has to hear of it
        on_failure(error)
