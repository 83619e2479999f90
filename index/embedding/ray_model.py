"""A checkpoint's model in processes of Ray's, and photos decoded for it."""

from functools import partial
from pathlib import Path

import torch

from index.embedding.messages import ModelName
from index.embedding.ray_engine import RayCrew
from multigrain.cpus import num_cpus
from multigrain.embedder import Embedder
from multigrain.fetched import local_file
from multigrain.locations import Url
from multigrain.prepared import read_prepared


def crew_on_ray(checkpoint: Path | Url, embedder: Embedder, *, timeout_seconds: float) -> RayCrew:
    """Ray's workers, which decode as this model does, and open it on the same engine.

    The checkpoint lies at the same path on every machine, or at an address each fetches it from.
    """
    open_embedder = partial(
        _open,
        checkpoint.absolute() if isinstance(checkpoint, Path) else checkpoint,
        ModelName.of(embedder),
        device=embedder.device.partition(":")[0],  # Ray shows a process no GPU but its own
    )
    read = partial(read_prepared, preprocessing=embedder.preprocessing)
    return RayCrew(read=read, open_embedder=open_embedder, timeout_seconds=timeout_seconds)


def _open(checkpoint: Path | Url, model: ModelName, *, device: str) -> Embedder:
    """The model, with all processors of its machine, which it shares with those who read."""
    torch.set_num_threads(num_cpus())
    path = local_file(checkpoint)
    return Embedder.open(path, device=device, engine=model.engine, precision=model.precision)
