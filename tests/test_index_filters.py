"""Conditions on photos: how they are written, and which contents they choose."""

import hashlib
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_fixtures import build, photo_bytes, write_photos
from PIL import Image
from PIL.ExifTags import IFD, Base
from stub_embedder import StubEmbedder

import index.catalog_reader
from index.catalog_opening import open_catalog_file
from index.errors import IndexFolderError
from index.searcher import Searcher
from index.searching.where import Filter, parse_filters

pytest_plugins = ["postgres_fixtures"]


def taken_photo(seed: int, *, at: str, make: str = "", model: str = "") -> bytes:
    """A drawn photo with EXIF."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[Base.Make], exif[Base.Model] = make, model
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = at
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    return stream.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two folders and a list; content n has the photo drawn from seed n."""
    folder = tmp_path_factory.mktemp("filters")
    tree = folder / "tree"
    for name, data in {
        "a/0.png": photo_bytes(0),
        "a b/1.png": photo_bytes(1, side=40),
        "b/2.png": taken_photo(2, at="2019:07:31 23:59:59", make="Canon", model="Canon EOS 5D"),
        "b/deep/3.png": taken_photo(3, at="2020:01:01 00:00:00", make="LG", model="G6\0\0"),
        "top.png": photo_bytes(4),
        "zero.png": taken_photo(5, at="0000:00:00 00:00:00"),
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    write_photos(folder / "listed", [6, 7, 8])
    rows = [
        {"path": "listed/0006.png", "label": "cat", "price": 9, "sold": True, "code": "007"},
        {"path": "listed/0007.png", "label": 'a, "b"', "price": "12.5", "sold": False},
        {"path": "listed/0008.png", "label": 7, "price": "unknown", "who": "it's*"},
        {"path": "tree/a/0.png", "label": "cat", "price": 100},
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build([tree, folder / "list.jsonl"], folder / "index")
    return folder / "index"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def opened(root: Path, request: pytest.FixtureRequest) -> Iterator[Searcher]:
    """The index with its catalog in its own file, and published once more to a database."""
    catalog = None
    if request.param == "postgresql":
        catalog = request.getfixturevalue("postgres").create("filters")
        folder = root.parent
        build([folder / "tree", folder / "list.jsonl"], root, catalog=catalog)
    with closing(Searcher.open(root, catalog=catalog)) as searcher:
        yield searcher


def matching(searcher: Searcher, *texts: str) -> list[int]:
    return [int(one) for one in searcher.matching(parse_filters(texts))]


# The ids in scan order: "a b/1" sorts before "a/0".
A_B1, A0, B2, DEEP3, TOP4, ZERO5, L6, L7, L8 = range(9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label=a", [A0]),
        ("label=a b", [A_B1]),
        ("label=a*", [A_B1, A0, L7]),
        ('label="a*"', []),
        ("label=cat", [A0, L6]),
        ("label!=cat", [A_B1, A0, B2, DEEP3, L7, L8]),
        ('label="a, \\"b\\""', [L7]),
        ("label=7", [L8]),
        ("label=ca", []),
        ("folder=b", [B2]),
        ("folder=b/", [B2]),
        ("folder=b/*", [B2, DEEP3]),
        ("folder=b*", [B2, DEEP3]),
        ("folder=b/deep", [DEEP3]),
        ("folder=", [TOP4, ZERO5]),
        ("folder!=listed", [A_B1, A0, B2, DEEP3, TOP4, ZERO5]),
        ("taken_at>=2019-01-01", [B2, DEEP3]),
        ("taken_at<=2019-07-31", [B2]),
        ("taken_at<2019-07-31", []),
        ("taken_at>2019-07-31", [DEEP3]),
        ("taken_at>2019", [DEEP3]),
        ("taken_at=2019-07", [B2]),
        ("taken_at!=2019", [DEEP3]),
        ("taken_at=2020-01-01 00:00", [DEEP3]),
        ("camera=Canon EOS 5D", [B2]),
        ("camera=LG G6", [DEEP3]),
        ("camera=LG*", [DEEP3]),
        ("width>=40", [A_B1]),
        ("width=30, height=20", [B2, DEEP3, ZERO5]),
        ("format=PNG,width>30", [A_B1]),
        ("bytes>0,label=a", [A0]),
        ("attributes.price<10", [L6]),
        ("attributes.price>10", [A0, L7]),
        ("attributes.price=12.50", [L7]),
        ("attributes.price!=9", [A0, L7]),
        ("attributes.price=unknown", [L8]),
        ("attributes.sold=true", [L6]),
        ("attributes.sold!=true", [L7]),
        ("attributes.code=7", [L6]),
        ('attributes.code="7"', []),
        ('attributes.code="007"', [L6]),
        ("attributes.who=it's*", [L8]),
        ('attributes.who="it\'s*"', [L8]),
        ("attributes.none=1", []),
        ("label='; DROP TABLE photo; --", []),
    ],
)
def test_a_condition_chooses_the_contents(opened: Searcher, text: str, expected: list[int]) -> None:
    """Any live path is enough; a photo without the value meets no condition on it."""
    assert matching(opened, text) == expected


def test_all_conditions_hold_of_one_photo(opened: Searcher) -> None:
    """A content in folder a, and in the list with label cat, is in no folder a with label cat."""
    assert matching(opened, "folder=a", "label=a") == [A0]
    assert matching(opened, "folder=a", "label=cat") == []
    assert matching(opened, "folder=tree/a", "label=cat") == [A0]
    assert matching(opened) == list(range(9))


def excluding(text: str) -> Filter:
    (one,) = parse_filters([text])
    return one._replace(is_excluded=True)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (Filter("label", "in", ("a", "cat")), [A0, L6]),
        (Filter("label", "in", ("none",)), []),
        (Filter("width", "in", (30, 40.0)), [A_B1, B2, DEEP3, ZERO5]),
        (Filter("taken_at", "in", ("2019", "2020-01")), [B2, DEEP3]),
        (Filter("attributes.price", "in", (9, "unknown")), [L6, L8]),
        (
            Filter("label", "in", ("a", "cat"), is_excluded=True),
            [A_B1, B2, DEEP3, TOP4, ZERO5, L7, L8],
        ),
        (excluding("label=b"), [A_B1, A0, TOP4, ZERO5, L6, L7, L8]),
        (excluding("camera=LG*"), [A_B1, A0, B2, TOP4, ZERO5, L6, L7, L8]),
        (excluding("width<40"), [A_B1]),
        (excluding("taken_at>2019"), [A_B1, A0, B2, TOP4, ZERO5, L6, L7, L8]),
        (excluding("attributes.price<50"), [A_B1, A0, B2, DEEP3, TOP4, ZERO5, L8]),
        (excluding("attributes.sold=true"), [A_B1, A0, B2, DEEP3, TOP4, ZERO5, L7, L8]),
    ],
)
def test_one_of_several_values_or_anything_else(
    opened: Searcher, one: Filter, expected: list[int]
) -> None:
    """`in` takes any of its values; an excluded condition lets a photo without the value pass."""
    assert opened.matching([one]).tolist() == expected


