"""The models of an evaluation: the checkpoint, and what it is at another size or exponent.

n pictures, D embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from multigrain.augmented import Augment
from multigrain.checkpoint import load_checkpoint, save_checkpoint
from multigrain.config import ConfigError
from multigrain.embedder import Embedder
from multigrain.ranking import Floats
from trainer.engine.processes import Processes
from trainer.evaluation.embed_pictures import embed_pictures
from trainer.evaluation.embedding_cache import EmbeddingCache
from trainer.finishing.exponent_use import set_exponent
from trainer.protocols.test_set import Picture


class Change(NamedTuple):
    """Another side of the model's input, another exponent of its pooling; None leaves its own."""

    size: int | None = None
    exponent: float | None = None


class Models(NamedTuple):
    """How the checkpoint is opened, and where its embeddings are kept: `cache`.

    `out` is where a changed checkpoint lies until it is opened.
    """

    checkpoint: Path
    cache: Path
    out: Path
    engine: str
    precision: str
    augment: Augment
    processes: Processes
    say: Callable[[str], None]

    def open(self, change: Change = Change()) -> Embedder:  # noqa: B008 - it cannot change
        """Open the changed checkpoint; all processes take the engine that the first has chosen.

        Raises CheckpointError, and ConfigError for an exponent of a pooling that has none.
        """
        with self._changed(change) as path:
            if self.processes.is_first:
                embedder = self._opened(path, self.engine)
                self.processes.gather(embedder.engine)
            else:
                chosen = self.processes.gather("")[0]
                is_cpu = self.processes.device.type == "cpu"
                embedder = self._opened(path, chosen if is_cpu else "torch")
            self.processes.wait()  # before the file goes
        return embedder

    def embed(self, embedder: Embedder, pictures: Sequence[Picture]) -> Floats:
        """Unit rows of the pictures [n, D], those of earlier runs from the cache."""
        model = f"{embedder.fingerprint[:16]}-{embedder.engine}-{embedder.precision}"
        return embed_pictures(
            pictures,
            embedder,
            EmbeddingCache.open(self.cache / model, dim=embedder.dim),
            self.processes,
            augment=self.augment,
            say=self.say,
        )

    def _opened(self, path: Path, engine: str) -> Embedder:
        return Embedder.open(
            path,
            device=str(self.processes.device),
            engine=engine,
            precision=self.precision,
            num_threads=torch.get_num_threads(),
        )

    @contextmanager
    def _changed(self, change: Change) -> Iterator[Path]:
        """A checkpoint of its own: whatever goes by the fingerprint keeps them apart."""
        if change == Change():
            yield self.checkpoint
            return
        path = self.out / "changed.safetensors"
        if self.processes.is_first:
            write_changed(self.checkpoint, path, change)
        self.processes.wait()
        try:
            yield path
        finally:
            if self.processes.is_first:
                path.unlink(missing_ok=True)


def write_changed(checkpoint: Path, out: Path, change: Change) -> None:
    """Write the checkpoint with another size or exponent in its document.

    Raises CheckpointError, and ConfigError for an exponent of a pooling that has none.
    """
    model, document, _ = load_checkpoint(checkpoint)
    # It pools as at its own size; at one without an exponent of its own the trained one holds.
    set_exponent(model, document.pooling.p)
    pooling, preprocessing = document.pooling, document.preprocessing
    if change.exponent is not None and pooling.p is None:
        raise ConfigError(f"{checkpoint} is pooled by {pooling.kind}, which has no exponent")
    size = change.size or preprocessing.size
    if change.exponent is not None:
        by_size = pooling.p_by_size | {size: change.exponent}
        pooling = pooling.model_copy(update={"p_by_size": by_size})
    changed = document.model_copy(
        update={
            "pooling": pooling,
            "preprocessing": preprocessing.model_copy(update={"size": size}),
        }
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, model, changed)
