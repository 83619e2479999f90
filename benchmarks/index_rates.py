"""Rows a second: training and encoding beside faiss in memory, a whole build beside numpy."""

from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.index_data import DIM
from benchmarks.index_folders import folder_of, timed
from benchmarks.report import Target
from index.stages import Stage

ROUNDS = 3
ROWS_PER_LIST = 64  # of the training sample, as the builder takes


class Rates(NamedTuple):
    """Rows a second of each round, ours and theirs, for encoding and end to end."""

    encode: list[float]
    raw_encode: list[float]
    whole: list[float]
    raw_whole: list[float]


def measure(scratch: Path, rows: NDArray[np.float32]) -> Rates:
    """Stages train to merge, with checksums and fsync; then everything from files to publish."""
    rates = Rates([], [], [], [])
    for number in range(ROUNDS):
        folder = folder_of(scratch / f"{number}", rows, order=np.arange(len(rows)))
        embedded = timed(lambda folder=folder: folder.build(last=Stage.EMBED))
        encoded = timed(lambda folder=folder: folder.build(first=Stage.TRAIN, last=Stage.ENCODE))
        published = timed(lambda folder=folder: folder.build(first=Stage.PUBLISH))
        factory = str(folder.build().factory)
        raw = timed(lambda factory=factory: raw_index(rows, factory))
        written = timed(lambda number=number: _write(rows, scratch / f"{number}.f16"))
        rates.encode.append(len(rows) / encoded)
        rates.raw_encode.append(len(rows) / raw)
        rates.whole.append(len(rows) / (embedded + encoded + published))
        rates.raw_whole.append(len(rows) / (raw + written))
    return rates


def raw_index(rows: NDArray[np.float32], factory: str) -> Any:
    """The same faiss string, trained on as many random rows, all rows added, in memory."""
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    size = min(len(rows), ROWS_PER_LIST * index.nlist)
    chosen = np.random.default_rng(0).choice(len(rows), size, replace=False)
    index.train(rows[np.sort(chosen)])
    index.add(rows)
    return index


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
    return "\n".join(lines)


def targets(rates: Rates) -> list[Target]:
    """Ratios of each round, their medians."""
    encode = median(a / b for a, b in zip(rates.encode, rates.raw_encode, strict=True))
    whole = median(a / b for a, b in zip(rates.whole, rates.raw_whole, strict=True))
    return [
        Target("encoding / raw faiss in memory", encode, ">=", 0.9),
        Target("files to a published index / numpy and faiss", whole, ">=", 0.7),
    ]
