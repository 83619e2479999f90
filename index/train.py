"""Stage C: a codebook for the live rows, trained on a random sample of them."""

import secrets
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


def choose_codebook(
    layout: Layout,
    rows: StoredRows,
    live_ids: NDArray[np.int64],
    *,
    factory: str,
    parent: Manifest | None,
    fingerprint: str,
    dim: int,
    steps: Steps,
) -> Codebook:
    """The parent generation's codebook while it is of the same string, else a new one."""
    if parent and parent.factory == factory and layout.trained(parent.codebook).is_file():
        return Codebook(parent.codebook, factory)
    sample = _sample(rows, live_ids, num_lists=num_lists(factory, dim=dim))
    report = {"factory": factory, "fingerprint": fingerprint, "n": len(live_ids)}
    return Codebook(_train(layout, sample, report, steps=steps), factory)


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
    name = sha256_of(trained)[:_NAME_LENGTH]
    install_folder(temporary, layout.codebooks / name, steps=steps)
    return name
