"""The bare pipeline in a tight loop: decode, forward, faiss; nothing else. The ceiling.

    python -m benchmarks.service_bare --index ROOT --cache DIR --photos DIR --seconds 6

Photos are decoded on all cores, eight at a time, go through the model as one batch and are
searched in faiss as one batch; then one by one, for the time of a lone photo. Prints one JSON
document.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import faiss
from numpy.typing import NDArray

from index.codebook.factory import start_nprobe
from index.layout import Layout
from index.searcher import Searcher
from multigrain.cpus import num_cpus
from multigrain.embedder import Embedder

BATCH_SIZE = 8
NUM_NEIGHBOURS = 11
Answer = Callable[[list[bytes]], object]


def open_pipeline(index: Path, cache: Path, decoders: ThreadPoolExecutor) -> Answer:
    """A function that answers photos: the model of an index folder, and its lists in plain faiss.

    The lists are those of the first shard, searched as the index was tuned.
    """
    searcher = Searcher.open(index)
    embedder = Embedder.open(searcher.checkpoint_path, cache_dir=cache)
    embedder.warm({1, BATCH_SIZE})
    (shard, *_), layout = searcher.manifest.shards, Layout(index)
    lists = faiss.read_index(str(layout.lists(shard.folder)))
    lists.nprobe = searcher.manifest.search.nprobe or start_nprobe(lists.nlist)

    def answer(photos: list[bytes]) -> tuple[NDArray[Any], NDArray[Any]]:
        prepared = decoders.map(embedder.read, photos)
        rows = embedder.embed_pixels([one.pixels for one in prepared], BATCH_SIZE)
        found: tuple[NDArray[Any], NDArray[Any]] = lists.search(rows, NUM_NEIGHBOURS)
        return found

    return answer


def measure(answer: Answer, photos: Iterator[bytes], seconds: float) -> dict[str, float]:
    """Photos a second and processor seconds a photo in batches; median seconds of a lone one."""
    began, cpu, num_photos = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < began + seconds:
        answer(list(islice(photos, BATCH_SIZE)))
        num_photos += BATCH_SIZE
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    lone = list[float]()
    while sum(lone) < seconds / 2:
        start = time.perf_counter()
        answer(list(islice(photos, 1)))
        lone.append(time.perf_counter() - start)
    return {
        "rate": num_photos / took,
        "cpu_seconds": cpu / num_photos,
        "lone_seconds": median(lone),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for flag in ("--index", "--cache", "--photos"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    photos = cycle([path.read_bytes() for path in sorted(given.photos.iterdir())])
    with ThreadPoolExecutor(num_cpus()) as decoders:
        answer = open_pipeline(given.index, given.cache, decoders)
        answer(list(islice(photos, BATCH_SIZE)))
        print(json.dumps(measure(answer, photos, given.seconds)))


if __name__ == "__main__":
    main()
