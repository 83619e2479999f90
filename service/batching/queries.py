"""What a batch takes in and gives out for each request.

Letters: D embedding, n hits.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.searching.neighbours import Neighbour
from multigrain.augmented import Augment
from service.asking.paging import Collapsed, Page
from service.asking.plan import Plan

Embedding = NDArray[np.float32]  # [D], of unit length
Pixels = NDArray[np.uint8]  # [h, w, 3] RGB, the model's input


class Search(NamedTuple):
    """How to search, which hits are wanted, whether with their embeddings, how to look."""

    plan: Plan
    page: Page
    with_embeddings: bool = False
    augment: Augment = Augment.NONE


class PhotoFacts(NamedTuple):
    """What is told of a photo: hash of its bytes, upright size in pixels, format."""

    sha256: str
    width: int
    height: int
    format: str
    exif_rotated: bool


class Source(NamedTuple):
    """What is searched with: looks at a photo to embed, or an embedding; facts where it is a photo.

    The first look is the model's own, the others are those of `augment`.
    """

    facts: PhotoFacts | None = None
    looks: tuple[Pixels, ...] = ()
    embedding: Embedding | None = None
    augment: Augment = Augment.NONE


class Query(NamedTuple):
    """A source to search with, or, `search` None, only to embed."""

    source: Source
    search: Search | None


class Found(NamedTuple):
    """Hits of one query, whether others follow, and what was wanted beside.

    Embeddings fp32 [n, D]; what the hits stand for.
    """

    hits: list[Neighbour]
    has_more: bool = False
    embeddings: NDArray[np.float32] | None = None
    collapsed: Collapsed | None = None


class Answer(NamedTuple):
    """The query's embedding, what was found with it, and how.

    `batch_size` is how many photos shared its forward pass, 0 where there was none; the seconds
    are those of the whole batch.
    """

    embedding: Embedding
    found: Found
    generation: str
    batch_size: int
    infer_seconds: float
    search_seconds: float
    metadata_seconds: float
