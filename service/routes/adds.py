"""POST /images and DELETE /images/{id}: photos come and go while searches are answered."""

from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic_core import from_json

from index.changes.writer import AddedPhoto, NewPhoto
from service.asking.ids import ImageId
from service.asking.parameters import refuse_parameters, refuse_repeats
from service.batching.queries import Query, Source
from service.errors import Fault, ProblemError, validation_problem
from service.receiving.upload import read_upload
from service.routes import bodies
from service.routes.problems import BATCHED, BODY, SIDE_WORK, problems
from service.schemas.image import AddedImage
from service.serving.answering import Answering, answer_body
from service.serving.runtime import Ready, Runtime

router = APIRouter()

# The index writes it itself: every path of a photo.
_OWN_NAME = "paths"
_CHANGE = ("forbidden", "not_writer")


class _Wanted(NamedTuple):
    """The photo of a request, and the attributes it is to have."""

    photo: bytes
    metadata: dict[str, Any]


@router.post(
    "/images",
    status_code=HTTPStatus.CREATED,
    openapi_extra=bodies.ADD,
    responses={
        **problems(*BATCHED, *BODY, *_CHANGE),
        200: {"model": AddedImage, "description": "These bytes were there already"},
    },
)
async def add(request: Request, response: Response) -> AddedImage:
    """Add the photo in the body; searches find it as soon as this answers."""
    runtime: Runtime = request.state.runtime
    refuse_parameters(request.query_params.multi_items())
    ready = runtime.ready_to_infer()
    _require_adds(runtime)
    work = partial(_add, runtime, ready, request)
    received = await answer_body(runtime, ready, request, work)
    added = received.answer
    if not added.is_new:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/images/{added.id}"
    return AddedImage(id=str(added.id), thumbnail_url=f"/images/{added.id}/thumbnail?size=256")


@router.delete(
    "/images/{image_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=problems(*SIDE_WORK, *_CHANGE, "image_not_found"),
)
async def delete(request: Request, image_id: ImageId) -> None:
    """Take a photo out; no build of the index brings its bytes back."""
    runtime: Runtime = request.state.runtime
    refuse_parameters(request.query_params.multi_items())
    changes = runtime.ready().changes
    _require_adds(runtime)
    if not await runtime.side_work.run(partial(changes.delete, image_id)):
        raise ProblemError("image_not_found", f"no image has the id {image_id}")


def _require_adds(runtime: Runtime) -> None:
    if not runtime.settings.adds:
        raise ProblemError("forbidden", "this service takes no adds and deletes (--adds is off)")


async def _add(runtime: Runtime, ready: Ready, request: Request, body: bytes) -> AddedPhoto:
    """Take the body apart, embed the photo in a batch unless it is there, and write it down."""
    changes, embedder = ready.changes, ready.engine.embedder
    answering = Answering(runtime, ready, request)
    content_type = request.headers.get("content-type", "")
    wanted = await answering.prepare(partial(_read, content_type, body))
    if await answering.prepare(partial(changes.find, wanted.photo)) is not None:
        work = partial(changes.add_known, wanted.photo, wanted.metadata)
        known = await runtime.side_work.run(work)
        if known is not None:  # else deleted meanwhile
            return AddedPhoto(known, is_new=False)
    prepared = await answering.prepare(partial(embedder.read, wanted.photo, runtime.limits))
    query = Query(Source(looks=(prepared.pixels,)), None)
    answered = await answering.ask(query, background=True)
    photo = NewPhoto(wanted.photo, prepared, wanted.metadata)
    embedding = answered.done.result.embedding
    return await answering.wait_for(
        runtime.side_work.run(partial(changes.add, photo, embedding)), "change"
    )


def _read(content_type: str, body: bytes) -> _Wanted:
    upload = read_upload(content_type, body)
    refuse_repeats(upload.fields, "form")
    fields = dict(upload.fields)
    text = fields.pop("metadata", "{}")
    if fields:
        raise validation_problem(
            [Fault(f"form.{min(fields)[:64]}", "unknown: a form holds image and metadata")]
        )
    return _Wanted(upload.photo, _metadata_of(text))


def _metadata_of(text: str) -> dict[str, Any]:
    """The attributes of a JSON object; raises ProblemError validation."""
    try:
        metadata = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise _bad_metadata(f"no JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise _bad_metadata("a JSON object is wanted")
    if _OWN_NAME in metadata:
        raise _bad_metadata(f"`{_OWN_NAME}` is the index's own")
    return metadata


def _bad_metadata(reason: str) -> ProblemError:
    return validation_problem([Fault("form.metadata", reason)])
