"""What a build says while it embeds, and at its end."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import build, photo_bytes, write_photos
from numpy.typing import NDArray
from stub_embedder import StubEmbedder

from index.build_report import BuildReport
from index.collection.meter import Meter
from index.layout import Layout
from index.summary import summary
from multigrain.prepared import Prepared


class SlowEmbedder(StubEmbedder):
    """Takes its time to decode a photo and to embed a batch."""

    def __init__(self, *, decode: float, model: float) -> None:
        super().__init__()
        self._decode, self._model = decode, model

    def read(self, source: bytes | Path) -> Prepared:
        """Wait, then decode."""
        time.sleep(self._decode)
        return super().read(source)

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Wait, then embed."""
        time.sleep(self._model)
        return super().embed_pixels(pixels, batch_size)


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def spend(self, seconds: float) -> bytes:
        """Let time pass."""
        self.now += seconds
        return b"abc"


@pytest.mark.parametrize(
    ("opening", "decoding", "embedding", "storing", "limit"),
    [
        (1, 8, 2, 1, "decode"),
        (8, 1, 2, 1, "disk"),
        (1, 2, 8, 1, "model"),
        (1, 1, 2, 8, "disk"),
    ],
)
def test_the_end_that_waits_less_limits(
    opening: float, decoding: float, embedding: float, storing: float, limit: str
) -> None:
    """A reader and a loop side by side, for as long as the slower of the two takes."""
    clock = HandClock()
    meter = Meter(num_threads=1, clock=clock)

    def photo() -> bytes:
        data = meter.opening(clock.spend)(opening)
        clock.spend(decoding)
        return data

    meter.reading(photo)()
    clock.now = 0.0  # the loop works at the same time, and waits for the rest of it
    waiting = max(opening + decoding - embedding - storing, 0)
    assert list(meter.taking(clock.spend(one) for one in [waiting])) == [b"abc"]
    meter.embedding(clock.spend)(embedding)
    clock.spend(storing)
    assert (meter.limit(), meter.num_bytes) == (limit, 3)


@pytest.mark.parametrize(("decode", "model", "limit"), [(0.02, 0.0, "decode"), (0.0, 0.3, "model")])
def test_a_build_measures_what_limits_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    decode: float,
    model: float,
    limit: str,
) -> None:
    """Progress says it beside the rate, the photos skipped and the bad ones."""
    photos = write_photos(tmp_path / "photos", range(40))
    (photos / "copy.png").write_bytes(photo_bytes(3))
    (photos / "bad.png").write_bytes(b"no photo")
    report = build(photos, tmp_path / "index", SlowEmbedder(decode=decode, model=model))
    assert report.embedded is not None
    assert report.embedded.limit == limit
    assert report.embedded.rate == pytest.approx(42 / report.embedded.seconds)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("42/42 photos ")
    assert last.endswith(f"/s 0s left ({limit} limits), 1 known, 1 bad")


def table_of(report: BuildReport, root: Path) -> dict[str, str]:
    """The summary's lines by name."""
    lines = summary(report, Layout(root), until="publish").splitlines()
    return {line[:16].strip(): line[16:] for line in lines[:-1]}


def test_the_summary_counts_what_became_of_every_photo(tmp_path: Path) -> None:
    """New, known, unchanged, renamed, vanished and bad; then rows, times, rates, bytes."""
    photos, out = write_photos(tmp_path / "photos", range(8)), tmp_path / "index"
    build(photos, out)
    (photos / "0000.png").rename(photos / "moved.png")
    (photos / "0001.png").unlink()
    (photos / "copy.png").write_bytes(photo_bytes(2))
    write_photos(photos, [20, 21])
    (photos / "bad.png").write_bytes(b"no photo")
    (photos / "empty.png").touch()
    report = build(photos, out)
    table = table_of(report, out)
    assert {name: table[name] for name in list(table)[:7]} == {
        "photos": "10",
        "found": "12",
        "unchanged": "6",
        "renamed": "1",
        "vanished": "1",
        "new": "2",
        "known": "1",
    }
    assert table["bad"].startswith("2, ")
    assert table["bad"].endswith(f"; listed in {out / 'quarantine.jsonl'}")
    assert table["rows"] == "10 (9 live), factory Flat"
    assert table["seconds"].split(": ")[1].split()[::2] == (
        ["scan", "embed", "train", "encode", "merge", "tune", "publish"]
    )
    names = ["moved.png", "copy.png", "0020.png", "0021.png", "bad.png"]
    assert report.embedded is not None
    assert report.embedded.num_bytes == sum((photos / name).stat().st_size for name in names)
    sizes = (path.stat().st_size for path in (out / "models").iterdir())
    assert report.num_bytes > sum(sizes)
