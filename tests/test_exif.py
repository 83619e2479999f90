"""When and with what a photo was taken."""

import io

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from multigrain.exif import Taken
from multigrain.photo import open_photo

NEW_YEAR = Taken("1999-01-01T00:00:00")


def with_exif(form: str, tags: dict[int, object], shot: object = None) -> bytes:
    """A photo with these tags, and the time of its shot in the part for the camera."""
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    if shot is not None:
        exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = shot
    stream = io.BytesIO()
    Image.new("RGB", (40, 30)).save(stream, form, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_time_and_camera_are_read_from_every_format(form: str) -> None:
    """Also where a JPEG is decoded at a reduced scale."""
    data = with_exif(form, {Base.Make: "Canon", Base.Model: "Canon EOS"}, "2019:07:31 12:00:01")
    expected = Taken("2019-07-31T12:00:01", "Canon EOS")
    assert open_photo(data).taken == open_photo(data, min_side=4).taken == expected


def test_a_tiff_says_it_in_its_own_tags() -> None:
    """Pillow writes no part for the camera there."""
    tags = {Base.Model: "Scanner", Base.DateTime: "2019:07:31 12:00:01"}
    assert open_photo(with_exif("TIFF", tags)).taken == Taken("2019-07-31T12:00:01", "Scanner")


@pytest.mark.parametrize(
    ("tags", "shot", "expected"),
    [
        ({}, None, Taken()),
        ({Base.DateTime: "2001:02:03 04:05:06"}, None, Taken("2001-02-03T04:05:06")),
        (
            {Base.DateTime: "2001:02:03 04:05:06"},
            "1999:01:01 00:00:00",
            Taken("1999-01-01T00:00:00"),
        ),
        ({}, "0000:00:00 00:00:00", Taken()),
        ({}, "    :  :     :  :  ", Taken()),
        ({}, "2019-07-31", Taken()),
        ({Base.Make: "LG", Base.Model: "G6"}, None, Taken(None, "LG G6")),
        ({Base.Make: "LG"}, None, Taken(None, "LG")),
        ({Base.Model: "G6"}, None, Taken(None, "G6")),
        ({Base.Make: " LG \0garbage", Base.Model: "LG G6  "}, None, Taken(None, "LG G6")),
        ({Base.Make: "  "}, None, Taken()),
    ],
)
def test_what_a_camera_writes_is_understood_or_left_out(
    tags: dict[int, object], shot: object, expected: Taken
) -> None:
    """A clock never set is no time; a make is not said twice."""
    assert open_photo(with_exif("JPEG", tags, shot)).taken == expected


def test_damaged_metadata_costs_nothing_but_itself() -> None:
    """The photo is decoded all the same."""
    data = with_exif("JPEG", {Base.Make: "Canon"}, "2019:07:31 12:00:01")
    place = data.index(b"Exif\0\0") + 6
    damaged = (
        data[:place] + bytes(255 - one for one in data[place : place + 60]) + data[place + 60 :]
    )
    photo = open_photo(damaged)
    assert (photo.taken, photo.width) == (Taken(), 40)
