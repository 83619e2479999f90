"""Lists of photos, CSV and JSONL alike."""

from pathlib import Path

import pytest

from multigrain.photo_list import ListedPhoto, PhotoListError, is_photo_list, read_photo_list


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'path,label\n"Rome, 2019.jpg",cat\nb.jpg,dog\n'),
        ("a.csv", '\ufeffpath,label\r\n"Rome, 2019.jpg",cat\r\nb.jpg,dog\r\n'),
        (
            "a.JSONL",
            '{"path": "Rome, 2019.jpg", "label": "cat"}\n\n{"path": "b.jpg", "label": "dog"}',
        ),
    ],
)
def test_rows_have_a_path_and_attributes(tmp_path: Path, name: str, text: str) -> None:
    """Commas in names, a byte order mark and empty lines are read as meant."""
    (tmp_path / name).write_text(text)
    assert is_photo_list(tmp_path / name)
    assert list(read_photo_list(tmp_path / name)) == [
        ListedPhoto("Rome, 2019.jpg", {"label": "cat"}),
        ListedPhoto("b.jpg", {"label": "dog"}),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"file\nx.jpg\n", "row 1: no `path`"),
        ("a.csv", b"path,b\nx.jpg,1\n,2\n", "row 2: no `path`"),
        ("a.csv", b'path\n"x', "cannot be read as a list"),
        ("a.csv", b"path\n\xff\n", "cannot be read as a list"),
        ("a.jsonl", b'{"path": 3}', "row 1: no `path`"),
        ("a.jsonl", b'{"path": "\\ud800"}', "not UTF-8"),
        ("a.jsonl", b'{"path": "x"}\n[]', "row 2: not a JSON object"),
        ("a.jsonl", b"path", "row 1: not JSON"),
        ("a.csv", b"path,b\nx.jpg,1,2\n", "row 1: more columns"),
        ("a.jsonl", b'{"path": "a\\u0000b"}', "row 1: no `path`"),
        ("a.jsonl", b'{"path": "x", "title": "\\ud800"}', "row 1: not JSON as all read it"),
        ("a.jsonl", b'{"path": "x", "n": NaN}', "row 1: not JSON as all read it"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    """File, row and fault are in the message."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PhotoListError, match=message):
        list(read_photo_list(tmp_path / name))


def test_other_files_are_no_lists() -> None:
    """Only .csv and .jsonl are lists."""
    assert not is_photo_list(Path("photo.jpg"))
