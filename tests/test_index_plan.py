"""What a build says beforehand: --plan, the line before embedding, memory, uneven lists."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import (
    build,
    random_units,
    touch_later,
    write_photos,
    write_vectors,
)
from numpy.typing import NDArray
from stub_embedder import DIM, StubEmbedder, VectorEmbedder

import index.codebook.footprint
from index.build import main as build_main
from index.changes.addition import add_photos
from index.codebook.footprint import MemoryCheck, building_bytes, footprint
from index.codebook.memory import PeakMemory, anonymous_bytes
from index.current import current_manifest
from index.embedding.footprint import embedding_bytes
from index.errors import IndexFolderError
from index.layout import Layout
from index.plan import Plan, plan_build
from index.rates import embed_rate
from index.stages import Stage
from multigrain.prepared import Prepared
from multigrain.transforms import Preprocessing


def plan(photos: Path, out: Path, embedder: StubEmbedder | None = None, **options: object) -> Plan:
    arguments = {"shard_rows": 10**6} | options
    return plan_build([photos], out, embedder or StubEmbedder(), **arguments)


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, size and time of each file and folder."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("num_rows", [0, 1, 623, 624])
def test_a_plan_names_the_string_a_build_takes_and_makes_nothing(
    tmp_path: Path, num_rows: int
) -> None:
    """Also at the smallest sizes, and the line before a build says the same."""
    photos = write_vectors(tmp_path / "photos", random_units(max(num_rows, 1))[:num_rows])
    expected = plan(photos, tmp_path / "index", VectorEmbedder())
    assert not (tmp_path / "index").exists()
    assert expected.photos == (num_rows, num_rows, 0)
    lines = list[str]()
    report = build(photos, tmp_path / "index", VectorEmbedder(), announce=lines.append)
    assert report.factory == expected.factory
    (line,) = lines
    assert f"at most {num_rows} rows, factory {report.factory}: memory for serving" in line


def test_planned_bytes_are_those_of_the_build(tmp_path: Path) -> None:
    """Store to the byte; lists and codebook but for their headers."""
    photos = write_vectors(tmp_path / "photos", random_units(2000))
    parts = plan(photos, tmp_path / "index", VectorEmbedder(), shard_rows=1500).parts
    build(photos, tmp_path / "index", VectorEmbedder(), shard_rows=1500)

    def size(pattern: str) -> int:
        return sum(path.stat().st_size for path in (tmp_path / "index").glob(pattern))

    assert parts.store == size("shards/*/emb.f16") == 2000 * DIM * 2
    assert parts.lists == pytest.approx(size("shards/*/ivf.faiss"), rel=0.02)
    assert parts.disk == parts.store + parts.lists + parts.codebook + parts.catalog


def test_a_plan_of_an_update_counts_what_differs(tmp_path: Path) -> None:
    """New, changed and gone photos; nothing below the folder is touched."""
    photos = write_photos(tmp_path / "photos", range(10))
    (photos / "bad.png").write_bytes(b"no photo")
    other = write_photos(tmp_path / "other", range(50, 53))
    build([photos, other], tmp_path / "index")
    assert plan(photos, tmp_path / "index").photos == (11, 0, 0)
    write_photos(photos, [20, 21])
    (photos / "0003.png").unlink()
    touch_later(photos / "0004.png")
    before = everything_below(tmp_path)
    expected = plan(photos, tmp_path / "index")
    assert expected.photos == (12, 3, 2)
    assert expected.num_rows == 13 + 3
    assert everything_below(tmp_path) == before
    assert "photos 12, new 3, gone 2" in expected.text()


def test_a_plan_measures_the_machine_or_says_it_cannot(tmp_path: Path) -> None:
    """A collection without a readable photo has no rate."""
    photos = write_photos(tmp_path / "photos", range(4))
    expected = plan(photos, tmp_path / "index", factory="IVF1,SQ8")
    assert expected.embed_seconds is not None
    assert 0 < expected.embed_seconds < 60
    assert 0 < expected.train_seconds < 60
    assert 0 < expected.encode_seconds < 60
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no photo")
    assert plan(tmp_path / "texts", tmp_path / "index").embed_seconds is None
    assert "embed unknown" in plan(tmp_path / "texts", tmp_path / "index").text()


def test_the_rate_of_embedding_counts_decoding_once_a_thread(tmp_path: Path) -> None:
    """By a clock that moves one second a look: one for reading, one for the model."""
    photos = sorted(write_photos(tmp_path / "photos", range(4)).iterdir())
    ticks = iter(range(100))
    rate = embed_rate(StubEmbedder(), photos, num_threads=2, clock=lambda: next(ticks))
    assert rate == pytest.approx(4 / (0.5 + 1))


def test_a_plan_refuses_what_a_build_refuses(tmp_path: Path) -> None:
    """Too little memory, another checkpoint, a lost catalog."""
    photos = write_photos(tmp_path / "photos", range(4))
    with pytest.raises(IndexFolderError, match="Flat takes the least"):
        plan(photos, tmp_path / "index", ram=10)
    build(photos, tmp_path / "index")
    with pytest.raises(IndexFolderError, match="give a new --out"):
        plan(photos, tmp_path / "index", StubEmbedder("0" * 64))
    next((tmp_path / "index" / "catalogs").iterdir()).unlink()
    with pytest.raises(IndexFolderError, match=r"000001\.sqlite: cannot be read"):
        plan(photos, tmp_path / "index")


def test_the_plan_from_the_shell(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photos, string, bytes, memory and time; no folder is made."""
    photos = write_photos(tmp_path / "photos", range(3))
    flags = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint)]
    flags += ["--out", str(tmp_path / "index")]
    assert build_main([*flags, "--plan", "--ram", "1GiB"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "photos 3, new 3, gone 0"
    assert said[1].endswith("factory Flat")
    assert [line.split()[0] for line in said[2:]] == ["disk", "memory:", "time:", "nothing"]
    assert not (tmp_path / "index").exists()
    assert build_main([*flags, "--plan", "--ram", "1"]) == 2


def test_memory_that_was_taken_is_compared_with_what_was_expected(
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a difference above a fifth is said."""
    assert not MemoryCheck(expected=100, peak=120).is_outside
    assert MemoryCheck(expected=100, peak=121).is_outside
    assert MemoryCheck(expected=100, peak=79).is_outside
    photos = write_photos(tmp_path / "photos", range(3))
    flags = ["--photos", str(photos), "--checkpoint", str(tiny_checkpoint), "--out"]
    assert build_main([*flags, str(tmp_path / "one")]) == 0
    captured = capsys.readouterr()
    assert "index.build: at most 3 rows, factory Flat: memory for serving" in captured.err
    assert "taken by this process" not in captured.out
    monkeypatch.setattr(index.codebook.footprint, "_TOLERANCE", -1.0)
    assert build_main([*flags, str(tmp_path / "two")]) == 0
    assert "taken by this process" in capsys.readouterr().out


class HungryEmbedder(StubEmbedder):
    """Holds 8 MB a photo, where its preprocessing says 150 KB, from the eightieth on."""

    num_read = 0

    def read(self, source: bytes | Path) -> Prepared:
        """Decode, with much behind it."""
        prepared = super().read(source)
        self.num_read += 1
        pixels = np.ones(8 * 2**20 if self.num_read > 80 else 192, np.uint8)
        pixels[:192] = prepared.pixels.reshape(-1)
        return prepared._replace(pixels=pixels)

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Embed what stands in front."""
        return super().embed_pixels([one[:192].reshape(8, 8, 3) for one in pixels], batch_size)


def test_photos_that_wait_are_memory_that_was_taken(tmp_path: Path) -> None:
    """Embedding is watched too, against what it was expected to hold."""
    photos = write_photos(tmp_path / "photos", range(120))
    report = build(photos, tmp_path / "index", HungryEmbedder(), last=Stage.EMBED)
    assert report.memory is not None
    assert report.memory.peak - report.memory.expected > 100e6


def test_the_memory_of_embedding_is_bounded() -> None:
    """It grows with photos to a bound, and by bytes with what is known."""
    options = {"num_known": 0, "batch_size": 64, "num_threads": 16}
    preprocessing = Preprocessing(size=224, rule="crop")
    sizes = [
        embedding_bytes(preprocessing, num_photos=num_photos, **options)
        for num_photos in (0, 1, 1000, 10**6, 10**9)
    ]
    assert sizes[0] == 0 < sizes[1] < sizes[2] < sizes[3] == sizes[4]
    # 608 that wait, 16 as they are decoded, and 65,536 outcomes that are not durable yet.
    assert sizes[4] == (608 + 16 * 9) * 224 * 224 * 3 + 65_536 * 700


def test_the_peak_is_the_most_that_was_seen(tmp_path: Path) -> None:
    """A system that does not say gives none."""
    status = tmp_path / "status"
    status.write_text("VmRSS:\t 9 kB\nRssAnon:\t     100 kB\n")
    with PeakMemory(status, every_seconds=0.001) as memory:
        status.write_text("RssAnon:\t     300 kB\n")
        while memory.peak != 300 * 1024:
            pass
        status.write_text("RssAnon:\t     200 kB\n")
    assert (memory.start, memory.peak) == (100 * 1024, 300 * 1024)
    with PeakMemory(tmp_path / "none") as memory:
        pass
    assert (memory.start, memory.peak, anonymous_bytes(tmp_path / "none")) == (None, None, None)


def test_a_million_rows_are_built_within_three_gibibytes() -> None:
    """The sample stays fp16, and a shard's lists do not grow by doubling."""
    options = {"num_rows": 10**6, "dim": 512}
    building = building_bytes("IVF16384,SQ8", shard_rows=10**6, **options)
    served = footprint("IVF16384,SQ8", num_shards=1, **options).serving
    assert served < building < 2 * 2**30
    assert building_bytes("IVF16384,SQ8", shard_rows=10**5, **options) <= building + 2**30


def test_photos_unlike_those_of_training_cost_a_warning_with_both_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half the rows of another distribution fall into few lists."""
    rows = random_units(400, seed=1)
    photos = write_vectors(tmp_path / "photos", rows)
    options = {"factory": "IVF16,SQfp16"}
    with caplog.at_level(logging.WARNING):
        build(photos, tmp_path / "index", VectorEmbedder(), **options)
        more = write_vectors(tmp_path / "more", random_units(40, seed=2))
        build([photos, more], tmp_path / "index", VectorEmbedder(), **options)
    assert "uneven" not in caplog.text
    near = rows[0] + 0.05 * np.random.default_rng(3).normal(size=(400, DIM))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    other = write_vectors(tmp_path / "other", near)
    with caplog.at_level(logging.WARNING):
        build([photos, other], tmp_path / "index", VectorEmbedder(), **options)
    trained = json.loads(next(tmp_path.glob("index/codebooks/*/train.json")).read_bytes())
    (message,) = [one.getMessage() for one in caplog.records if "uneven" in one.getMessage()]
    assert f"{trained['imbalance']:.2f} when codebook" in message
    now = float(message.split("imbalance ")[1].split(",")[0])
    assert now > 1.5 * trained["imbalance"]


def test_a_build_given_nothing_keeps_the_string_an_earlier_one_was_given(tmp_path: Path) -> None:
    """It says so, trains nothing, and a plan expects the same; until the table has more lists."""
    photos = write_vectors(tmp_path / "photos", rows := random_units(700))
    for number in range(600, 700):
        (photos / f"{number:06d}").unlink()
    out, lines = tmp_path / "index", list[str]()
    build(photos, out, VectorEmbedder(), factory="IVF4,SQ8")
    first = current_manifest(Layout(out))
    assert first is not None
    assert first.asked.factory == "IVF4,SQ8"
    for number in range(600, 610):
        (photos / f"{number:06d}").write_bytes(rows[number].tobytes() + str(number).encode())
    assert plan(photos, out, VectorEmbedder()).factory == "IVF4,SQ8"
    report = build(photos, out, VectorEmbedder(), announce=lines.append)
    second = current_manifest(Layout(out))
    assert second is not None
    assert (report.num_live, report.factory, second.codebook) == (610, "IVF4,SQ8", first.codebook)
    assert second.asked == first.asked
    assert "IVF4,SQ8, by --factory IVF4,SQ8 of an earlier build" in lines[-1]
    write_vectors(photos, rows)
    assert plan(photos, out, VectorEmbedder()).factory == "IVF16,SQfp16"
    assert build(photos, out, VectorEmbedder(), announce=lines.append).factory == "IVF16,SQfp16"
    assert "outgrown --factory IVF4,SQ8: IVF16,SQfp16 is taken" in lines[-1]
    lines.clear()
    assert not build(photos, out, VectorEmbedder(), announce=lines.append).is_new_generation
    assert "IVF4" not in "".join(lines)


def test_a_build_given_nothing_keeps_to_the_memory_an_earlier_one_was_given(tmp_path: Path) -> None:
    """What does not fit it is refused, until another is given; adding by hand keeps it too."""
    photos, out = write_photos(tmp_path / "photos", range(10)), tmp_path / "index"
    lines, ram = list[str](), 1000
    build(photos, out, ram=ram)
    write_photos(photos, [10])
    build(photos, out, announce=lines.append)
    assert "Flat, by --ram 1.0 KB of an earlier build" in lines[-1]
    add_photos(out, [write_photos(tmp_path / "more", [11]) / "0011.png"], StubEmbedder())
    write_photos(photos, range(12, 40))
    with pytest.raises(IndexFolderError, match=r"--ram 1000 .* too little"):
        build(photos, out)
    assert build(photos, out, ram=10**6).num_live == 40
    manifest = current_manifest(Layout(out))
    assert manifest is not None
    assert (manifest.asked.ram, manifest.asked.factory) == (10**6, None)
