"""The service as an object: each method is one request, retried while it is refused for now."""

import base64
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypedDict, Unpack
from urllib.parse import quote

import httpx2
import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from service.client.answers import AddAnswer, EmbedAnswer, Health, SearchAnswer
from service.client.errors import ServiceError
from service.client.exchange import Exchange, read_answer
from service.client.retries import Retries

DEFAULT_URL = "http://127.0.0.1:8000"
API_KEY_VARIABLE = "MULTIGRAIN_API_KEY"
_READY_POLL_SECONDS = 0.5

Photo = bytes | str | os.PathLike[str]


class SearchParameters(TypedDict, total=False):
    """Parameters of a search; one left out is the service's default.

    `filter` is {"must": [...], "must_not": [...]}, `include` names parts of the answer.
    """

    limit: int
    offset: int
    min_score: float
    min_probability: float
    rerank: Literal["none", "aqe", "kreciprocal"]
    augment: Literal["none", "flip", "multiscale", "flip_multiscale"]
    nprobe: int
    recall: float
    exact: bool
    filter: Mapping[str, JsonValue]
    include: Sequence[str]
    dedup: bool | float
    timeout_ms: int


class Searched(NamedTuple):
    """A photo of `search_many` with its answer, or with the error that took its place."""

    photo: Photo
    answer: SearchAnswer | None
    error: ServiceError | None


class Added(NamedTuple):
    """The id of a photo that was added, and whether its bytes were not there before."""

    id: str
    is_new: bool


class Client:
    """Asks the service at `url`; a context manager, safe to use from many threads.

    A photo is its bytes, or the path of its file. The key is `api_key`, else that of
    MULTIGRAIN_API_KEY in `environ` (the process's own by default). Every method raises
    ServiceError.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        environ: Mapping[str, str] | None = None,
        retries: Retries | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        key = environ.get(API_KEY_VARIABLE) if api_key is None else api_key
        self._exchange = Exchange(url, api_key=key, transport=transport)
        self._retries = retries or Retries()

    def __enter__(self) -> Self:
        """Use the client for a block, which closes it."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._exchange.close()

    def search(self, photo: Photo, **parameters: Unpack[SearchParameters]) -> SearchAnswer:
        """Find the photos that look like this one."""
        response = self._ask("POST", "/search", params=_query(parameters), **_raw(photo))
        return read_answer(SearchAnswer, response)

    def similar(self, image_id: str, **parameters: Unpack[SearchParameters]) -> SearchAnswer:
        """Find the photos that look like one of the index, which leaves itself out."""
        path = f"/images/{quote(image_id, safe='')}/similar"
        return read_answer(SearchAnswer, self._ask("GET", path, params=_query(parameters)))

    def search_embedding(
        self, embedding: Sequence[float], **parameters: Unpack[SearchParameters]
    ) -> SearchAnswer:
        """Find the photos near an embedding, such as one of `embed` or a `query_embedding`."""
        body = {"embedding": [float(number) for number in embedding]}
        response = self._ask("POST", "/search", params=_query(parameters), json=body)
        return read_answer(SearchAnswer, response)

    def embed(self, photo: Photo) -> npt.NDArray[np.float32]:
        """The embedding of a photo: float32 [D], unit norm."""
        response = self._ask("POST", "/embed", params={"encoding_format": "base64"}, **_raw(photo))
        numbers = base64.b64decode(read_answer(EmbedAnswer, response).embedding)
        return np.frombuffer(numbers, "<f4").astype(np.float32)

    def search_many(
        self,
        photos: Iterable[Photo],
        *,
        concurrency: int = 8,
        **parameters: Unpack[SearchParameters],
    ) -> Iterator[Searched]:
        """Search with each photo, `concurrency` at a time; answers come in the photos' order.

        A photo that fails brings its error and disturbs no other. `photos` is read as the
        answers are taken, a little ahead, so it may be endless.
        """
        waiting = deque[Future[Searched]]()
        todo = iter(photos)
        with ThreadPoolExecutor(concurrency, "search") as pool:
            try:
                while True:
                    for photo in islice(todo, 2 * concurrency - len(waiting)):
                        waiting.append(pool.submit(self._searched, photo, parameters))
                    if not waiting:
                        return
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def add(self, photo: Photo, metadata: Mapping[str, JsonValue] | None = None) -> Added:
        """Add a photo with its attributes; needs an admin key. Again, it is the same one."""
        form = {"metadata": json.dumps(dict(metadata or {}))}
        response = self._ask("POST", "/images", files={"image": _read(photo)}, data=form)
        is_new = response.status_code == HTTPStatus.CREATED
        return Added(read_answer(AddAnswer, response).id, is_new=is_new)

    def delete(self, image_id: str) -> None:
        """Take a photo out for good; needs an admin key."""
        self._ask("DELETE", f"/images/{quote(image_id, safe='')}")

    def health(self) -> Health:
        """How the service is, also when that is not well: 503 is an answer here."""
        return read_answer(Health, self._exchange.send("GET", "/health"))

    def wait_ready(self, timeout_seconds: float = 60.0) -> Health:
        """Wait until searches are answered; raises the last ServiceError after the timeout."""
        clock, sleep = self._retries.clock, self._retries.sleep
        give_up_at = clock() + timeout_seconds
        while True:
            try:
                health = self.health()
                if health.is_ready:
                    return health
                error = ServiceError(f"the service is {health.status}", code="not_ready")
            except ServiceError as failure:
                error = failure
            if clock() >= give_up_at:
                raise error
            sleep(_READY_POLL_SECONDS)

    def _ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Send a request, again while it is refused for now."""
        return self._retries.run(lambda: self._exchange.ask(method, path, **request))

    def _searched(self, photo: Photo, parameters: SearchParameters) -> Searched:
        try:
            return Searched(photo, self.search(photo, **parameters), None)
        except ServiceError as error:
            return Searched(photo, None, error)


def _raw(photo: Photo) -> dict[str, Any]:
    """A photo as the whole body of a request."""
    return {"content": _read(photo), "headers": {"Content-Type": "application/octet-stream"}}


def _query(parameters: SearchParameters) -> dict[str, Any]:
    """The parameters as a query string holds them."""
    query = dict[str, Any](parameters)
    if "filter" in query:
        query["filter"] = json.dumps(query["filter"])
    if "include" in query:
        query["include"] = ",".join(query["include"])
    return query


def _read(photo: Photo) -> bytes:
    if isinstance(photo, bytes):
        return photo
    try:
        return Path(photo).read_bytes()
    except OSError as error:
        detail = f"{os.fspath(photo)} cannot be read: {error.strerror}"
        raise ServiceError(detail, code="photo_unreadable") from error
