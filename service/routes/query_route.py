"""Routes whose parameters in the query string are one model, read by it alone."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.asking.parameters import read_query


class QueryRoute(APIRoute):
    """Calls `endpoint(request, options)`; FastAPI describes the options in /openapi.json.

    FastAPI reads a model's parameters one by one, which takes a third of all that the event loop
    does for a search. A parameter that is sent twice is refused; FastAPI would keep the last.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What FastAPI calls for a request."""
        endpoint = self.endpoint
        (options,) = self.dependant.query_params
        model = options.field_info.annotation
        assert isinstance(model, type)

        async def handle(request: Request) -> Response:
            answer: Response = await endpoint(
                request, read_query(model, request.query_params.multi_items())
            )
            return answer

        return handle
