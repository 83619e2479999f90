"""GET / and /docs: the pages a person opens, and the files they need."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from service.routes.reference import reference_page

PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    # blob: shows the photo a person picked without sending it anywhere first.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
}


_NUM_HITS = 24
_HITS = 'data-num-hits="{}"'


def add_pages(app: FastAPI, *, max_limit: int) -> None:
    """Serve the page a person searches with, and the description of the API.

    The page asks for no more hits at once than `max_limit`.
    """
    html = (PAGE / "index.html").read_text("utf-8")
    html = html.replace(_HITS.format(_NUM_HITS), _HITS.format(min(_NUM_HITS, max_limit)))

    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers=PAGE_HEADERS)

    async def reference() -> HTMLResponse:
        return HTMLResponse(reference_page(app.openapi()), headers=PAGE_HEADERS)

    app.add_api_route("/", page, include_in_schema=False)
    app.add_api_route("/docs", reference, include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
