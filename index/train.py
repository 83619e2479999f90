"""Stage C: a codebook for the live rows, trained on a random sample of them."""

import json
import secrets
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.faiss_train import TRAIN_ROWS_PER_LIST, num_lists, train_codebook
from index.layout import Layout
from index.manifest import Manifest, canonical_json
from index.rows import StoredRows
from index.steps import Steps
from index.store import install_folder
from multigrain.cpus import num_cpus
from multigrain.files import sha256_of

_SEED = 20190214
_NAME_LENGTH = 12


class Codebook(NamedTuple):
    """A trained codebook: the name of its folder and its faiss string."""

    name: str
    factory: str


def find_codebook(
    layout: Layout,
    live_ids: NDArray[np.int64],
    *,
    factory: str,
    parent: Manifest | None,
    fingerprint: str,
) -> Codebook | None:
    """The parent generation's codebook while it is of the same string.

    Else one that a build which did not come to its end trained on these very rows; else None.
    """
    if parent and parent.factory == factory and layout.trained(parent.codebook).is_file():
        return Codebook(parent.codebook, factory)
    wanted = _request(live_ids, factory=factory, fingerprint=fingerprint)
    for path in sorted(layout.codebooks.glob("*/train.json")):
        trained = layout.trained(path.parent.name)
        is_ours = wanted.items() <= json.loads(path.read_bytes()).items()
        if is_ours and trained.is_file() and _name_of(trained) == path.parent.name:
            return Codebook(path.parent.name, factory)
    return None


def train_live(
    layout: Layout,
    rows: StoredRows,
    live_ids: NDArray[np.int64],
    *,
    factory: str,
    fingerprint: str,
    dim: int,
    steps: Steps,
) -> Codebook:
    """Train a codebook on the live rows."""
    sample = _sample(rows, live_ids, num_lists=num_lists(factory, dim=dim))
    request = _request(live_ids, factory=factory, fingerprint=fingerprint)
    return Codebook(_train(layout, sample, request, steps=steps), factory)


def _request(live_ids: NDArray[np.int64], *, factory: str, fingerprint: str) -> dict[str, object]:
    """What decides a codebook, as train.json begins."""
    live = sha256(live_ids.astype("<i8").tobytes()).hexdigest()
    return {"factory": factory, "fingerprint": fingerprint, "n": len(live_ids), "live": live}


def _sample(
    rows: StoredRows, live_ids: NDArray[np.int64], *, num_lists: int
) -> NDArray[np.float32]:
    """Random live rows, in id order: the first ones of a sorted folder would train half a model."""
    num_rows = min(len(live_ids), TRAIN_ROWS_PER_LIST * num_lists)
    chosen = np.random.default_rng(_SEED).choice(live_ids, num_rows, replace=False)
    return rows.gather(np.sort(chosen)).astype(np.float32)


def _train(
    layout: Layout, sample: NDArray[np.float32], report: dict[str, object], *, steps: Steps
) -> str:
    steps("train")
    temporary = layout.codebooks / f".{secrets.token_hex(8)}.tmp"
    temporary.mkdir()
    trained = temporary / "trained.faiss"
    training = train_codebook(
        str(report["factory"]), sample, trained, seed=_SEED, num_threads=num_cpus()
    )
    report |= {"D": sample.shape[1], "seed": _SEED, "n_train": len(sample), **training._asdict()}
    (temporary / "train.json").write_bytes(canonical_json(report))
    name = _name_of(trained)
    install_folder(temporary, layout.codebooks / name, steps=steps)
    return name


def _name_of(trained: Path) -> str:
    return sha256_of(trained)[:_NAME_LENGTH]