@pytest.mark.parametrize("texts", [[], ["label!=cat"], ["width>=40"], ["attributes.price>=9"]])
def test_ids_can_be_read_in_steps(opened: Searcher, texts: list[str]) -> None:
    """Each step goes on behind the last id, until none is left: together they are all of them."""
    filters, read = parse_filters(texts), list[int]()
    while step := opened.scroll(after=read[-1] if read else -1, limit=2, filters=filters):
        assert len(step) <= 2
        read += step
    assert read == matching(opened, *texts)


def test_a_filter_asked_again_is_not_looked_up_again(
    opened: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog never changes; of several filters those asked last are kept."""
    first = opened.matching(parse_filters(["camera=LG G6"]))

    def fail(*_given: object) -> None:
        raise AssertionError

    monkeypatch.setattr(index.catalog_reader, "live_ids", fail)
    assert opened.matching(parse_filters(["camera=LG G6"])).tolist() == first.tolist() == [DEEP3]
    with pytest.raises(AssertionError):
        opened.matching(parse_filters(["camera=LG G5"]))
    monkeypatch.undo()
    for number in range(5):
        opened.matching(parse_filters([f"width={number}"]))
    assert matching(opened, "camera=LG G6") == [DEEP3]


def test_the_catalogs_answer_is_nobodys_to_change(root: Path) -> None:
    """It is kept for others."""
    with closing(open_catalog_file(root / "catalogs" / "000001.sqlite")) as reader:
        found = reader.matching(())
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 7


def test_what_is_known_of_contents(opened: Searcher) -> None:
    """Hash, size, camera and time beside the entry; what no live photo shows is left out."""
    (first, second) = opened.contents([B2, 10**6, A0, -1])
    assert (first.id, first.uri, first.width, first.height) == (A0, "a/0.png", 16, 16)
    assert first.metadata["paths"] == ["a/0.png", "tree/a/0.png"]
    assert first.sha256 == hashlib.sha256(photo_bytes(0)).hexdigest()
    assert (first.bytes, first.camera, first.taken_at) == (len(photo_bytes(0)), None, None)
    assert (second.id, second.format, second.camera) == (B2, "PNG", "Canon EOS 5D")
    assert second.taken_at == "2019-07-31T23:59:59"


def test_python_and_text_say_the_same() -> None:
    """A filter is a frozen value."""
    assert parse_filters(['label="a,b", width >= 1e3', "folder=x*"]) == (
        Filter("label", "=", "a,b"),
        Filter("width", ">=", 1000.0),
        Filter("folder", "=", "x", is_prefix=True),
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("labl=cat", "did you mean label"),
        ("label", "write COLUMN=VALUE"),
        ("", "write COLUMN=VALUE"),
        ("label=a,b", "double quotes"),
        ('label="a', "no JSON string"),
        ("label<b", "takes = or !="),
        ("width=wide", "is a number"),
        ("width=nan", "is a number"),
        ("taken_at=31.7.2019", "write a time as"),
        ("attributes.=1", "belongs behind attributes."),
        ("attributes.a<x*", "takes = or !="),
        ("sha256=1", "no such column"),
    ],
)
def test_what_cannot_be_asked_is_named(text: str, word: str) -> None:
    """The message says what was written and what may be."""
    with pytest.raises(IndexFolderError, match=word):
        parse_filters([text])


@pytest.mark.parametrize(
    "one",
    [
        Filter("label", "~", "x"),
        Filter("nothing", "=", "x"),
        Filter("width", "=", float("inf")),
        Filter("width", "in", (1, "wide")),
        Filter("width", "=", (1, 2)),
        Filter("width", "in", ()),
    ],
)
def test_a_filter_made_in_python_is_checked_too(opened: Searcher, one: Filter) -> None:
    """Whoever made it."""
    with pytest.raises(IndexFolderError, match=one.column):
        opened.matching([one])


@settings(max_examples=60, deadline=None)
@given(value=st.text(min_size=1, max_size=8), operator=st.sampled_from(["=", "!="]))
def test_a_quoted_value_means_itself(value: str, operator: str) -> None:
    """Whatever characters it has."""
    text = f"label{operator}{json.dumps(value)}"
    assert parse_filters([f"{text},width>1"])[0] == Filter("label", operator, value)


def test_a_beginning_ends_at_any_character(tmp_path: Path) -> None:
    """The last one before the surrogates, and the last one there is."""
    names = ["\ud7ff1", "\U0010ffff2", "\ue0003", "z4"]
    for seed, name in enumerate(names):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.png").write_bytes(photo_bytes(seed))
    build(tmp_path / "photos", tmp_path / "index")
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        found = {name: matching(searcher, f"label={name[0]}*") for name in names}
    assert found == {"z4": [0], "\ud7ff1": [1], "\ue0003": [2], "\U0010ffff2": [3]}


def as_before_filters(path: Path) -> None:
    """Take from a catalog what older ones do not have."""
    with closing(sqlite3.connect(path)) as database:
        for (name,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall():
            database.execute(f"DROP INDEX {name}")
        database.execute("ALTER TABLE photo DROP COLUMN label")
        database.execute("ALTER TABLE content DROP COLUMN taken_at")
        database.execute("ALTER TABLE content DROP COLUMN camera")


def test_an_older_folder_is_searched_and_updated(tmp_path: Path) -> None:
    """Only filters on what it lacks are refused, until a build adds it without embedding."""
    photos = write_photos(tmp_path / "photos" / "cat", [0, 1]).parent
    old = tmp_path / "index"
    build(photos, old)
    as_before_filters(old / "build.sqlite")
    (old / "catalogs" / "000001.sqlite").unlink()
    shutil.copyfile(old / "build.sqlite", tmp_path / "old.sqlite")
    with closing(open_catalog_file(tmp_path / "old.sqlite")) as reader:
        assert [(one.id, one.camera) for one in reader.contents([0, 1])] == [(0, None), (1, None)]
        assert sorted(reader.entries([0, 1])) == [0, 1]
        assert reader.matching(parse_filters(["folder=cat", "width=16"])).tolist() == [0, 1]
        for text in ("label=cat", "taken_at>2019", "camera=x"):
            with pytest.raises(IndexFolderError, match=r"before photos had .*; run index\.build"):
                reader.matching(parse_filters([text]))
    embedder = StubEmbedder()
    assert build(photos, old, embedder).is_new_generation
    assert embedder.num_embedded == 0
    with closing(Searcher.open(old)) as searcher:
        assert matching(searcher, "label=cat") == [0, 1]


def test_a_vanished_photo_meets_no_condition(tmp_path: Path) -> None:
    """Filters are asked of live photos."""
    photos = write_photos(tmp_path / "photos" / "cat", [0, 1]).parent
    build(photos, tmp_path / "index")
    (photos / "cat" / "0000.png").unlink()
    build(photos, tmp_path / "index")
    with closing(Searcher.open(tmp_path / "index")) as searcher:
        assert matching(searcher, "label=cat") == matching(searcher, "width=16") == [1]
