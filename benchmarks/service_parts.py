"""What the service's benchmark is run on: a checkpoint, an index of it, and JPEG files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.index_build import Case, draw_photo
from benchmarks.index_data import DIM, FileEmbedder, synthetic_views, write_rows
from index.builder import build_index
from multigrain.checkpoint import save_checkpoint
from multigrain.document import Document, EmbeddingSpec, WhiteningSpec, plain_document
from multigrain.embedder import Embedder
from multigrain.model import MultiGrain
from multigrain.transforms import Preprocessing

SIZE = 224
# Photos of about 0.3 and 3 MB, as a browser and as a phone sends them.
SMALL = Case("0.3 MB", 1152, 864, 32, 7.0, 0.0)
LARGE = Case("3 MB", 4000, 3000, 8, 6.0, 0.0)


class Parts(NamedTuple):
    """An index folder and the model it was made for, with the cache of its converted form."""

    index: Path
    cache: Path


def make_parts(folder: Path, *, trunk: str, feature_dim: int, num_rows: int) -> Parts:
    """An index of synthetic rows that a trunk with random weights can be asked of.

    Speed is all that is measured: random weights cost what trained ones cost. One that lies in the
    folder is taken as it is.
    """
    parts = Parts(folder / "index", folder / "cache")
    if (folder / "made").exists():
        return parts
    folder.mkdir(parents=True)
    checkpoint, cache = folder / "model.safetensors", parts.cache
    _write_checkpoint(checkpoint, trunk=trunk, feature_dim=feature_dim)
    embedder = Embedder.open(checkpoint, cache_dir=cache)
    rows = synthetic_views(num_rows, num_queries=1).rows
    photos = write_rows(folder / "rows", rows, order=np.arange(num_rows))
    build_index([photos], checkpoint, parts.index, _StandIn(embedder))
    # The canaries' photos are gone, and so passed over: the model never made these rows.
    for path in photos.iterdir():
        path.unlink()
    (folder / "made").touch()
    return parts


def write_jpegs(folder: Path, case: Case) -> Path:
    """Files of one size; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(case.num_photos):
        path = folder / f"{seed:03d}.jpg"
        if not path.exists():
            path.write_bytes(draw_photo(case, seed))
    return folder


class _StandIn(FileEmbedder):
    """Rows in files, under the name of a model."""

    def __init__(self, embedder: Embedder) -> None:
        self.fingerprint = embedder.fingerprint
        self.engine, self.precision = embedder.engine, embedder.precision
        self.preprocessing = embedder.preprocessing


def _write_checkpoint(path: Path, *, trunk: str, feature_dim: int) -> None:
    plain = plain_document(
        backbone_name=trunk,
        feature_dim=feature_dim,
        preprocessing=Preprocessing(size=SIZE),
        p=3.0,
    )
    whitening = WhiteningSpec(**{"in": feature_dim}, out=DIM, photos=1, size=SIZE)
    document = Document.model_validate(
        plain.model_dump() | {"embedding": EmbeddingSpec(dim=DIM, whitening=whitening)}
    )
    torch.manual_seed(0)
    model = MultiGrain.build(document)
    assert model.whiten is not None
    model.whiten.projection.copy_(normalize(torch.randn_like(model.whiten.projection)))
    save_checkpoint(path, model, document)
