"""How fast this machine embeds, clusters and encodes, measured on a little of each.

Letters: n rows, D embedding.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from index.codebook.kmeans import NUM_ITERATIONS, spherical_kmeans
from index.codebook.rotation import Rotation, needs_rotation
from index.collection.photo_file import read_photo_file
from index.collection.reading import PhotoEmbedder
from index.faiss_encode import encode_rows
from index.faiss_train import train_codebook
from multigrain.locations import Url
from multigrain.photo import PhotoError
from multigrain.photo_limits import DEFAULT_LIMITS

_NUM_ROWS, _NUM_LISTS = 4096, 64
_SEED = 0
Clock = Callable[[], float]


class Rates(NamedTuple):
    """Comparisons of a row and a centroid a second, and rows encoded a second beside them."""

    comparisons: float
    rows: float


def embed_rate(
    embedder: PhotoEmbedder,
    photos: Sequence[Path | Url],
    *,
    num_threads: int,
    clock: Clock = time.perf_counter,
) -> float | None:
    """Photos a second when `num_threads` decode beside the model; None when none can be read."""
    start, pixels = clock(), []
    for path in photos:
        try:
            data = read_photo_file(path, max_bytes=DEFAULT_LIMITS.max_bytes)
            pixels.append(embedder.read(data).pixels)
        except PhotoError:
            continue
    if not pixels:
        return None
    reading = (clock() - start) / num_threads
    embedder.embed_pixels(pixels, len(pixels))  # the first run of a shape sets it up
    start = clock()
    embedder.embed_pixels(pixels, len(pixels))
    return len(pixels) / (reading + clock() - start)


def index_rates(
    code: str, *, dim: int, device: str, num_threads: int, clock: Clock = time.perf_counter
) -> Rates:
    """Cluster and encode random rows of D values with a code, for example `SQ8`."""
    rows = np.random.default_rng(_SEED).normal(size=(_NUM_ROWS, dim))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    spherical_kmeans(unit[:_NUM_LISTS], _NUM_LISTS, seed=_SEED, device=device)  # sets it up
    start = clock()
    spherical_kmeans(unit, _NUM_LISTS, seed=_SEED, device=device)
    comparisons = _NUM_ROWS * _NUM_LISTS * NUM_ITERATIONS / (clock() - start)
    factory = f"IVF{_NUM_LISTS},{code}"
    rotation = Rotation.random(dim, seed=_SEED) if needs_rotation(factory) else Rotation()
    with TemporaryDirectory() as folder:
        trained, lists = Path(folder) / "trained.faiss", Path(folder) / "ivf.faiss"
        train_codebook(
            factory,
            unit,
            trained,
            rotation=rotation,
            seed=_SEED,
            num_threads=num_threads,
            device=device,
        )
        start = clock()
        encode_rows(
            trained,
            unit,
            lists,
            rotation=rotation,
            first_id=0,
            num_threads=num_threads,
            device=device,
        )
        seconds = clock() - start
    assigning = _NUM_ROWS * _NUM_LISTS / comparisons
    return Rates(comparisons, _NUM_ROWS / max(seconds - assigning, seconds / 10))
