"""The Ray engine beside the local one, on this machine: photos a second, ids and vectors.

Both build from the same JPEGs of 1 megapixel. A rate is taken from the rows of the first block to
those of the last, so that starting Ray and opening the model there do not count. What Ray reads
meanwhile does: the seconds it takes one thread, over the processors, are added. The real model is
a ResNet-50; the stub takes a stated time a photo without a processor, as a GPU's does.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.index_build import CASES, NUM_DRAWN, draw_photo, with_comment, write_checkpoint
from benchmarks.scale_stub import STUB_MS, StubEmbedder
from index.builder import BuildOptions, build_index
from index.catalog_photos import PendingPhoto
from index.collection.reading import PhotoEmbedder, ReadPhoto
from index.embedding.blocks import AnyCrew, BlockEmbedder, Claim, EmbeddedBlock, Work
from index.embedding.own_threads import OwnThreads
from index.embedding.ray_engine import RayCrew
from index.embedding.ray_model import crew_on_ray
from index.stages import Stage
from multigrain.cpus import num_cpus
from multigrain.embedder import Embedder

STUB_PHOTOS, REAL_PHOTOS = 1024, 192
_NUM_TIMED = 32
ROUNDS = 2
_TIMEOUT_SECONDS = 120.0


class Engine(NamedTuple):
    """A build's rate past its start-up in each round, and microseconds of this process a photo."""

    rates: list[float]
    own_us: list[float]


class Compared(NamedTuple):
    """The local engine and Ray's, and whether all ids and vectors are the same."""

    name: str
    local: Engine
    ray: Engine
    are_same: bool

    @property
    def ratio(self) -> float:
        """Ray's rate over the local one's, the median of rounds."""
        return median(
            ray / local for ray, local in zip(self.ray.rates, self.local.rates, strict=True)
        )

    def text(self) -> str:
        """One line for people."""
        rates = ", ".join(f"{rate:.0f}" for rate in self.local.rates)
        other = ", ".join(f"{rate:.0f}" for rate in self.ray.rates)
        return (
            f"{self.name}: photos/s past the start-up: local {rates}; Ray {other}; the build's own "
            f"process beside Ray {median(self.ray.own_us):.0f} us of a processor a photo"
        )


def measure_stub(scratch: Path, num_photos: int = STUB_PHOTOS) -> Compared:
    """Compare with a model of a stated time."""
    checkpoint = scratch / "checkpoint"
    checkpoint.write_bytes(b"a stub")
    embedder = StubEmbedder()
    crew = RayCrew(read=embedder.read, open_embedder=StubEmbedder, timeout_seconds=_TIMEOUT_SECONDS)
    name = f"{num_photos} photos, a model that waits {STUB_MS:g} ms a photo"
    photos = _write(scratch / "photos", num_photos)
    return _compared(name, photos, checkpoint, embedder=embedder, crew=crew)


def measure_real(scratch: Path, num_photos: int = REAL_PHOTOS) -> Compared:
    """Compare with a ResNet-50 of random weights."""
    checkpoint = scratch / "resnet50.safetensors"
    write_checkpoint(checkpoint)
    embedder = Embedder.open(checkpoint, device="cpu")
    crew = crew_on_ray(checkpoint, embedder, timeout_seconds=_TIMEOUT_SECONDS)
    photos = _write(scratch / "photos", num_photos)
    name = f"{num_photos} photos, ResNet-50"
    return _compared(name, photos, checkpoint, embedder=embedder, crew=crew)


def _compared(
    name: str, photos: Path, checkpoint: Path, *, embedder: PhotoEmbedder, crew: AnyCrew
) -> Compared:
    build = partial(_timed, photos, checkpoint, embedder=embedder)
    local, ray, stored = Engine([], []), Engine([], []), list[bytes]()
    for number in range(ROUNDS):
        for place, engine, helpers in (("local", local, _Local()), ("ray", ray, crew)):
            rate, own = build(out := photos.parent / f"{number}-{place}", crew=helpers)
            engine.rates.append(rate)
            engine.own_us.append(own * 1e6)
            stored.append(_stored(out))
    return Compared(name, local, ray, len(set(stored)) == 1)


def _timed(
    photos: Path, checkpoint: Path, out: Path, *, embedder: PhotoEmbedder, crew: AnyCrew
) -> tuple[float, float]:
    """Photos a second behind the first block's rows, and seconds of this process a photo."""
    watched = _Watched(crew)
    options = BuildOptions(crew=watched, last=Stage.ENCODE, factory="IVF1,SQ8")
    build_index([photos], checkpoint, out, embedder, options)
    (start, own_start), (end, own_end) = watched.first, watched.last
    ahead = watched.num_ahead * _seconds_to_read(photos, embedder) / num_cpus()
    return watched.num_photos / (end - start + ahead), (own_end - own_start) / watched.num_photos


def _seconds_to_read(photos: Path, embedder: PhotoEmbedder) -> float:
    """Seconds that one thread takes to read and decode a photo."""
    some = sorted(photos.iterdir())[:_NUM_TIMED]
    start = time.perf_counter()
    for path in some:
        embedder.read(path.read_bytes())
    return (time.perf_counter() - start) / len(some)


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class _Watched:
    """Blocks of an engine: when the first and the last had their rows, what was read before."""

    def __init__(self, crew: AnyCrew) -> None:
        self._crew = crew
        self.num_photos = self.num_ahead = 0
        self.first = self.last = (0.0, 0.0)

    @contextmanager
    def at_work(self, work: Work) -> Iterator["_WatchedBlocks"]:
        """The engine's own, watched."""
        with self._crew.at_work(work) as hands:
            yield _WatchedBlocks(self, hands)


class _WatchedBlocks:
    def __init__(self, watched: _Watched, hands: BlockEmbedder) -> None:
        self._watched, self._hands = watched, hands

    def embedded(
        self, blocks: Iterable[Sequence[PendingPhoto]], claim: Claim
    ) -> Iterator[EmbeddedBlock]:
        """The same blocks."""
        watched, num_read = self._watched, 0

        def noted(photos: Sequence[ReadPhoto]) -> list[bool]:
            nonlocal num_read
            num_read += len(photos)
            return claim(photos)

        for block in self._hands.embedded(blocks, noted):
            watched.last = _now()
            if watched.first == (0.0, 0.0):
                watched.first = watched.last
                watched.num_ahead = num_read - len(block.photos)
            else:
                watched.num_photos += len(block.photos)
            yield block

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hands, name)


class _Local:
    """The local engine: a build's own threads."""

    @contextmanager
    def at_work(self, work: Work) -> Iterator[OwnThreads]:
        """As a build without helpers has them, of an index that is new."""
        assert not len(work.known_heads)
        yield OwnThreads(
            work.embedder, work.bases, content_id=lambda _: None, num_threads=num_cpus()
        )


def _stored(root: Path) -> bytes:
    """All that ids and vectors stand in: a shard's rows, and its lists with their ids."""
    (shard,) = (root / "shards").iterdir()
    return b"".join(path.read_bytes() for path in sorted(shard.iterdir()))


def _write(folder: Path, num_photos: int) -> Path:
    folder.mkdir()
    case = next(one for one in CASES if one.width > 1000)
    drawn = [draw_photo(case, seed) for seed in range(NUM_DRAWN)]
    for number in range(num_photos):
        photo = with_comment(drawn[number % NUM_DRAWN], b"%d" % number)
        (folder / f"{number:05d}.jpg").write_bytes(photo)
    return folder
