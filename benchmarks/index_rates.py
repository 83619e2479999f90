"""Rows a second: training and encoding beside faiss in memory, a whole build beside numpy.

faiss has as many threads, rounds of k-means and sampled rows as the build. Its rows lie in memory
already, while a build has to list, open and hash a file for each: the files alone are timed too,
as plainly as Python can.
"""

import os
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.index_data import DIM
from benchmarks.index_folders import folder_of, timed
from benchmarks.report import Target
from index.codebook.kmeans import NUM_ITERATIONS
from index.faiss_train import TRAIN_ROWS_PER_LIST
from index.stages import Stage
from multigrain.cpus import num_cpus

ROUNDS = 3


class Rates(NamedTuple):
    """Rows a second of each round, ours and theirs, for encoding and end to end.

    `files` are only listed, opened, read and hashed; `raw_files` are, before `raw_whole`'s work.
    """

    encode: list[float]
    raw_encode: list[float]
    whole: list[float]
    raw_whole: list[float]
    files: list[float]
    raw_files: list[float]


def measure(scratch: Path, rows: NDArray[np.float32]) -> Rates:
    """Stages train to merge, with checksums and fsync; then everything from files to publish."""
    rates = Rates([], [], [], [], [], [])
    for number in range(ROUNDS):
        folder = folder_of(scratch / f"{number}", rows, order=np.arange(len(rows)))
        embedded = timed(lambda folder=folder: folder.build(last=Stage.EMBED))
        encoded = timed(lambda folder=folder: folder.build(first=Stage.TRAIN, last=Stage.ENCODE))
        published = timed(lambda folder=folder: folder.build(first=Stage.PUBLISH))
        factory = str(folder.build().factory)
        raw = timed(lambda factory=factory: raw_index(rows, factory))
        written = timed(lambda number=number: _write(rows, scratch / f"{number}.f16"))
        files = timed(lambda folder=folder: read_files(folder.photos))
        rates.encode.append(len(rows) / encoded)
        rates.raw_encode.append(len(rows) / raw)
        rates.whole.append(len(rows) / (embedded + encoded + published))
        rates.raw_whole.append(len(rows) / (raw + written))
        rates.files.append(len(rows) / files)
        rates.raw_files.append(len(rows) / (files + raw + written))
    return rates


def raw_index(rows: NDArray[np.float32], factory: str) -> Any:
    """The same faiss string, trained on as many random rows, all rows added, in memory."""
    faiss.omp_set_num_threads(num_cpus())  # a search before may have set one
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical, index.cp.niter = True, NUM_ITERATIONS
    size = min(len(rows), TRAIN_ROWS_PER_LIST * index.nlist)
    chosen = np.random.default_rng(0).choice(len(rows), size, replace=False)
    index.train(rows[np.sort(chosen)])
    index.add(rows)
    return index


def read_files(folder: Path) -> None:
    """List a folder, ask for each file's stat, then open, read and hash it."""
    with os.scandir(folder) as entries:
        found = sorted((entry.path, entry.stat().st_size) for entry in entries)
    for path, size in found:
        descriptor = os.open(path, os.O_RDONLY)
        os.fstat(descriptor)
        sha256(os.read(descriptor, size + 1)).digest()
        os.close(descriptor)


def _write(rows: NDArray[np.float32], path: Path) -> None:
    path.write_bytes(rows.astype(np.float16).tobytes())


def table(rates: Rates) -> str:
    """Markdown of what was measured."""
    lines = ["| | ours, rows/s | raw, rows/s |", "|---|---|---|"]
    for name, own, raw in (
        ("train and encode", rates.encode, rates.raw_encode),
        ("files to a published index", rates.whole, rates.raw_whole),
    ):
        lines.append(
            f"| {name} | {median(own):.0f} ({min(own):.0f} - {max(own):.0f}) "
            f"| {median(raw):.0f} ({min(raw):.0f} - {max(raw):.0f}) |"
        )
    for name, raw in (
        ("the files alone: listed, opened, hashed", rates.files),
        ("the files alone, then numpy and faiss", rates.raw_files),
    ):
        lines.append(f"| {name} | | {median(raw):.0f} ({min(raw):.0f} - {max(raw):.0f}) |")
    share = _ratio(rates.whole, rates.raw_files)
    lines.append(
        f"\nfiles to a published index / the files alone, then numpy and faiss: {share:.2f}"
    )
    return "\n".join(lines)


def targets(rates: Rates) -> list[Target]:
    """Ratios of each round, their medians."""
    encode = _ratio(rates.encode, rates.raw_encode)
    whole = _ratio(rates.whole, rates.raw_whole)
    return [
        Target("encoding / raw faiss in memory", encode, ">=", 0.9),
        Target("files to a published index / numpy and faiss", whole, ">=", 0.7),
    ]


def _ratio(own: list[float], raw: list[float]) -> float:
    return median(a / b for a, b in zip(own, raw, strict=True))
