"""The model and the index behind the service: photos' pixels in, neighbours out."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.replica.source import IndexSource
from index.searcher import Searcher, SearcherOptions
from multigrain.augmented import Augment, decoded_side, embed_looks, looks_at
from multigrain.embedder import Embedder
from multigrain.errors import MultiGrainError
from multigrain.fetched import local_file
from multigrain.locations import Url
from multigrain.photo import open_photo
from multigrain.photo_limits import PhotoLimits
from service.batching.embedding_cache import EmbeddingCache, Known
from service.batching.queries import Answer, PhotoFacts, Query, Source
from service.serving.finding import hydrate, pick_pages
from service.serving.generations import Generations

# Warming with more than the largest batch teaches nothing; one and the largest are the shapes met.
_LONE = 1
_GREY = 128


class FingerprintMismatchError(MultiGrainError):
    """The checkpoint is not the one the index was built with."""


class Engine:
    """Embeds and searches batches.

    `take_in` may be called from many threads, `answer` from one. `note_embedded` is called in
    every batch behind the model: the search that follows takes one core.
    """

    def __init__(
        self, embedder: Embedder, searcher: Searcher, *, max_batch: int, cache: EmbeddingCache
    ) -> None:
        self.embedder = embedder
        self.generations = Generations(searcher)
        self.cache = cache
        self.note_embedded: Callable[[], None] = lambda: None
        self._max_batch = max_batch

    @classmethod
    def open(
        cls,
        source: IndexSource,
        *,
        checkpoint: Path | Url | None,
        device: str,
        cache_dir: Path | None,
        max_batch: int,
        max_cached: int = 0,
        options: SearcherOptions,
    ) -> "Engine":
        """Open index and model, check that they belong together, warm up and ask the canaries.

        `options` say how the index is opened; the embeddings of the `max_cached` photos seen last
        are remembered. Raises MultiGrainError when the folder, the checkpoint or a canary is not
        as it should be.
        """
        searcher = source.open(partial(Searcher.open, **options))
        try:
            path = local_file(checkpoint or searcher.checkpoint_path, cache_dir=cache_dir)
            embedder = Embedder.open(path, device=device, cache_dir=cache_dir)
            _check_fingerprint(embedder, searcher, path)
            embedder.warm({_LONE, max_batch})
            searcher.check_canaries(embedder)
        except BaseException:
            searcher.close()
            raise
        cache = EmbeddingCache(max_cached)
        return cls(embedder, searcher, max_batch=max_batch, cache=cache)

    @property
    def model_name(self) -> str:
        """Trunk and fingerprint, as answers name the model."""
        trunk = self.embedder.document.backbone.name
        return f"multigrain-{trunk}@sha256:{self.embedder.fingerprint[:12]}"

    def take_in(self, photo: bytes, limits: PhotoLimits, augment: Augment = Augment.NONE) -> Source:
        """Decode a photo to the model's inputs, unless it was seen before; raises PhotoError."""
        sha256 = hashlib.sha256(photo).hexdigest()
        known = self.cache.get(self.embedder.fingerprint, sha256, augment)
        if known is not None:
            return Source(known.facts, embedding=known.embedding)
        rule = self.embedder.preprocessing
        opened = open_photo(photo, min_side=decoded_side(rule, augment), limits=limits)
        facts = PhotoFacts(sha256, opened.width, opened.height, opened.format, opened.exif_rotated)
        return Source(facts, tuple(looks_at(opened.image, rule, augment)), augment=augment)

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Embed and search all queries, at most `max_batch`; an exception concerns all of them.

        The embedder runs one forward pass for each shape of pixels.
        """
        started_at = time.perf_counter()
        embeddings = self._embed(queries)
        embedded_at = time.perf_counter()
        self.note_embedded()
        with self.generations.lease() as searcher:
            generation = searcher.generation
            picked = pick_pages(searcher, queries, embeddings)
            searched_at = time.perf_counter()
            found = hydrate(searcher, queries, picked)
        metadata_seconds = time.perf_counter() - searched_at
        num_of_shape = Counter(map(_shape, queries))
        num_of_shape[None] = 0  # no forward pass
        return [
            Answer(
                embedding,
                one,
                generation,
                batch_size=num_of_shape[_shape(query)],
                infer_seconds=embedded_at - started_at,
                search_seconds=searched_at - embedded_at,
                metadata_seconds=metadata_seconds,
            )
            for query, embedding, one in zip(queries, embeddings, found, strict=True)
        ]

    def _embed(self, queries: Sequence[Query]) -> npt.NDArray[np.float32]:
        """The queries' embeddings, unit fp32 [Q, D]; those that have one skip the model."""
        embeddings = np.empty((len(queries), self.embedder.dim), np.float32)
        sources = [query.source for query in queries]
        looks = {row: source.looks for row, source in enumerate(sources) if source.looks}
        if looks:
            embeddings[list(looks)] = embed_looks(
                self.embedder, list(looks.values()), batch_size=self._max_batch
            )
        for row, source in enumerate(sources):
            if source.embedding is not None:
                embeddings[row] = source.embedding
            elif source.facts is not None:
                known = Known(source.facts, embeddings[row].copy(), source.augment)
                self.cache.put(self.embedder.fingerprint, known)
        return embeddings

    def test(self) -> None:
        """Let the model embed a grey photo; raises what is wrong with it."""
        height, width = self.embedder.preprocessing.shapes()[0]
        grey = np.full((height, width, 3), _GREY, np.uint8)
        self.embedder.embed_pixels([grey], batch_size=1)

    def close(self) -> None:
        """Close the index; the model goes with the process."""
        self.generations.close()


def _shape(query: Query) -> tuple[int, ...] | None:
    """Photos of one shape share a forward pass."""
    return query.source.looks[0].shape if query.source.looks else None


def _check_fingerprint(embedder: Embedder, searcher: Searcher, path: Path) -> None:
    if embedder.fingerprint != searcher.fingerprint:
        raise FingerprintMismatchError(
            f"checkpoint {path} has the fingerprint {embedder.fingerprint[:12]}, the index was "
            f"built with {searcher.fingerprint[:12]}: leave out --checkpoint, or rebuild the index"
        )
