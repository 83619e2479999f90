"""Bodies of POST /search taken apart, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.asking.parameters import refuse_repeats
from service.asking.search_options import SearchOptions, merge_options
from service.errors import ProblemError
from service.receiving.multipart import MAX_PARTS, Part, parse_multipart
from service.receiving.upload import Upload, read_upload

BOUNDARY = "x-boundary-x"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*parts: tuple[str, bytes]) -> bytes:
    blocks = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in parts
    ]
    return b"".join(blocks) + f"--{BOUNDARY}--\r\n".encode()


def code_of(content_type: str, body: bytes) -> str:
    with pytest.raises(ProblemError) as caught:
        read_upload(content_type, body)
    return caught.value.code


@given(st.binary(max_size=4000).filter(lambda data: BOUNDARY.encode() not in data))
def test_form_part_comes_out_byte_for_byte(data: bytes) -> None:
    """Whatever the photo's bytes, line ends and dashes included, they arrive unchanged."""
    assert parse_multipart(FORM, form(("image", data), ("limit", b"3"))) == [
        Part("image", data),
        Part("limit", b"3"),
    ]


@given(st.binary(max_size=300))
def test_garbage_under_a_form_type_is_malformed_or_has_no_image(body: bytes) -> None:
    """Random bytes sent as a form are refused with a code, never with another exception."""
    assert code_of(FORM, body) in {"malformed_multipart", "validation"}


@pytest.mark.parametrize(
    "content_type",
    ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"],
)
def test_raw_body_is_the_photo_whatever_its_type_claims(content_type: str) -> None:
    """The bytes decide, so curl --data-binary works without naming a type."""
    assert read_upload(content_type, b"photo") == Upload(b"photo")


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("", b"", "validation"),
        ("image/jpeg", b"", "empty_image"),
        ("application/json", b"{}", "unsupported_media_type"),
        ("multipart/mixed; boundary=b", b"", "unsupported_media_type"),
        ("multipart/form-data", form(("image", b"photo")), "malformed_multipart"),
        ("multipart/form-data; boundary=", b"--", "malformed_multipart"),
        (FORM, b"", "malformed_multipart"),
        (FORM, form(), "validation"),
        (FORM, form(("photo", b"photo")), "validation"),
        (FORM, form(("image", b"")), "empty_image"),
        (FORM, form(("image", b"a"), ("image", b"b")), "duplicate_image_part"),
        (FORM, form(("image", b"photo"))[:-9], "malformed_multipart"),
        (FORM, form(("image", b"photo")).replace(b'name="image"; ', b""), "malformed_multipart"),
        (FORM, form(*[("field", b"x")] * (MAX_PARTS + 1)), "malformed_multipart"),
        (FORM, form(("image", b"photo"), ("limit", b"1" * 5000)), "malformed_multipart"),
    ],
)
def test_unusable_body_is_refused_with_its_code(content_type: str, body: bytes, code: str) -> None:
    """Each way a body can be wrong has a stable code."""
    assert code_of(content_type, body) == code


def test_missing_image_names_the_field_that_is_wanted() -> None:
    """A form with other parts only is told which part to send."""
    with pytest.raises(ProblemError, match=r"no part 'image'.*'photo'"):
        read_upload(FORM, form(("photo", b"x")))


def test_limit_comes_from_the_query_or_from_the_form() -> None:
    """Either place sets it; neither leaves the default."""
    assert merge_options(SearchOptions(limit=3), []).options.limit == 3
    assert merge_options(SearchOptions(), [("limit", "4")]).options.limit == 4
    assert merge_options(SearchOptions(), []).options.limit == 10


@pytest.mark.parametrize(
    ("in_query", "fields", "loc"),
    [
        ({}, [("limit", "0")], "form.limit"),
        ({}, [("limit", "1e3")], "form.limit"),
        ({}, [("limit", "")], "form.limit"),
        ({}, [("colour", "red")], "form.colour"),
        ({}, [("limit", "3"), ("limit", "3")], "form.limit"),
        ({"limit": 10}, [("limit", "10")], "form.limit"),
    ],
)
def test_invalid_form_field_is_named(
    in_query: dict[str, int], fields: list[tuple[str, str]], loc: str
) -> None:
    """A field out of range, unknown, repeated or sent in both places is a 422 that names it."""
    with pytest.raises(ProblemError) as caught:
        merge_options(SearchOptions(**in_query), fields)
    assert caught.value.code == "validation"
    assert [fault.loc for fault in caught.value.faults] == [loc]


def test_parameter_sent_twice_is_refused() -> None:
    """Frameworks keep one of two values silently; here it is an error."""
    with pytest.raises(ProblemError) as caught:
        refuse_repeats([("limit", "3"), ("limit", "4")], "query")
    assert caught.value.faults[0].loc == "query.limit"
