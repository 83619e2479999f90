"""The cache of resized photos: what it holds, going on after a stop, and damage."""

import json
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainer_fixtures import draw_flat, draw_small

from multigrain.photo import PhotoError
from trainer.inputs import cache_builder
from trainer.inputs.cache_builder import CacheSettings, build_cache, shrunk
from trainer.inputs.cache_reader import CacheError
from trainer.inputs.labels import read_joined, read_photos
from trainer.inputs.photo_set import PhotoSet

JPEG = CacheSettings("jpeg", 32, 90)
RAW = CacheSettings("raw", 32, 90)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_builder, "PHOTOS_PER_PART", 5)


def build(source: Path, out: Path, settings: CacheSettings = JPEG) -> list[str]:
    said: list[str] = []
    build_cache(
        read_joined([source], say=pytest.fail), out, settings, num_threads=2, say=said.append
    )
    return said


@pytest.mark.parametrize("settings", [JPEG, RAW])
def test_a_cache_holds_the_same_photos_and_classes_but_smaller(
    tmp_path: Path, settings: CacheSettings
) -> None:
    """Raw pixels are those of the resized photo to the bit, JPEG nearly; a copy pickles."""
    folder = draw_small(tmp_path / "photos", num_classes=2)
    build(folder, tmp_path / "cache", settings)
    plain = read_photos([folder], say=pytest.fail)
    cached = read_photos([tmp_path / "cache"], say=pytest.fail)
    assert cached.digest() == plain.digest()
    sent: PhotoSet = pickle.loads(pickle.dumps(cached))  # noqa: S301 - our own
    for number in range(len(plain.names)):
        wanted = shrunk(plain.image(number, min_side=32), 32)
        assert min(wanted.size) == 32
        got = cached.image(number, min_side=999)
        assert got.mode == "RGB"
        assert got == sent.image(number, min_side=999)
        off = np.abs(np.asarray(got, float) - np.asarray(wanted, float))
        assert off.mean() < 10
        assert settings.kind == "jpeg" or off.max() == 0


def test_groups_and_splits_travel_with_the_photos(tmp_path: Path) -> None:
    """Of a manifest, to whoever reads the cache."""
    draw_flat(tmp_path / "flat", num_photos=3)
    rows = [
        {"path": f"flat/photo-00{n}.jpg", "label": n, "split": "train", "group": f"g{n}"}
        for n in range(3)
    ]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build(tmp_path / "l.jsonl", tmp_path / "cache")
    joined = read_joined([tmp_path / "cache"], say=pytest.fail)
    assert joined.splits == ("train",) * 3
    assert joined.photos.groups == ("g0", "g1", "g2")
    assert joined.photos.class_names == ("0", "1", "2")


def test_small_photos_are_not_enlarged() -> None:
    """Nor are large ones bent."""
    assert shrunk(Image.new("RGB", (20, 10)), 32).size == (20, 10)
    assert shrunk(Image.new("RGB", (400, 100)), 32).size == (128, 32)
    assert shrunk(Image.new("RGB", (33, 3000)), 32).size == (32, 2909)


def test_unreadable_photos_are_left_out_and_listed(tmp_path: Path) -> None:
    """By name, with the reason, and their number is said."""
    folder = draw_flat(tmp_path / "flat", num_photos=12)
    (folder / "photo-003.jpg").write_bytes(b"no photo")
    said = build(folder, tmp_path / "cache")
    assert said[-1].startswith("1 photos cannot be read")
    listed = (tmp_path / "cache" / "bad_images.txt").read_text()
    assert listed.startswith("photo-003.jpg\timage_undecodable")
    names = read_photos([tmp_path / "cache"], say=pytest.fail).names
    assert len(names) == 11
    assert "photo-003.jpg" not in names


def test_what_changed_at_the_source_is_written_again(tmp_path: Path) -> None:
    """A photo, a repaired one, or its split; the parts of the others stay."""
    folder, out = draw_flat(tmp_path / "flat", num_photos=12), tmp_path / "cache"
    (folder / "photo-011.jpg").write_bytes(b"no photo")
    rows = [{"path": f"flat/photo-{n:03d}.jpg", "split": "train", "group": None} for n in range(12)]
    manifest = tmp_path / "l.jsonl"

    def written() -> str:
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return build(manifest, out)[0].split(", ")[1]

    assert written() == "3 of them written now"
    assert written() == "0 of them written now"
    (folder / "photo-011.jpg").write_bytes((folder / "photo-001.jpg").read_bytes())
    Image.new("RGB", (40, 40), (250, 0, 0)).save(folder / "photo-000.jpg")
    assert written() == "2 of them written now"
    rows[6]["split"] = "val"
    assert written() == "1 of them written now"
    joined = read_joined([out], say=pytest.fail)
    assert joined.splits[5:8] == ("train", "val", "train")
    assert np.asarray(joined.photos.image(0, min_side=8), float)[0, 0] == pytest.approx(
        [250, 0, 0], abs=3
    )
    assert len(joined.photos.names) == 12
    assert (out / "bad_images.txt").read_text() == ""


