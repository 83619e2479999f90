"""Stored rows whose neighbours are known: they tell a wrong folder or model from a right one."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from index.catalog_reader import CatalogReader
from index.errors import IndexFolderError
from index.manifest import CanaryPart, Manifest, canary
from index.searching.ranker import Ranker

if TYPE_CHECKING:
    from multigrain.prepared import Prepared

_NUM_CANARIES = 8
_NUM_NEIGHBOURS = 10
_SAME_ENGINE_COSINE = 0.9999

_logger = logging.getLogger(__name__)


class CanaryEmbedder(Protocol):
    """What comparing canaries needs of multigrain.embedder.Embedder."""

    @property
    def fingerprint(self) -> str:
        """The checkpoint's fingerprint."""

    @property
    def engine(self) -> str:
        """What runs the model."""

    @property
    def precision(self) -> str:
        """The numbers the model runs in."""

    def read(self, source: bytes) -> "Prepared":
        """Decode and prepare; raises PhotoError."""

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int
    ) -> NDArray[np.float32]:
        """Unit rows fp32 [N, D] of prepared pixels, in order."""


def choose_canaries(ranker: Ranker, live_ids: NDArray[np.int64]) -> list[CanaryPart]:
    """A few live rows, evenly spaced, with the neighbours a search gives them now.

    The search is that of the factory's start values, not the tuned one: which of several
    searches is tuned depends on the machine's moment, and a generation's canaries must not.
    """
    places = np.linspace(0, len(live_ids) - 1, min(_NUM_CANARIES, len(live_ids)))
    ids = live_ids[places.astype(np.int64)]
    if not len(ids):
        return []
    rows = ranker.rows.gather(ids)
    found = ranker.search(rows.astype(np.float32), _NUM_NEIGHBOURS)
    return [
        canary(int(row_id), row, part.ids.tolist())
        for row_id, row, part in zip(ids, rows, found, strict=True)
    ]


def replay(manifest: Manifest, ranker: Ranker) -> None:
    """Search the canaries' stored rows again; raises IndexFolderError when ids differ.

    Where others than the shards' own lists are searched, some of the ids must agree.
    """
    if not manifest.canaries:
        return
    # In one batch, as they were chosen: a product of matrices may round otherwise.
    queries = np.stack([part.vector() for part in manifest.canaries])
    found = ranker.search(queries, _NUM_NEIGHBOURS)
    for part, now in zip(manifest.canaries, found, strict=True):
        ids = now.ids.tolist()
        if ranker.has_own_lists and ids != part.ids:
            raise IndexFolderError(
                f"generation {manifest.generation}: canary {part.id} finds {ids} "
                f"instead of {part.ids}: a shard or the codebook is damaged"
            )
        if not set(ids) & set(part.ids):
            raise IndexFolderError(
                f"generation {manifest.generation}: canary {part.id} finds {ids}, "
                f"none of {part.ids}: what is searched does not hold this index's rows"
            )


def check_embeddings(
    manifest: Manifest, ranker: Ranker, catalog: CatalogReader, embedder: CanaryEmbedder
) -> None:
    """Embed the canaries' photos again; raises IndexFolderError when the model disagrees."""
    readable = [(part, catalog.read_photo(part.id)) for part in manifest.canaries]
    chosen = [(part, data) for part, data in readable if data is not None]
    if not chosen:
        if readable:
            _logger.warning("no canary photo is as it was indexed: the model was not checked")
        return
    pixels = [embedder.read(data).pixels for _, data in chosen]
    rows = embedder.embed_pixels(pixels, len(pixels))
    model = manifest.model
    is_same_engine = (embedder.engine, embedder.precision) == (model.engine, model.precision)
    for (part, _), row in zip(chosen, rows, strict=True):
        if is_same_engine:
            _require_same(part, row)
        else:
            _require_overlap(part, row, ranker)


def _require_same(part: CanaryPart, row: NDArray[np.float32]) -> None:
    stored = part.vector()
    cosine = float(stored @ row / (np.linalg.norm(stored) * np.linalg.norm(row)))
    if not cosine >= _SAME_ENGINE_COSINE:
        raise IndexFolderError(
            f"canary {part.id}: its photo embeds at cosine {cosine:.5f} to the stored row, "
            f"{_SAME_ENGINE_COSINE} is needed: the model is not the one that built the index"
        )


def _require_overlap(part: CanaryPart, row: NDArray[np.float32], ranker: Ranker) -> None:
    (found,) = ranker.search(row[None], _NUM_NEIGHBOURS)
    if not set(found.ids.tolist()) & set(part.ids):
        raise IndexFolderError(
            f"canary {part.id}: none of its neighbours is found by this engine: "
            "the model is not the one that built the index"
        )
