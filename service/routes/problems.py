"""The problems a route may answer with, as /openapi.json describes them."""

from collections import defaultdict
from typing import Any

from service.errors import KINDS, PROBLEM_MEDIA_TYPE

_REFERENCE = {"schema": {"$ref": "#/components/schemas/Problem"}}

# Of every route; without keys the first does not occur.
_ALWAYS = ("unauthorized", "not_found", "method_not_allowed", "validation", "internal")
READY = ("not_ready", "draining", "index_unavailable")
SIDE_WORK = (*READY, "queue_full", "deadline_exceeded")
BATCHED = (*SIDE_WORK, "client_limit", "engine_dead")
BODY = (
    "bad_request",
    "malformed_multipart",
    "malformed_json",
    "bad_base64",
    "duplicate_image_part",
    "empty_image",
    "image_undecodable",
    "body_timeout",
    "payload_too_large",
    "image_too_many_pixels",
    "image_side_too_long",
    "image_side_too_short",
    "unsupported_media_type",
)
ADDRESS = ("image_url_disabled", "image_url_refused")


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """A route's `responses`: one for each status of these codes and of those every route has."""
    codes_of_status: dict[int, list[str]] = defaultdict(list)
    for code in dict.fromkeys((*_ALWAYS, *codes)):
        codes_of_status[KINDS[code].status].append(code)
    return {
        status: {
            "description": ", ".join(f"`{code}`" for code in found),
            "content": {PROBLEM_MEDIA_TYPE: _REFERENCE},
        }
        for status, found in sorted(codes_of_status.items())
    }
