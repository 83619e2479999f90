"""GET /metrics, on the service's port or on one of its own."""

from collections.abc import Callable
from functools import partial
from wsgiref.simple_server import WSGIServer

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import choose_encoder

from service.routes.problems import problems
from service.serving.runtime import Runtime

router = APIRouter()


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}},
        **problems("queue_full", "deadline_exceeded"),
    },
)
async def metrics(request: Request) -> Response:
    """What the service counts and times, in the form that Prometheus reads."""
    runtime: Runtime = request.state.runtime
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    # Some 40 microseconds a number, of which there are hundreds: too long for the event loop.
    text = await runtime.scrapes.run(partial(encode, runtime.metrics.registry))
    return Response(text, headers={"Content-Type": content_type})


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> Callable[[], None]:
    """Answer /metrics on a port of its own, in a thread, until the returned function is called.

    Raises OSError when the port is taken.
    """
    server, thread = start_http_server(port, addr=host, registry=registry)
    assert isinstance(server, WSGIServer)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close
