"""Spherical k-means in blocks: unit centroids of stored rows, on a CPU or a GPU.

Letters: n rows, D embedding, K centroids. Many rows stay fp16 and become fp32 a block at a time,
so memory beyond them is a block and the centroids. 32,768 rows of 512 into 512 clusters: a
round's comparisons take .17 s of one core, .23 s in faiss.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from index.searching.half import as_fp32

Rows = NDArray[np.float16] | NDArray[np.float32]

NUM_ITERATIONS = 10
BLOCK_ROWS = 65_536
# From here on the CPU clusters in two levels: K times fewer comparisons for a little recall.
TWO_LEVELS_FROM = 65_536
# Rows of a bucket's own codebook that the first level is trained on.
_FIRST_LEVEL_ROWS = 256
# Up to so many values rows are made fp32 once, not every round.
VALUES_AT_ONCE = 2**26
# Scores held at once, in values: small enough for the caches of a few cores.
SCORES_ON_CPU, _SCORES_ON_GPU = 2**22, 2**28


class Clusters(NamedTuple):
    """Unit centroids fp32 [K, D], and the rows of each at the last assignment, int64 [K]."""

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]


def nearest(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The centroid [K, D] of the largest inner product for each row [n, D]: int64 [n]."""
    if rows.device.type == "cpu":
        return _nearest_on_cpu(rows, centroids)
    step = max(1, _SCORES_ON_GPU // len(centroids))
    labels = [(part @ centroids.T).argmax(dim=1) for part in torch.split(rows, step)]
    return torch.cat(labels)


def _nearest_on_cpu(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    step = max(1, SCORES_ON_CPU // len(centroids))
    scores = torch.empty(min(step, len(rows)), len(centroids))
    labels = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        found = torch.mm(part, centroids.T, out=scores[: len(part)])
        # Not torch's argmax, which takes half as long as the product; numpy's takes a tenth.
        found.numpy().argmax(axis=1, out=labels[start : start + step])
    return torch.from_numpy(labels)


def nearest_on(
    device: str, centroids: NDArray[np.float32]
) -> Callable[[NDArray[np.float32]], NDArray[np.int64]]:
    """Keep centroids [K, D] on a device; gives what finds each row's nearest one there."""
    held = torch.from_numpy(centroids).to(device)
    return lambda rows: nearest(torch.from_numpy(rows).to(device), held).cpu().numpy()


def spherical_kmeans(
    rows: Rows,
    num_centroids: int,
    *,
    seed: int,
    device: str = "cpu",
) -> Clusters:
    """Cluster unit rows fp16 or fp32 [n, D], n >= K, by inner product.

    Starts at K random rows and goes a fixed number of rounds; a centroid that loses its last
    row is put on a random row of the largest cluster. The same rows, seed, device and threads
    give the same bytes. Raises ValueError for fewer rows than centroids.
    """
    if len(rows) < num_centroids:
        raise ValueError(f"{len(rows)} rows cannot make {num_centroids} clusters")
    random = np.random.default_rng(seed)
    first = np.sort(random.choice(len(rows), num_centroids, replace=False))
    centroids = _unit(torch.from_numpy(rows[first].astype(np.float32)).to(device))
    sizes = np.zeros(num_centroids, dtype=np.int64)
    if rows.size <= VALUES_AT_ONCE:
        rows = as_fp32(rows)
    for _ in range(NUM_ITERATIONS):
        labels, sums = _round(rows, centroids)
        sizes = np.bincount(labels, minlength=num_centroids)
        moved = _reseeded(labels, sizes, random)
        for number, row in moved.items():
            sums[number] = torch.from_numpy(rows[row].astype(np.float32)).to(device)
        # A sum of rows that cancel has no direction: that centroid stays where it was.
        lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        centroids = torch.where(lengths > 0, _unit(sums), centroids)
    return Clusters(centroids.cpu().numpy(), sizes)


def two_level_kmeans(
    rows: Rows,
    num_centroids: int,
    *,
    seed: int,
    device: str = "cpu",
) -> Clusters:
    """Cluster unit rows fp16 or fp32 [n, D] into about sqrt(K) buckets, then each bucket by itself.

    Each bucket gets centroids in proportion to its rows, K in all. Costs 2 sqrt(K) comparisons a
    row and round instead of K. Raises ValueError for fewer rows than centroids.
    """
    if len(rows) < num_centroids:
        raise ValueError(f"{len(rows)} rows cannot make {num_centroids} clusters")
    num_buckets = round(num_centroids**0.5)
    random = np.random.default_rng(seed)
    num_sampled = min(len(rows), _FIRST_LEVEL_ROWS * num_buckets)
    sampled = np.sort(random.choice(len(rows), num_sampled, replace=False))
    first = spherical_kmeans(rows[sampled], num_buckets, seed=seed, device=device)
    buckets, _ = _round(rows, torch.from_numpy(first.centroids).to(device))
    order = np.argsort(buckets, kind="stable")
    sizes = np.bincount(buckets, minlength=num_buckets)
    members = np.split(order, np.cumsum(sizes)[:-1])
    parts = [
        spherical_kmeans(rows[np.sort(one)], share, seed=seed + 1 + number, device=device)
        for number, (one, share) in enumerate(
            zip(members, _shares(sizes, num_centroids), strict=True)
        )
        if share
    ]
    return Clusters(
        np.concatenate([part.centroids for part in parts]),
        np.concatenate([part.sizes for part in parts]),
    )


def _blocks(rows: Rows, device: torch.device) -> Iterator[torch.Tensor]:
    for start in range(0, len(rows), BLOCK_ROWS):
        block = as_fp32(rows[start : start + BLOCK_ROWS])
        yield torch.from_numpy(block).to(device)


def _round(rows: Rows, centroids: torch.Tensor) -> tuple[NDArray[np.int64], torch.Tensor]:
    """The nearest centroid of each row int64 [n], and the sum of each centroid's rows [K, D]."""
    sums = torch.zeros_like(centroids)
    labels = list[NDArray[np.int64]]()
    for block in _blocks(rows, centroids.device):
        found = nearest(block, centroids)
        sums += _sums(block, found, len(centroids))
        labels.append(found.cpu().numpy())
        del block  # before the next one is made
    return np.concatenate(labels), sums


def _sums(rows: torch.Tensor, labels: torch.Tensor, num_centroids: int) -> torch.Tensor:
    """The sum of each centroid's rows: [K, D]."""
    order = _by_label(labels, num_centroids)
    ends = torch.bincount(labels, minlength=num_centroids).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    # A bag is summed in order by one thread, so unlike index_add_ on a GPU this repeats to the bit.
    return F.embedding_bag(order, rows, starts, mode="sum")


def _by_label(labels: torch.Tensor, num_centroids: int) -> torch.Tensor:
    """The rows in the order of their labels [n], those of one label in their own: int64 [n]."""
    if labels.device.type != "cpu":
        return torch.argsort(labels, stable=True)
    # numpy sorts 16 bits by digits, in a small part of the time torch takes.
    fits = num_centroids <= np.iinfo(np.uint16).max
    numbers = labels.numpy().astype(np.uint16 if fits else np.int64)
    return torch.from_numpy(np.argsort(numbers, kind="stable"))


def _reseeded(
    labels: NDArray[np.int64], sizes: NDArray[np.int64], random: np.random.Generator
) -> dict[int, int]:
    """For each centroid without rows, a random row of the cluster that is the largest by then."""
    moved, left = dict[int, int](), sizes.copy()
    for number in np.flatnonzero(sizes == 0):
        largest = int(left.argmax())
        moved[int(number)] = int(random.choice(np.flatnonzero(labels == largest)))
        left[largest] //= 2
    return moved


def _shares(sizes: NDArray[np.int64], total: int) -> list[int]:
    """Split `total` in proportion to sizes, none more than its size and at least 1 for any row."""
    shares = np.minimum(sizes, np.maximum(sizes > 0, sizes * total // sizes.sum()))
    while (missing := total - int(shares.sum())) != 0:
        if missing > 0:  # to those with the most rows a share
            load = np.where(shares < sizes, sizes / np.maximum(shares, 1), -1.0)
            shares[int(load.argmax())] += 1
        else:  # from those with the fewest
            load = np.where(shares > 1, sizes / np.maximum(shares, 1), np.inf)
            shares[int(load.argmin())] -= 1
    return [int(share) for share in shares]


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(rows, dim=1)
