"""The ladder of loading beside torchvision's ImageFolder on the same photos, cores and crops.

    python -m benchmarks.loading --data FOLDER_OF_CLASS_FOLDERS

Views a second, augmentation included: crop, flip, jitter of brightness, contrast and saturation,
and light, as the paper does; ours counts the part done on "the device", which here is the same
CPU. One view a photo is loaded by processes, as for a GPU, three by threads. All loaders are
kept running and measured in turns, so that whatever else the machine does hits each of them.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor

from benchmarks.report import Target, judge, machine_facts
from multigrain.cpus import num_cpus
from trainer.inputs.augment import Augmentation
from trainer.inputs.augment_device import DevicePart, edits_of
from trainer.inputs.cache_builder import CacheSettings, build_cache
from trainer.inputs.cache_reader import Kind
from trainer.inputs.labels import read_joined, read_photos
from trainer.inputs.loading import Steps, ViewsDataset, batch_loader, threaded_batches
from trainer.inputs.photo_set import PhotoSet
from trainer.inputs.sampler import BatchPlan

SIZE = 224
ENDLESS = 10**9
CACHE_SIDE = 320  # what trainer.cache takes by itself
KINDS: tuple[Kind, ...] = ("jpeg", "raw")
LARGE = (4000, 3000)
NUM_LARGE = 12
NOISE = 6.0  # deviation, for detail in the enlarged photos
BASELINE = "ImageFolder + PIL"
# A cache of small photos holds nothing smaller: what it is for shows on large ones.
WANTED_SMALL = {"files": 2.0, "files, 3 views": 2.3, "raw cache": 3.0}
WANTED_LARGE = {"JPEG cache": 3.0, "JPEG cache, 3 views": 4.0, "raw cache": 7.0}


class Length(NamedTuple):
    """How long is measured: views a batch (small, so that a turn's start is short) and turns."""

    views: int
    turns: int
    seconds: float


def ladder(data: Path, *, quick: bool) -> list[Target]:
    """Measure every rung on small photos (a folder of class folders) and on large ones.

    Prints a table and returns the targets; takes about 100 s when quick and the machine is free.
    """
    small, large = Length(24, 7, 3.0), Length(6, 5, 5.0)
    if quick:
        small, large = Length(24, 5, 0.8), Length(6, 3, 1.0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the loaders' own threads take the cores
    try:
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            found = _rates(data, scratch / "small", small)
            targets = _report("photos as they are", found, WANTED_SMALL)
            found = _rates(_enlarged(data, scratch / "enlarged"), scratch / "large", large)
            return targets + _report("12-megapixel photos", found, WANTED_LARGE)
    finally:
        torch.set_num_threads(before)


def _rates(photos: Path, scratch: Path, length: Length) -> dict[str, list[float]]:
    """Views a second of each rung, a figure a turn."""
    rungs = _rungs(photos, scratch, length.views)
    rates: dict[str, list[float]] = {name: [] for name in rungs}
    for _ in range(length.turns):
        for name, batches in rungs.items():
            rates[name].append(_turn(batches, length.seconds))
    return rates


def _turn(batches: Iterator[int], seconds: float) -> float:
    """Use up what was loaded ahead meanwhile, then count views for so many seconds."""
    for _ in islice(batches, 2 * num_cpus() + 1):
        pass
    start, views, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        views += next(batches)
        elapsed = time.perf_counter() - start
    return views / elapsed


def _rungs(photos: Path, scratch: Path, views: int) -> dict[str, Iterator[int]]:
    rungs = {BASELINE: _baseline(photos, views)}
    caches = {f"{kind}": _cache(photos, scratch, kind) for kind in KINDS}
    for title, source in (
        ("files", photos),
        ("JPEG cache", caches["jpeg"]),
        ("raw cache", caches["raw"]),
    ):
        read = read_photos([source], say=print)
        rungs[title] = _ours(read, 1, views)
        rungs[f"{title}, 3 views"] = _ours(read, 3, views)
    return rungs


def _cache(photos: Path, scratch: Path, kind: Kind) -> Path:
    joined = read_joined([photos], say=print)
    settings = CacheSettings(kind, CACHE_SIDE, 90)
    return build_cache(joined, scratch / kind, settings, num_threads=num_cpus(), say=print)


def _ours(photos: PhotoSet, num_views: int, views: int) -> Iterator[int]:
    plan = BatchPlan(
        num_photos=len(photos.names), batch_size=views, num_views=num_views, num_processes=1, seed=0
    )
    dataset = ViewsDataset(photos, Augmentation(size=SIZE, seed=0), num_views=num_views)
    steps = Steps(plan, rank=0, start=0, stop=ENDLESS)
    batches = (
        batch_loader(dataset, steps, num_workers=num_cpus(), pin_memory=False)
        if num_views == 1
        else threaded_batches(dataset, steps, num_threads=num_cpus())
    )
    device_part = DevicePart(edits_of("full", erasing=0))
    for step, batch in enumerate(batches):
        yield len(device_part(batch, step).pixels)


def _baseline(photos: Path, views: int) -> Iterator[int]:
    """What the field's scripts do: ImageFolder, Compose, DataLoader."""
    tv = torchvision.transforms
    transform = tv.Compose(
        [
            tv.RandomResizedCrop(SIZE),
            tv.RandomHorizontalFlip(),
            tv.ColorJitter(0.3, 0.3, 0.3),
            tv.ToTensor(),
            Lighting(),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(photos, transform)
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=ENDLESS)
    loader = torch.utils.data.DataLoader(
        dataset, views, sampler=sampler, num_workers=num_cpus(), prefetch_factor=2
    )
    for pixels, _ in loader:
        yield len(pixels)


class Lighting:
    """PCA lighting of one view, as a transform of its own."""

    def __init__(self) -> None:
        directions = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140],
                      [-0.5836, -0.6948, 0.4203]]  # fmt: skip
        self.directions = torch.tensor(directions)
        self.variances = torch.tensor([0.2175, 0.0188, 0.0045])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Shift the colours of [3, S, S] in 0..1."""
        shift = self.directions @ (torch.randn(3) * 0.1 * self.variances)
        return pixels.add_(shift[:, None, None]).clamp_(0, 1)


def _enlarged(data: Path, out: Path) -> Path:
    """Write some photos at 12 megapixels, with noise for detail, in two class folders."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, NOISE, (LARGE[1], LARGE[0], 1)).astype(np.float32)
    files = sorted(data.rglob("*.jpg"))
    for number, file in enumerate(files[:: max(1, len(files) // NUM_LARGE)][:NUM_LARGE]):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC))
        noisy = (pixels + np.roll(noise, 37 * number, 1)).clip(0, 255).astype(np.uint8)
        folder = out / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy).save(folder / f"{number:03d}.jpg", quality=90)
    return out


def _report(title: str, rates: dict[str, list[float]], wanted: dict[str, float]) -> list[Target]:
    base = rates[BASELINE]
    print(f"\n| {title} | views/s | least to most | times ImageFolder |\n|---|---|---|---|")
    targets = []
    for name, found in rates.items():
        # Each turn beside the baseline of the same round.
        ratio = statistics.median(own / other for own, other in zip(found, base, strict=True))
        print(
            f"| {name} | {statistics.median(found):.0f} | {min(found):.0f} to {max(found):.0f} "
            f"| {ratio:.2f} |"
        )
        if name in wanted:
            targets.append(Target(f"{title}: {name}", ratio, ">=", wanted[name]))
    return targets


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    parser.add_argument("--quick", action="store_true", help="shorter turns")
    given = parser.parse_args()
    print(machine_facts())
    return judge(ladder(given.data, quick=given.quick))


if __name__ == "__main__":
    raise SystemExit(main())
