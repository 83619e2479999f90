"""What a build does with the memory of its device and of its machine."""

import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, durable_state, photo_bytes, write_photos
from numpy.typing import NDArray
from stub_embedder import StubEmbedder

import index.embed
from index.codebook.footprint import building_bytes
from multigrain.engine import DeviceMemoryError
from multigrain.prepared import Prepared


class FullDevice(StubEmbedder):
    """Has no memory left once it has embedded so many photos."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Embed, or be out of memory."""
        if self.num_embedded >= self._room:
            raise DeviceMemoryError("no room for a single photo")
        return super().embed_pixels(pixels, batch_size)


def test_a_device_without_memory_ends_the_build_behind_a_durable_row(tmp_path: Path) -> None:
    """No photo is blamed; the next build embeds the others alone, and ends as if nothing was."""
    photos = write_photos(tmp_path / "photos", range(80))
    build(photos, tmp_path / "whole", factory="IVF1,SQ8")
    with pytest.raises(DeviceMemoryError):
        build(photos, tmp_path / "index", FullDevice(room=64), factory="IVF1,SQ8")
    assert not (tmp_path / "index" / "CURRENT").exists()
    embedder = StubEmbedder()
    report = build(photos, tmp_path / "index", embedder, factory="IVF1,SQ8")
    assert (embedder.num_embedded, report.num_live, report.num_bad) == (16, 80, 0)
    assert durable_state(tmp_path / "index") == durable_state(tmp_path / "whole")


class PixelCounter(StubEmbedder):
    """Notes how many photos' pixels are held whenever a batch is embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.most_held = 0
        self._held = weakref.WeakSet["Tracked"]()

    def read(self, source: bytes | Path) -> Prepared:
        """Decode, and remember the pixels for as long as they live."""
        prepared = super().read(source)
        pixels = prepared.pixels.view(Tracked)
        self._held.add(pixels)
        return prepared._replace(pixels=pixels)

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Count, then embed."""
        self.most_held = max(self.most_held, len(self._held))
        return super().embed_pixels(pixels, batch_size)


class Tracked(np.ndarray):
    """An array that can be told from others, so that a set may hold it."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        """Whether it is the same object."""
        return self is other


def test_many_copies_of_new_bytes_are_held_once(tmp_path: Path) -> None:
    """A placeholder that stands at a thousand paths costs one photo's pixels."""
    photos = write_photos(tmp_path / "photos", range(3))
    for number in range(300):
        (photos / f"copy{number:03d}.png").write_bytes(photo_bytes(9))
    embedder = PixelCounter()
    report = build(photos, tmp_path / "index", embedder)
    assert (report.num_photos, report.num_live) == (303, 4)
    assert 4 <= embedder.most_held < 100


def test_photos_read_again_are_committed_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing to embed too, blocks of 8 photos end in commits."""
    monkeypatch.setattr(index.embed, "BATCHES_PER_BLOCK", 1)
    monkeypatch.setattr(index.embed, "DURABLE_ROWS", 8)
    photos, actions = write_photos(tmp_path / "photos", range(20)), list[str]()
    build(photos, tmp_path / "index")
    report = build(photos, tmp_path / "index", verify_content=True, steps=actions.append)
    assert (report.num_new, report.num_live) == (0, 20)
    assert actions.count("rows committed") == 3


def test_a_list_of_bad_photos_is_written_once(tmp_path: Path) -> None:
    """A build that finds the same ones leaves the file alone; one more is added."""
    photos, listed = tmp_path / "photos", tmp_path / "index" / "quarantine.jsonl"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.txt").write_text(f"no photo {number}")
    build(photos, tmp_path / "index")
    before = listed.stat().st_ino, len(listed.read_text().splitlines())
    report = build(photos, tmp_path / "index")
    assert report.embedded is not None
    assert sum(report.embedded.bad.values()) == 3
    assert (listed.stat().st_ino, len(listed.read_text().splitlines())) == before == (before[0], 3)
    (photos / "3.txt").write_text("no photo 3")
    build(photos, tmp_path / "index")
    assert len(listed.read_text().splitlines()) == 4


_GROWTH = """
import sys
from hashlib import sha256
from pathlib import Path
import numpy as np
from index.catalog_journal import NewContent, Outcome
from index.catalog_scan import FoundPhoto
from index.codebook.memory import PeakMemory
from index.stages import encode_shards, publish_generation, train_codebook
from index.staging import StagingWriter
from index.workshop import open_workshop
from stub_embedder import StubEmbedder

D = 64
FACTORY = "IVF256,SQ8"

class Wide(StubEmbedder):
    dim = D

def build(out, num):
    random = np.random.default_rng(0)
    with open_workshop(out, checkpoint=Path(sys.argv[1]), embedder=Wide()) as shop:
        journal, options = shop.journal, {"last": None, "next_id": 0, "dim": D, "steps": shop.steps}
        number = journal.collection_id("/photos/", created="")
        journal.record_scan(number, (FoundPhoto(f"{n:08d}", 1, n, 9, 9) for n in range(num)))
        with StagingWriter(shop.layout, shard_rows=10**6, **options) as writer:
            for start in range(0, num, 8192):
                ids = range(start, min(start + 8192, num))
                rows = random.normal(size=(len(ids), D))
                unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
                writer.append(unit.astype(np.float16))
                known = [(sha256(b"%d" % one).digest(), 9, 1, 1, "X", None, None) for one in ids]
                contents = [NewContent(one, *rest) for one, rest in zip(ids, known)]
                links = [(one + 1, one) for one in ids]
                journal.commit_outcome(Outcome(contents, links, []), writer.sync())
        codebook = train_codebook(shop, factory=FACTORY)
        encode_shards(shop, codebook)
        publish_generation(shop, codebook)

build(Path(sys.argv[2]) / "warm", 10_000)
with PeakMemory(every_seconds=0.002) as memory:
    build(Path(sys.argv[2]) / "index", int(sys.argv[3]))
print(memory.peak - memory.start)
"""


def test_the_process_takes_what_is_expected_and_no_object_a_row(tmp_path: Path) -> None:
    """RssAnon of a process that records, stages, trains, encodes and publishes."""
    num_rows = 40_000
    (tmp_path / "checkpoint").write_bytes(b"stub")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", _GROWTH, tmp_path / "checkpoint", tmp_path, str(num_rows)],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
        env=environ,
    )
    expected = building_bytes("IVF256,SQ8", num_rows=num_rows, dim=64, shard_rows=10**6)
    # Beside it, pages of the database that are held; an object of 1 KB a row would be 40 MB.
    assert int(done.stdout) < 1.2 * expected + 25e6
