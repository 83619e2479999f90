"""Metadata of a collection, whatever it holds, is JSON that can be sent."""

import json
from typing import Any

import pytest
from pydantic import JsonValue, TypeAdapter

from service.plain_json import MAX_DEPTH, plain_json


def nested(depth: int) -> Any:
    """Lists within objects, that many."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, True, None, "ä"]}, {"a": [1, 2.5, True, None, "ä"]}),
        ({"\udc80": "x\ud83d"}, {"\ufffd": "x\ufffd"}),
        ("\ud83d\ude00", "\U0001f600"),
        ([float("nan"), float("inf"), -float("inf")], [None, None, None]),
        (10**400, 10**400),
        (nested(MAX_DEPTH), nested(MAX_DEPTH)),
    ],
)
def test_value_is_kept_as_far_as_json_can_say_it(value: Any, expected: Any) -> None:
    """Lone surrogates and numbers that are none are replaced, all else stays."""
    assert plain_json(value) == expected
    json.dumps(plain_json(value), allow_nan=False, ensure_ascii=False).encode()


def test_value_too_deep_to_be_read_is_cut() -> None:
    """However deep a list of photos nests, its search is answered."""
    plain = plain_json(nested(900))
    assert TypeAdapter(JsonValue).validate_python(plain) == plain
    assert json.dumps(plain).endswith("null" + "}]" * (MAX_DEPTH // 2))
