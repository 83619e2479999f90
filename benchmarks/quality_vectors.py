"""Embeddings of the tests' photos by trunk, exponent, size and side, computed once."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import multigrain
from benchmarks.quality import Trunk
from multigrain.augmented import mirrored
from multigrain.embedder import Embedder
from multigrain.photo import open_photo
from trainer.pretrained import PretrainedConfig, make_pretrained

Rows = npt.NDArray[np.float32]  # [N, D], unit rows
_CHUNK = 64
# Sources that decide a vector: after a change to one of them nothing kept is taken.
_SOURCES = ("backbone*", "embedder", "engine*", "model", "photo", "pooling", "transforms")


class Look(NamedTuple):
    """How a photo is looked at: GeM's exponent, side in pixels, mirrored; `crop`: the usual way."""

    p: float = 3.0
    size: int = 225
    mirror: bool = False
    crop: bool = False

    @property
    def name(self) -> str:
        """Of the file that keeps its vectors."""
        marks = ("-mirror" if self.mirror else "") + ("-crop" if self.crop else "")
        return f"p{self.p:g}-{self.size}{marks}"


class Vectors:
    """Vectors of a list of photos by one trunk, kept in files.

    The last `num_fitted` are only for fitting: other looks than the first leave them out.
    """

    def __init__(
        self, photos: Sequence[Path], trunk: Trunk, data: Path, folder: Path, *, num_fitted: int
    ) -> None:
        self._photos, self._num_fitted = photos, num_fitted
        self._weights = {
            "backbone": trunk.backbone,
            "weights": str(data / trunk.weights),
            "weights_licence": trunk.licence,
        }
        self._folder = folder / f"{trunk.backbone}-{_digest([*photos, data / trunk.weights])}"
        self._folder.mkdir(parents=True, exist_ok=True)

    def of(self, look: Look) -> Rows:
        """Unit rows of the photos, in their order."""
        path = self._folder / f"{look.name}.npy"
        if not path.exists():
            rows = self._embedded(look)
            np.save(path.with_suffix(".tmp.npy"), rows)
            path.with_suffix(".tmp.npy").rename(path)
        return np.load(path)

    def _embedded(self, look: Look) -> Rows:
        out = self._folder / f"p{look.p:g}{'-crop' if look.crop else ''}.safetensors"
        if not out.exists():
            rule = "crop" if look.crop else "whole"
            make_pretrained(PretrainedConfig(**self._weights, out=out, rule=rule, p=look.p))
        embedder = Embedder.open(out)
        rule = embedder.preprocessing.model_copy(update={"size": look.size})
        num_photos = len(self._photos) - (0 if look == Look() else self._num_fitted)
        parts = []
        for start in range(0, num_photos, _CHUNK):
            images = [
                rule.prepare(open_photo(path, min_side=rule.min_side).image)
                for path in self._photos[start : min(start + _CHUNK, num_photos)]
            ]
            looks = [mirrored(one) for one in images] if look.mirror else images
            parts.append(embedder.embed_pixels(looks))
        return np.concatenate(parts)


def _digest(files: Sequence[Path]) -> str:
    """Of the files by name and size, and of the sources by content."""
    package = Path(multigrain.__file__).parent
    sources = sorted(path for name in _SOURCES for path in package.glob(f"{name}.py"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path} {path.stat().st_size}\n".encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
