"""An answer as bytes, headed by what each of its stages took."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from fastapi import Response

from service.schemas.search import BatchResponse, EmbedResponse, SearchResponse
from service.serving.hits import milliseconds


class Written(NamedTuple):
    """A response, and the milliseconds of its stages: `serialize`, of what was found to bytes."""

    response: Response
    stages: Mapping[str, float]


def write(
    answer: SearchResponse | EmbedResponse, *, started_at: float, writing_at: float
) -> Written:
    """Write an answer whose request began at `started_at`, and which is written since `writing_at`.

    What the writing takes cannot stand in what is written: `serialize` is told by the header
    Server-Timing alone, whose `total` holds it. Both times are of `time.perf_counter`.
    """
    timing = answer.timing_ms
    timing.total = milliseconds(time.perf_counter() - started_at)
    return _written(answer, dict(timing), started_at=started_at, writing_at=writing_at)


def write_batch(
    answer: BatchResponse, *, receive_seconds: float, started_at: float, writing_at: float
) -> Written:
    """The same for several searches, each of which tells its own stages."""
    stages = {"receive": milliseconds(receive_seconds)}
    return _written(answer, stages, started_at=started_at, writing_at=writing_at)


def _written(
    answer: SearchResponse | EmbedResponse | BatchResponse,
    stages: dict[str, float],
    *,
    started_at: float,
    writing_at: float,
) -> Written:
    stages.pop("total", None)  # it comes last, and later
    content = answer.model_dump_json(exclude_unset=True)
    now = time.perf_counter()
    stages["serialize"] = milliseconds(now - writing_at)
    stages["total"] = milliseconds(now - started_at)
    headers = {
        "Cache-Control": "no-store",
        "Server-Timing": ", ".join(f"{stage};dur={ms:g}" for stage, ms in stages.items()),
    }
    response = Response(content, headers=headers, media_type="application/json")
    return Written(response, stages)
