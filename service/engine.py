"""The model and the index behind the service: photos' pixels in, neighbours out."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.searcher import Neighbour, Searcher
from multigrain.embedder import Embedder
from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoLimits
from service.generations import Generations

# Warming with more than the largest batch teaches nothing; one and the largest are the shapes met.
_LONE = 1


class FingerprintMismatchError(MultiGrainError):
    """The checkpoint is not the one the index was built with."""


class QueryPhoto(NamedTuple):
    """A decoded query: model input uint8 [h, w, 3] RGB, and facts about the photo it came from."""

    pixels: npt.NDArray[np.uint8]
    sha256: str
    width: int
    height: int
    format: str
    exif_rotated: bool


class Query(NamedTuple):
    """Pixels to search with, how many neighbours to find, and the recall; None: the tuned one."""

    pixels: npt.NDArray[np.uint8]
    num_neighbours: int
    recall: float | None = None


class Answer(NamedTuple):
    """Neighbours of one query, the generation they are of, and how they were found.

    `batch_size` is how many photos shared its forward pass; the seconds are those of the whole
    batch.
    """

    generation: str
    neighbours: list[Neighbour]
    batch_size: int
    infer_seconds: float
    search_seconds: float


class Engine:
    """Embeds and searches batches; `read` may be called from many threads, `answer` from one."""

    def __init__(self, embedder: Embedder, searcher: Searcher, *, max_batch: int) -> None:
        self.embedder = embedder
        self.generations = Generations(searcher)
        self._max_batch = max_batch

    @classmethod
    def open(
        cls,
        index: Path,
        *,
        checkpoint: Path | None,
        device: str,
        cache_dir: Path | None,
        max_batch: int,
        mapped: bool = False,
    ) -> "Engine":
        """Open index and model, check that they belong together, warm up and ask the canaries.

        `mapped` leaves the index's lists in their files.

        Raises MultiGrainError when the folder, the checkpoint or a canary is not as it should be.
        """
        searcher = Searcher.open(index, mapped=mapped)
        try:
            path = checkpoint if checkpoint is not None else searcher.checkpoint_path
            embedder = Embedder.open(path, device=device, cache_dir=cache_dir)
            _check_fingerprint(embedder, searcher, path)
            embedder.warm({_LONE, max_batch})
            searcher.check_canaries(embedder)
        except BaseException:
            searcher.close()
            raise
        return cls(embedder, searcher, max_batch=max_batch)

    @property
    def model_name(self) -> str:
        """Trunk and fingerprint, as answers name the model."""
        trunk = self.embedder.document.backbone.name
        return f"multigrain-{trunk}@sha256:{self.embedder.fingerprint[:12]}"

    def read(self, photo: bytes, limits: PhotoLimits) -> QueryPhoto:
        """Decode a photo to the model's input; raises PhotoError."""
        prepared = self.embedder.read(photo, limits)
        return QueryPhoto(
            pixels=prepared.pixels,
            sha256=hashlib.sha256(photo).hexdigest(),
            width=prepared.width,
            height=prepared.height,
            format=prepared.format,
            exif_rotated=prepared.exif_rotated,
        )

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Embed and search all queries, at most `max_batch`; an exception concerns all of them.

        The embedder runs one forward pass for each shape of pixels.
        """
        started_at = time.perf_counter()
        embeddings = self.embedder.embed_pixels(
            [query.pixels for query in queries], batch_size=self._max_batch
        )
        embedded_at = time.perf_counter()
        with self.generations.lease() as searcher:
            found = _found(searcher, queries, embeddings)
        searched_at = time.perf_counter()
        num_of_shape = Counter(query.pixels.shape for query in queries)
        return [
            Answer(
                searcher.generation,
                neighbours[: query.num_neighbours],
                batch_size=num_of_shape[query.pixels.shape],
                infer_seconds=embedded_at - started_at,
                search_seconds=searched_at - embedded_at,
            )
            for query, neighbours in zip(queries, found, strict=True)
        ]

    def close(self) -> None:
        """Close the index; the model goes with the process."""
        self.generations.close()


def _found(
    searcher: Searcher, queries: Sequence[Query], embeddings: npt.NDArray[np.float32]
) -> list[list[Neighbour]]:
    """Neighbours of each query; those that ask for one recall are searched together."""
    rows_of_recall: dict[float | None, list[int]] = defaultdict(list)
    for row, query in enumerate(queries):
        rows_of_recall[query.recall].append(row)
    found: list[list[Neighbour]] = [[] for _ in queries]
    for recall, rows in rows_of_recall.items():
        num_neighbours = max(queries[row].num_neighbours for row in rows)
        answers = searcher.search(embeddings[rows], num_neighbours, recall=recall)
        for row, neighbours in zip(rows, answers, strict=True):
            found[row] = neighbours
    return found


def _check_fingerprint(embedder: Embedder, searcher: Searcher, path: Path) -> None:
    if embedder.fingerprint != searcher.fingerprint:
        raise FingerprintMismatchError(
            f"checkpoint {path} has the fingerprint {embedder.fingerprint[:12]}, the index was "
            f"built with {searcher.fingerprint[:12]}: leave out --checkpoint, or rebuild the index"
        )
