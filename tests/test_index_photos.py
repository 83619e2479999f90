"""Photos of every odd kind, and more of them than fit into memory."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, photo_bytes, write_photos
from PIL import Image

import index.catalog_photos
from index.catalog_journal import Journal
from index.catalog_scan import FoundPhoto
from index.steps import no_steps


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def odd_photos() -> dict[str, tuple[bytes, str | None]]:
    """Name, bytes and the code it is quarantined with; None: it is embedded."""
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256
    colour = Image.open(io.BytesIO(photo_bytes(1)))
    frames = [Image.new("RGB", (16, 16), (10 * n, 200, 30)) for n in range(3)]
    damaged = bytearray(saved(colour, "PNG"))
    damaged[60:90] = bytes(30)
    return {
        "16-bit.png": (saved(Image.fromarray(grey), "PNG"), None),
        "animated.gif": (
            saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), None,
        ),
        "cmyk.jpg": (saved(colour.convert("CMYK"), "JPEG"), None),
        "corrupt.png": (bytes(damaged), "image_undecodable"),
        "cut.jpg": (saved(colour.resize((64, 64)), "JPEG")[:300], "image_undecodable"),
        "document.jpg": (b"%PDF-1.7 and so on", "unsupported_media_type"),
        "empty.png": (b"", "empty_image"),
        "huge.png": (saved(Image.new("1", (20_001, 1)), "PNG"), "image_side_too_long"),
        "misnamed.jpg": (saved(colour, "WEBP"), None),
        "one-bit.png": (saved(Image.new("1", (9, 5), 1), "PNG"), None),
        "palette.gif": (saved(colour.convert("P"), "GIF"), None),
        "pixels.png": (saved(Image.new("1", (9000, 9000)), "PNG"), "image_too_many_pixels"),
        "transparent.png": (saved(colour.convert("RGBA"), "PNG"), None),
    }  # fmt: skip


def quarantine(out: Path) -> dict[str, str]:
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    return {Path(row["path"]).name: row["code"] for row in map(json.loads, lines)}


def test_an_odd_photo_is_embedded_or_quarantined_with_its_code(tmp_path: Path) -> None:
    """None stops the build, alone or in a batch of bad ones, and none is tried twice."""
    odd = odd_photos()
    (tmp_path / "photos").mkdir()
    for name, (data, _) in odd.items():
        (tmp_path / "photos" / name).write_bytes(data)
    report = build(tmp_path / "photos", tmp_path / "index")
    expected = {name: code for name, (_, code) in odd.items() if code}
    assert quarantine(tmp_path / "index") == expected
    assert (report.num_photos, report.num_bad) == (len(odd) - len(expected), len(expected))
    assert not build(tmp_path / "photos", tmp_path / "index").is_new_generation


def test_a_photo_that_vanishes_between_scan_and_reading_is_left_out(tmp_path: Path) -> None:
    """It is looked for again in the next build."""
    photos = write_photos(tmp_path / "photos", range(3))

    def vanish(action: str) -> None:
        if action == "scan committed":
            (photos / "0001.png").rename(tmp_path / "aside.png")

    report = build(photos, tmp_path / "index", steps=vanish)
    assert (report.num_live, report.num_bad) == (2, 1)
    assert quarantine(tmp_path / "index") == {"0001.png": "photo_missing"}
    (tmp_path / "aside.png").rename(photos / "0001.png")
    report = build(photos, tmp_path / "index")
    assert (report.num_live, report.num_bad) == (3, 0)


def found_photos(num: int) -> Iterator[FoundPhoto]:
    """A tree of files with quotes and newlines in their names, made as they are asked for."""
    for number in range(num):
        path = f"it's \"{number // 1000:03d}\"\n/{number:07d}'; --.jpg"
        yield FoundPhoto(path, 1, number, 1000 + number, 10**18 + number, label="it's")


@pytest.mark.parametrize("num_scans", [1, 2])
def test_a_scan_holds_a_batch_in_memory_not_the_tree(
    tmp_path: Path, num_scans: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one, which only writes, and the next one, which compares."""
    monkeypatch.setattr(index.catalog_photos, "_SCAN_BATCH", 1000)
    monkeypatch.setattr(index.catalog_photos, "_PENDING_PAGE", 1000)
    num_photos = 8000
    with closing(Journal(tmp_path / "build.sqlite", steps=no_steps)) as journal:
        number = journal.collection_id("/photos/", created="")
        for _ in range(num_scans - 1):
            journal.record_scan(number, found_photos(num_photos))
        tracemalloc.start()
        counts = journal.record_scan(number, found_photos(num_photos))
        num_pending = sum(1 for _ in journal.pending([number]))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert counts == (num_photos, num_photos if num_scans == 1 else 0, 0)
        assert num_pending == num_photos == journal.num_pending([number])
        assert len(journal.live_ids()) == 0
    # A batch takes 1 MB; with the whole tree in a list it is 3.2.
    assert peak < 2e6
