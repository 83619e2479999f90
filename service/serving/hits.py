"""What was found, as the JSON of an answer."""

from typing import Any

from index.searching.neighbours import Neighbour
from service.asking.search_options import Include, SearchOptions
from service.batching.queries import Found
from service.plain_json import plain_json, plain_text
from service.schemas.search import Hit, QueryPhoto, SearchResponse, TimingMs
from service.serving.answering import Answered


def search_response(
    request_id: str, model: str, answered: Answered, options: SearchOptions
) -> SearchResponse:
    """Put an answer together; `timing_ms` lacks what the route knows, `receive` and `total`."""
    answer = answered.done.result
    facts = answered.facts
    hits = _hits(answer.found, options)
    response = SearchResponse(
        request_id=request_id,
        generation=answer.generation,
        model=model,
        metric="cosine",
        query=None if facts is None else QueryPhoto(**facts._asdict()),
        results=hits,
        count=len(hits),
        offset=options.offset,
        has_more=answer.found.has_more,
        batch_size=answer.batch_size,
        timing_ms=timing_of(answered),
    )
    if answer.found.collapsed is not None:
        response.dedup_cosine = answer.found.collapsed.cosine
        response.collapsed = int(answer.found.collapsed.counts.sum())
    if Include.QUERY_EMBEDDING in options.included:
        response.query_embedding = answer.embedding.tolist()
    return response


def timing_of(answered: Answered) -> TimingMs:
    """The stages behind the receipt of the body."""
    answer = answered.done.result
    return TimingMs(
        receive=0.0,
        decode=milliseconds(answered.decode_seconds),
        queue=milliseconds(answered.turn_seconds + answered.done.queue_seconds),
        infer=milliseconds(answer.infer_seconds),
        search=milliseconds(answer.search_seconds),
        metadata=milliseconds(answer.metadata_seconds),
        total=0.0,
    )


def _hits(found: Found, options: SearchOptions) -> list[Hit]:
    hits = [
        _hit(rank, neighbour, options.included)
        for rank, neighbour in enumerate(found.hits, options.offset + 1)
    ]
    if found.embeddings is not None:
        for hit, row in zip(hits, found.embeddings, strict=True):
            hit.embedding = row.tolist()
    if found.collapsed is not None:
        for hit, count in zip(hits, found.collapsed.counts, strict=True):
            hit.collapsed = int(count)
    return hits


def _hit(rank: int, neighbour: Neighbour, included: frozenset[str]) -> Hit:
    parts = dict[str, Any]()
    if Include.THUMBNAIL_URL in included:
        parts["thumbnail_url"] = f"/images/{neighbour.id}/thumbnail?size=256"
    if Include.METADATA in included:
        metadata = neighbour.metadata
        parts["metadata"] = {plain_text(key): plain_json(each) for key, each in metadata.items()}
    return Hit(
        rank=rank,
        id=str(neighbour.id),
        # A cosine of two unit vectors may exceed 1 by a rounding error.
        score=min(1.0, max(-1.0, neighbour.score)),
        same_probability=neighbour.same_probability,
        uri=plain_text(neighbour.uri),
        **parts,  # at once: set one by one, they take as long again
    )


def milliseconds(seconds: float) -> float:
    """Milliseconds to two digits."""
    return round(seconds * 1000, 2)
