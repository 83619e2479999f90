"""Photos in tar shards: classes, the index of offsets, and shards that are not whole."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from trainer_fixtures import draw_small

from multigrain.photo import PhotoError
from multigrain.photo_list import PhotoListError
from trainer.inputs.labels import LabelsError, read_photos
from trainer.inputs.tar_shards import TarError, read_tar


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], *, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def shade(image: Image.Image) -> int:
    value = image.resize((1, 1)).getpixel((0, 0))
    assert isinstance(value, tuple)
    return int(value[0])


def test_the_first_folder_of_a_member_is_its_class(tmp_path: Path) -> None:
    """Hidden files and what is no photo are left out; photos are the ones that were put in."""
    folder = draw_small(tmp_path / "photos", num_classes=2, instances=1, photos=2)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(folder, arcname=".")
    write_tar(
        tmp_path / "all.tar",
        {"./01-cup/notes.txt": b"no", "./01-cup/._x.jpg": b"no"},
        mode="a",
    )
    plain = read_photos([folder], say=pytest.fail)
    photos = read_photos([tmp_path / "all.tar"], say=lambda _: None)
    assert sorted(photos.names) == list(plain.names)
    assert photos.class_names == plain.class_names
    for number, name in enumerate(photos.names):
        other = plain.names.index(name)
        assert photos.labels[number] == plain.labels[other]
        assert photos.image(number, min_side=9) == plain.image(other, min_side=9)


def test_a_cls_member_names_the_class_of_its_photo(tmp_path: Path) -> None:
    """In any order within a shard; equal names in two shards stay two photos."""
    for number in range(2):
        write_tar(
            tmp_path / "shards" / f"{number}.tar",
            {
                "x.cls": b"10\n",
                "x.jpg": jpeg(50 + 100 * number),
                "y.seg.png.jpg": jpeg(200),
                "y.cls": b"9",
            },
        )
    photos = read_photos([tmp_path / "shards"], say=lambda _: None)
    assert photos.names == ("0.tar/x.jpg", "0.tar/y.seg.png.jpg", "1.tar/x.jpg",
                            "1.tar/y.seg.png.jpg")  # fmt: skip
    assert photos.class_names == ("9", "10")
    assert photos.labels == (1, 0, 1, 0)
    shades = [shade(photos.image(number, min_side=8)) for number in range(4)]
    assert shades == pytest.approx([50, 200, 150, 200], abs=2)


def test_members_are_photos_by_their_first_bytes_and_links_are_followed(tmp_path: Path) -> None:
    """As in folders; of two members of one name the last counts, and the rest is counted."""
    avif = b"\0\0\0\x20ftypavif" + bytes(20)
    shard = write_tar(
        tmp_path / "s.tar",
        {"a/x": jpeg(50), "a/y.avif": avif, "b/z.jpg": jpeg(90), "b/n.json": b"{}", "short": b"x"},
    )
    with tarfile.open(shard, "a") as tar:
        for name, target in (("b/hard.jpg", "./b/z.jpg"), ("b/lost.jpg", "nowhere")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            tar.addfile(link)
    write_tar(shard, {"b/z.jpg": jpeg(200)}, mode="a")
    said: list[str] = []
    photos = read_photos([shard], say=said.append)
    assert photos.names == ("a/x", "a/y.avif", "b/hard.jpg", "b/z.jpg")
    assert photos.class_names == ("a", "b")
    shades = [shade(photos.image(number, min_side=8)) for number in (0, 2, 3)]
    assert shades == pytest.approx([50, 90, 200], abs=2)
    assert said[0].endswith("indexed now, 4 members are no photos or of an older state")


def test_photos_beside_shards_are_refused(tmp_path: Path) -> None:
    """They would be left out without a word."""
    write_tar(tmp_path / "s.tar", {"x.jpg": jpeg(50)})
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "y.jpg").write_bytes(jpeg(60))
    with pytest.raises(LabelsError, match=r"holds tar shards \(s\.tar\) and photos .*more/y\.jpg"):
        read_photos([tmp_path], say=pytest.fail)


def test_an_index_is_made_once_for_each_shard_and_anew_when_it_changes(tmp_path: Path) -> None:
    """A second shard of the same name in another folder has an index of its own."""
    first = write_tar(tmp_path / "a" / "s.tar", {"x.jpg": jpeg(50)})
    second = write_tar(tmp_path / "b" / "s.tar", {"y.jpg": jpeg(90)})

    def said(path: Path) -> str:
        lines: list[str] = []
        read_tar(path, say=lines.append)
        return lines[0].split(", ")[1]

    assert said(first) == said(second) == "1 of them indexed now"
    assert said(first) == said(second) == "0 of them indexed now"
    write_tar(first, {"x.jpg": jpeg(50), "z.jpg": jpeg(60)})
    assert said(first) == "1 of them indexed now"
    assert read_tar(first, say=lambda _: None).names == ("x.jpg", "z.jpg")
    for index in (tmp_path / "cache" / "multigrain" / "tar").iterdir():
        index.write_text("{damaged")
    assert said(second) == "1 of them indexed now"


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    """The shards are read all the same, and it is said."""
    shard = write_tar(tmp_path / "s.tar", {"x.jpg": jpeg(50)})
    (tmp_path / "file").write_text("no folder")
    lines: list[str] = []
    assert read_tar(shard, say=lines.append, cache_dir=tmp_path / "file").names == ("x.jpg",)
    assert "the next run indexes the shards again" in lines[1]


def test_a_shard_that_is_cut_or_compressed_is_refused(tmp_path: Path) -> None:
    """By name, with what to do; one cut after it was indexed gives unreadable photos."""
    compressed = write_tar(tmp_path / "c.tar", {"x.jpg": jpeg(50)}, mode="w:gz")
    with pytest.raises(TarError, match=r"c\.tar: cannot be read .* must be unpacked"):
        read_photos([compressed], say=pytest.fail)
    cut = write_tar(tmp_path / "cut.tar", {"x.jpg": jpeg(50), "y.jpg": jpeg(60)})
    photos = read_photos([cut], say=lambda _: None)
    os.truncate(cut, 1200)
    with pytest.raises(PhotoError, match=r"cut\.tar ends within 'y\.jpg'"):
        photos.image(1, min_side=8)
    os.truncate(cut, 700)
    with pytest.raises(TarError, match="ends within"):
        read_photos([cut], say=pytest.fail)
    empty = write_tar(tmp_path / "empty.tar", {"x.txt": b"no photo"})
    with pytest.raises(PhotoListError, match="no photos in"):
        read_photos([empty], say=pytest.fail)
