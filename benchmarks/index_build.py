"""`index.build` beside the usual torchvision pipeline, photos a second on the same cores.

    python -m benchmarks.index_build [--only WIDTH ...]

Ours: `build_index` in this process, from a folder of photos to a published index, without
opening the model. Theirs: ImageFolder, a DataLoader of two workers that decode every photo in
full, Resize(256), CenterCrop(224), and a ResNet-50 of torch in fp32. Starting threads or workers
counts on both sides, and so does what a new index takes once, about a second of ours (hashing the
checkpoint, the catalog, syncs): there are photos for ten seconds of work at least. Both
interleaved, the median of three; the model has random weights, which cost what trained ones cost.
Exit status 1 when a target is missed.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from benchmarks.report import Target, judge, machine_facts
from index.builder import build_index
from multigrain.checkpoint import save_checkpoint
from multigrain.document import plain_document
from multigrain.embedder import Embedder
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing

REPEATS = 3
JPEG_QUALITY = 88
BATCH_SIZE = 8
NUM_WORKERS = 2


class Case(NamedTuple):
    """Photos of one size, how many, and how many times faster than torchvision they must be.

    No such target (None) is known of the smallest. `noise` is the standard deviation that gives a
    JPEG the bytes of a photo of its size.
    """

    name: str
    width: int
    height: int
    num_photos: int
    noise: float
    target: float | None


CASES = (
    Case("0.3 megapixels", 640, 480, 192, 8.0, None),
    Case("1 megapixel", 1152, 864, 192, 7.0, 5.0),
    Case("12 megapixels", 4000, 3000, 144, 6.0, 4.0),
)
# Drawing a photo takes longer than all that is measured; more differ only in a comment.
NUM_DRAWN = 8
# The whole build against decoding and the model, each alone on all cores, one after the other.
PIPELINE_TARGET = 0.85


def draw_photo(case: Case, seed: int) -> bytes:
    """A JPEG of smooth structure and noise."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((case.width, case.height), Image.Resampling.BICUBIC))
    noise = draw.standard_normal((case.height, case.width, 1), dtype=np.float32) * case.noise
    stream = io.BytesIO()
    pixels = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def with_comment(jpeg: bytes, text: bytes) -> bytes:
    """The same photo in other bytes."""
    head = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big")
    return jpeg[:2] + head + text + jpeg[2:]


def write_photos(case: Case, folder: Path) -> int:
    """Draw a case's photos into one class folder; gives their mean size in bytes."""
    (folder / "photos").mkdir(parents=True)
    drawn = [draw_photo(case, seed) for seed in range(NUM_DRAWN)]
    sizes = [
        (folder / "photos" / f"{number:03d}.jpg").write_bytes(
            with_comment(drawn[number % NUM_DRAWN], b"%d" % number)
        )
        for number in range(case.num_photos)
    ]
    return sum(sizes) // len(sizes)


def write_checkpoint(path: Path) -> None:
    """A ResNet-50 with random weights."""
    document = plain_document(
        backbone_name="resnet50", feature_dim=2048, preprocessing=Preprocessing(size=224), p=3.0
    )
    save_checkpoint(path, MultiGrain.build(document), document)


class Bench:
    """The two pipelines and their parts over one folder of photos."""

    def __init__(self, photos: Path, checkpoint: Path, embedder: Embedder) -> None:
        self._photos, self._checkpoint, self._embedder = photos, checkpoint, embedder
        self._paths = sorted(photos.rglob("*.jpg"))
        self._baseline = models.resnet50().eval()

    def build(self) -> float:
        """Seconds of `build_index` into a new folder."""
        with tempfile.TemporaryDirectory() as out:
            return seconds(
                lambda: build_index([self._photos], self._checkpoint, Path(out), self._embedder)
            )

    def torchvision(self) -> float:
        """Seconds of the usual pipeline."""
        prepare = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        loader = DataLoader(
            datasets.ImageFolder(str(self._photos), prepare),
            batch_size=BATCH_SIZE,
            num_workers=NUM_WORKERS,
        )
        return seconds(lambda: self._run(loader))

    @torch.inference_mode()
    def _run(self, loader: "DataLoader[tuple[torch.Tensor, torch.Tensor]]") -> None:
        for batch, _ in loader:
            self._baseline(batch)

    def decode(self) -> float:
        """Seconds of reading and decoding alone, on all cores."""
        with ThreadPoolExecutor(num_cores()) as pool:
            return seconds(lambda: list(pool.map(self._embedder.read, self._paths)))

    def model(self) -> float:
        """Seconds of the model alone, on all cores."""
        pixels = [self._embedder.read(self._paths[0]).pixels] * len(self._paths)
        return seconds(lambda: self._embedder.embed_pixels(pixels, BATCH_SIZE))


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def num_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


class Row(NamedTuple):
    """Photos a second of one case: the build, torchvision, and the build's two parts alone."""

    case: Case
    megabytes: float
    build: float
    torchvision: float
    decode: float
    model: float
    speedup: float
    pipeline_share: float


def measure(case: Case, folder: Path, checkpoint: Path, embedder: Embedder) -> Row:
    """Interleave the build, torchvision and the parts; medians of rates and of ratios."""
    num_bytes = write_photos(case, folder)
    bench = Bench(folder, checkpoint, embedder)
    parts = (bench.build, bench.torchvision, bench.decode, bench.model)
    rounds = [[part() for part in parts] for _ in range(REPEATS)]
    rates = [case.num_photos / median(times) for times in zip(*rounds, strict=True)]
    return Row(
        case,
        num_bytes / 1e6,
        *rates,
        speedup=median(times[1] / times[0] for times in rounds),
        pipeline_share=median((times[2] + times[3]) / times[0] for times in rounds),
    )


def print_table(rows: list[Row], embedder: Embedder) -> None:
    """Rates of every case, and the machine."""
    print("| photos | index.build | torchvision | decode alone | model alone |")
    print("|---|---|---|---|---|")
    for row in rows:
        name = f"{row.case.num_photos} of {row.case.name}, {row.megabytes:.2f} MB"
        rates = (row.build, row.torchvision, row.decode, row.model)
        print(f"| {name} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |")
    engine = f"ResNet-50 at 224 px, {embedder.engine} {embedder.precision}"
    print(f"\nphotos/s; {engine}; {machine_facts()}; medians of {REPEATS}\n")


def targets(rows: list[Row], precision: str) -> Iterator[Target]:
    """The whole build against torchvision, and against its own parts one after the other."""
    # Without bf16 units the model, which is the same work for both, leaves no room for it.
    not_here = None if precision == "bf16" else "the target is for CPUs that compute in bf16"
    for row in rows:
        if row.case.target is not None:
            name = f"{row.case.name}: index.build / torchvision"
            yield Target(name, row.speedup, ">=", row.case.target, not_here)
        name = f"{row.case.name}: index.build / (decode, then model)"
        yield Target(name, row.pipeline_share, ">=", PIPELINE_TARGET)


def main() -> int:
    """Measure every case, or those asked for; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", type=int, action="append", choices=[case.width for case in CASES], help="a width"
    )
    only = parser.parse_args().only
    cases = [case for case in CASES if not only or case.width in only]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "resnet50.safetensors"
        write_checkpoint(checkpoint)
        embedder = Embedder.open(checkpoint, cache_dir=Path(folder) / "cache")
        embedder.warm([BATCH_SIZE])
        rows = [
            measure(case, Path(folder) / str(case.width), checkpoint, embedder) for case in cases
        ]
    print_table(rows, embedder)
    return judge(targets(rows, embedder.precision))


if __name__ == "__main__":
    sys.exit(main())