def test_a_photo_that_can_be_read_again_comes_in_though_its_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a disk that failed for a while."""
    folder, out = draw_flat(tmp_path / "flat", num_photos=3), tmp_path / "cache"
    image = PhotoSet.image

    def failing(photos: PhotoSet, photo_id: int, *, min_side: int) -> Image.Image:
        if photo_id == 1:
            raise PhotoError("photo_unreadable", "the disk is away")
        return image(photos, photo_id, min_side=min_side)

    with monkeypatch.context() as patch:
        patch.setattr(PhotoSet, "image", failing)
        build(folder, out)
    assert len(read_photos([out], say=pytest.fail).names) == 2
    build(folder, out)
    assert len(read_photos([out], say=pytest.fail).names) == 3


def _build_and_die(folder: Path, out: Path) -> None:
    """Build until the fourth part is begun."""
    write = cache_builder._write_part

    def write_or_die(file: Path, *arguments: Any, **named: Any) -> None:
        if file.name == "part-00003.bin":
            file.write_bytes(b"half a part")
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, *arguments, **named)

    try:
        cache_builder._write_part = write_or_die
        build(folder, out)
    finally:
        os._exit(1)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_killed_build_goes_on_and_its_finished_parts_stay(tmp_path: Path) -> None:
    """Killed by the hardest signal within a part; meanwhile the cache says it is unfinished."""
    folder = draw_small(tmp_path / "photos", num_classes=3, instances=5)
    out = tmp_path / "cache"
    child = os.fork()  # a new interpreter would take longer than all the rest
    if child == 0:
        _build_and_die(folder, out)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    finished = {file: file.stat().st_ino for file in out.glob("part-0000[012].*")}
    with pytest.raises(CacheError, match=r"unfinished: run trainer\.cache again"):
        read_photos([out], say=pytest.fail)
    build(folder, out)
    assert {file: file.stat().st_ino for file in finished} == finished
    assert len(finished) == 6
    cached = read_photos([out], say=pytest.fail)
    assert cached.digest() == read_photos([folder], say=pytest.fail).digest()


def test_another_size_or_other_photos_do_not_go_into_a_cache(tmp_path: Path) -> None:
    """Nor does a cache go into a folder that holds something else."""
    folder, out = draw_flat(tmp_path / "flat", num_photos=3), tmp_path / "cache"
    build(folder, out)
    with pytest.raises(CacheError, match="holds a cache of side 32, not 48"):
        build(folder, out, JPEG._replace(side=48))
    (folder / "photo-000.jpg").unlink()
    with pytest.raises(CacheError, match="holds a cache of other photos"):
        build(folder, out)
    with pytest.raises(CacheError, match="is not empty and is no cache"):
        build(folder, folder)


def test_an_index_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """At once, not by a loading thread."""
    out = tmp_path / "cache"
    build(draw_flat(tmp_path / "flat", num_photos=3), out, RAW)
    file = out / "part-00000.json"
    part = json.loads(file.read_text())
    part["photos"][0][6] += 1
    file.write_text(json.dumps(part))
    with pytest.raises(CacheError, match="it repairs the part"):
        read_photos([out], say=pytest.fail)
    whole = json.loads((out / "cache.json").read_text())
    for key, value in (("num_parts", "1"), ("kind", "tiff"), ("class_names", 3), ("side", None)):
        for broken in (whole | {key: value}, {k: v for k, v in whole.items() if k != key}):
            (out / "cache.json").write_text(json.dumps(broken))
            with pytest.raises(CacheError, match=rf"cache\.json: {key}: .*remove it and"):
                read_photos([out], say=pytest.fail)


def test_damage_is_found_and_repaired(tmp_path: Path) -> None:
    """A cut file at once, a changed byte when its photo is read; the builder mends both."""
    folder, out = draw_flat(tmp_path / "flat", num_photos=6), tmp_path / "cache"
    build(folder, out)
    part = out / "part-00000.bin"
    content = bytearray(part.read_bytes())
    content[-200] ^= 255
    part.write_bytes(content)
    cached = read_photos([out], say=pytest.fail)
    cached.image(0, min_side=8)
    with pytest.raises(PhotoError, match=r"'photo-004\.jpg' is damaged in .*remove the file"):
        cached.image(4, min_side=8)
    part.unlink()
    with pytest.raises(CacheError, match=r"part-00000\.bin or its \.json is missing"):
        read_photos([out], say=pytest.fail)
    build(folder, out)
    os.truncate(part, 100)
    with pytest.raises(CacheError, match="it repairs the part"):
        read_photos([out], say=pytest.fail)
    build(folder, out)
    read_photos([out], say=pytest.fail).image(4, min_side=8)
    (out / "cache.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(CacheError, match="format 9, known is 1"):
        read_photos([out], say=pytest.fail)
