"""Where the vectors of a test set's pictures come from: a model, or a file that another made.

n pictures, D embedding.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from multigrain.embedder import Embedder
from multigrain.ranking import Floats
from multigrain.truth import Rows
from trainer.evaluation.feature_file import FeatureError, FeatureFile, read_feature_file
from trainer.evaluation.models import Models
from trainer.evaluation.results import describe
from trainer.protocols.test_set import Picture

_MOST_NAMED = 5


class Embeddings(Protocol):
    """Gives the vectors of any pictures."""

    @property
    def is_whitened(self) -> bool:
        """Whether the dimensions are in the order of what they tell."""
        ...

    def of(self, pictures: Sequence[Picture]) -> Floats:
        """Unit rows float32 [n, D] in the order of the pictures, equal on every process."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the results state of them."""
        ...


class ModelEmbeddings(NamedTuple):
    """Vectors that a checkpoint's model makes, or has made before."""

    models: Models
    embedder: Embedder

    @property
    def is_whitened(self) -> bool:
        """Whether the model has a whitening: its dimensions come by their eigenvalues."""
        return self.embedder.document.embedding.whitening is not None

    def of(self, pictures: Sequence[Picture]) -> Floats:
        """Embed the pictures; raises UnreadableError naming photos that cannot be read."""
        return self.models.embed(self.embedder, pictures)

    def facts(self) -> dict[str, Any]:
        """What of the model changes its scores."""
        return {"checkpoint": str(self.models.checkpoint), **describe(self.embedder)}


class ReadyMade:
    """Vectors of a file, found by the path of their photo; relative ones are below its folder."""

    is_whitened = False

    def __init__(self, path: Path) -> None:
        """Read the file; raises FeatureError, also for a photo that has two rows."""
        self._path, self._file = path, read_feature_file(path)
        self._places = dict[str, int]()
        for place, name in _named(self._file, folder=path.parent):
            if self._places.setdefault(name, place) != place:
                raise FeatureError(f"--features {path}: two rows for {name}")

    def of(self, pictures: Sequence[Picture]) -> Floats:
        """The rows of whole pictures, at unit length.

        Raises FeatureError for pictures that have none, that are cut or turned (the file knows
        photos alone), and for rows that are zero or not finite.
        """
        if edited := [one for one in pictures if one.box is not None or one.turns]:
            raise FeatureError(
                f"--features {self._path} knows whole photos, and this test set cuts or turns "
                f"some, first {edited[0].path}: give a --checkpoint"
            )
        names = [os.path.realpath(one.path) for one in pictures]
        rows = self._file.rows[self._places_of(names)].astype(np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        is_bad = ~(np.isfinite(norms) & (norms > 0))[:, 0]
        if is_bad.any():
            raise FeatureError(
                f"--features {self._path}: {is_bad.sum()} rows are zero or not finite, first that "
                f"of {names[int(np.argmax(is_bad))]}"
            )
        rows /= norms
        return rows

    def _places_of(self, names: Sequence[str]) -> Rows:
        if missing := [name for name in names if name not in self._places]:
            more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
            raise FeatureError(
                f"--features {self._path} has no row for {', '.join(missing[:_MOST_NAMED])}{more}; "
                f"relative paths in it are taken to be below {self._path.parent.absolute()}"
            )
        return np.array([self._places[name] for name in names], np.int64)

    def facts(self) -> dict[str, Any]:
        """The file, and how long its rows are."""
        return {"features": str(self._path), "dim": int(self._file.rows.shape[1])}


def _named(file: FeatureFile, *, folder: Path) -> Iterator[tuple[int, str]]:
    for place, names in enumerate(file.names):
        for name in names:
            yield place, os.path.realpath(folder / name)
