"""The bodies of requests, as /openapi.json describes them."""

from typing import Any

from pydantic import BaseModel

from service.asking.options import EmbedOptions
from service.asking.search_options import SearchOptions
from service.receiving.json_body import EMBEDDING, IMAGE, URL
from service.receiving.upload import MAX_PHOTOS

_PHOTO = {"type": "string", "format": "binary"}
_BASE64 = {
    "type": "string",
    "description": "the photo's bytes in base64, with or without data:image/...;base64, before it",
}
_NUMBERS = {
    "type": "array",
    "items": {"type": "number"},
    "description": "as many numbers as the index has dimensions; any length but zero",
}
_ADDRESS = {
    "type": "string",
    "description": "where the photo is; refused unless the service runs with --image-url",
}


def _form(options: type[BaseModel], photo: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = options.model_json_schema()["properties"]
    return {
        "type": "object",
        "required": ["image"],
        "properties": {"image": photo, **fields},
        "additionalProperties": False,
    }


def _object(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": [name],
        "properties": {name: schema},
        "additionalProperties": False,
    }


def _request_body(**content: dict[str, Any]) -> dict[str, Any]:
    return {
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": schema} for kind, schema in content.items()},
        }
    }


_RAW: dict[str, dict[str, Any]] = {"image/*": _PHOTO, "application/octet-stream": _PHOTO}

_PHOTOS = {"type": "array", "items": _PHOTO, "minItems": 1, "maxItems": MAX_PHOTOS}

_ADD = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": _PHOTO,
        "metadata": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "the photo's attributes, a JSON object; `label` is its label",
        },
    },
    "additionalProperties": False,
}

ADD = _request_body(**{"multipart/form-data": _ADD, **_RAW})
BATCH = _request_body(**{"multipart/form-data": _form(SearchOptions, _PHOTOS)})
EMBED = _request_body(
    **{
        "multipart/form-data": _form(EmbedOptions, _PHOTO),
        **_RAW,
        "application/json": _object(IMAGE, _BASE64),
    }
)
SEARCH = _request_body(
    **{
        "multipart/form-data": _form(SearchOptions, _PHOTO),
        **_RAW,
        "application/json": {
            "oneOf": [
                _object(IMAGE, _BASE64),
                _object(EMBEDDING, _NUMBERS),
                _object(URL, _ADDRESS),
            ]
        },
    }
)
