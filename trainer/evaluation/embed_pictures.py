"""Embed the pictures of a test set: each once, by one of the processes, none padded.

n pictures, D embedding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from multigrain.ahead import in_order
from multigrain.augmented import Augment, decoded_side, embed_looks, looks_at
from multigrain.embedder import Embedder
from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError
from multigrain.progress import Progress
from multigrain.transforms import Pixels
from trainer.engine.processes import Processes
from trainer.evaluation.embedding_cache import EmbeddingCache, Vector, cache_key
from trainer.evaluation.picture_image import picture_image
from trainer.losses.gather import gather_rows
from trainer.protocols.test_set import Picture

# Photos that are embedded together are the same whatever the number of processes.
_HANDFUL = 64
_BATCH_SIZE = 16
_FEWEST_THREADS = 2  # decoding goes on while the model computes
_MOST_NAMED = 5


class UnreadableError(MultiGrainError):
    """Photos of a test set that cannot be read: a score without them would not be the set's."""


class Found(NamedTuple):
    """A picture's key, and its vector where it is known, the looks at it where not."""

    key: bytes
    vector: Vector | None
    looks: Sequence[Pixels]


def embed_pictures(
    pictures: Sequence[Picture],
    embedder: Embedder,
    cache: EmbeddingCache,
    processes: Processes,
    *,
    augment: Augment = Augment.NONE,
    say: Callable[[str], None],
) -> npt.NDArray[np.float32]:
    """Unit rows [n, D] in the order of the pictures, on every process; `augment` of all of them.

    Raises UnreadableError, on every process, naming photos that cannot be read.
    """
    num_handfuls = -(-len(pictures) // _HANDFUL)
    mine = [
        number
        for handful in range(processes.rank, num_handfuls, processes.world)
        for number in range(handful * _HANDFUL, min((handful + 1) * _HANDFUL, len(pictures)))
    ]
    own = [pictures[number] for number in mine]
    vectors, bad = _embed_own(own, embedder, cache, augment=augment, say=say)
    cache.flush()
    refused = [line for lines in processes.gather(bad) for line in lines]
    if refused:
        more = f" and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
        raise UnreadableError(
            f"{len(refused)} photos cannot be read: {'; '.join(refused[:_MOST_NAMED])}{more}"
        )
    numbers = gather_rows(torch.tensor(mine, dtype=torch.int64).to(processes.device))
    rows = gather_rows(torch.from_numpy(vectors).to(processes.device)).cpu().numpy()
    ordered = np.empty_like(rows)
    ordered[numbers.cpu().numpy()] = rows
    return ordered


def _embed_own(
    pictures: Sequence[Picture],
    embedder: Embedder,
    cache: EmbeddingCache,
    *,
    augment: Augment,
    say: Callable[[str], None],
) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Vectors of this process's pictures, and a line for each that cannot be read."""

    def find(picture: Picture) -> Found | PhotoError:
        try:
            return _find(picture, embedder, cache, augment)
        except PhotoError as error:
            return error

    vectors = np.empty((len(pictures), embedder.dim), np.float32)
    bad, num_cached = list[str](), 0
    progress = Progress(len(pictures), "pictures")
    num_threads = max(_FEWEST_THREADS, torch.get_num_threads())
    waiting = in_order(find, pictures, num_threads=num_threads, window=2 * _HANDFUL)
    for start in range(0, len(pictures), _HANDFUL):
        batch = dict[int, tuple[bytes, Sequence[Pixels]]]()
        for row in range(start, min(start + _HANDFUL, len(pictures))):
            found = next(waiting)
            if isinstance(found, PhotoError):
                bad.append(f"{pictures[row].path} ({found.code})")
            elif found.vector is not None:
                vectors[row] = found.vector
                num_cached += 1
            else:
                batch[row] = found.key, found.looks
        if batch:
            keys, looks = zip(*batch.values(), strict=True)
            vectors[list(batch)] = embed_looks(embedder, looks, batch_size=_BATCH_SIZE)
            cache.put(keys, vectors[list(batch)])
        progress.update(min(start + _HANDFUL, len(pictures)))
    progress.close()
    if num_cached:
        say(f"{num_cached} of {len(pictures)} embeddings were known from an earlier run")
    return vectors, bad


def _find(picture: Picture, embedder: Embedder, cache: EmbeddingCache, augment: Augment) -> Found:
    try:
        data = picture.path.read_bytes()
    except OSError as error:
        raise PhotoError("photo_unreadable", f"{picture.path}: {error.strerror}") from error
    edit = f"{picture.box} {picture.turns}"
    key = cache_key(data, edit if augment == Augment.NONE else f"{edit} {augment}")
    known = cache.get(key)
    return Found(key, known, _looks(picture, data, embedder, augment) if known is None else [])


def _looks(picture: Picture, data: bytes, embedder: Embedder, augment: Augment) -> list[Pixels]:
    rule = embedder.preprocessing
    is_whole = picture.box is None and not picture.turns
    min_side = decoded_side(rule, augment) if is_whole else None
    return looks_at(picture_image(picture, data, min_side=min_side), rule, augment)
