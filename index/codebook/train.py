"""Stage C: a codebook for the live rows, trained on a random sample of them."""

import json
import secrets
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.codebook.rotation import Rotation, needs_rotation
from index.faiss_gpu import FaissDevice
from index.faiss_train import TRAIN_ROWS_PER_LIST, Training, num_lists, train_codebook
from index.layout import Layout
from index.manifest import FilePart, Manifest, canonical_json
from index.rows import StoredRows
from index.steps import Steps
from index.store import Rows16, install_folder
from multigrain.cpus import num_cpus
from multigrain.files import sha256_of

SEED = 20190214
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
    is_same = parent is not None and parent.factory == factory
    if parent and is_same and _is_whole(layout, parent):
        return Codebook(parent.codebook, factory)
    wanted = _request(live_ids, factory=factory, fingerprint=fingerprint)
    for path in sorted(layout.codebooks.glob("*/train.json")):
        name = path.parent.name
        is_ours = wanted.items() <= _report(path).items()
        if is_ours and _is_there(layout, name, factory) and _name_of(path.parent) == name:
            return Codebook(name, factory)
    return None


def _is_whole(layout: Layout, parent: Manifest) -> bool:
    return _is_there(layout, parent.codebook, parent.factory) and not cut_files(layout, parent)


def cut_files(layout: Layout, parent: Manifest) -> list[Path]:
    """Files of the generation's codebook that are missing or of another size."""
    sizes = {layout.root / part.file: part.size for part in parent.codebook_files}
    return [
        path for path, size in sizes.items() if not path.is_file() or path.stat().st_size != size
    ]


def codebook_files(layout: Layout, name: str, parent: Manifest | None) -> list[FilePart]:
    """The files of a codebook, with checksums; those its first generation recorded stay."""
    if parent and parent.codebook == name and parent.codebook_files:
        return parent.codebook_files
    return [
        FilePart(
            file=path.relative_to(layout.root).as_posix(),
            sha256=sha256_of(path),
            size=path.stat().st_size,
        )
        for path in sorted((layout.codebooks / name).iterdir())
    ]


def _is_there(layout: Layout, name: str, factory: str) -> bool:
    """Whether a codebook's files are; RaBitQ's of before it was rotated is made again."""
    files = [layout.trained(name)]
    if needs_rotation(factory):
        files.append(layout.rotation(name))
    return all(path.is_file() for path in files)


def train_live(
    layout: Layout,
    rows: StoredRows,
    live_ids: NDArray[np.int64],
    *,
    factory: str,
    fingerprint: str,
    dim: int,
    steps: Steps,
    device: str = "cpu",
    faiss_device: FaissDevice | None = None,
) -> Codebook:
    """Train a codebook on the live rows: lists on `device`, the code on `faiss_device`."""
    sample = _sample(rows, live_ids, num_lists=num_lists(factory, dim=dim))
    request = _request(live_ids, factory=factory, fingerprint=fingerprint)
    training = partial(
        train_codebook,
        factory,
        sample,
        seed=SEED,
        num_threads=num_cpus(),
        device=device,
        faiss_device=faiss_device,
    )
    return Codebook(_train(layout, sample, request, training, steps=steps), factory)


def _report(path: Path) -> dict[str, object]:
    try:
        report: dict[str, object] = json.loads(path.read_bytes())
    except ValueError:  # damaged: what it was trained on is not known any more
        return {}
    return report


def _request(live_ids: NDArray[np.int64], *, factory: str, fingerprint: str) -> dict[str, object]:
    """What decides a codebook, as train.json begins."""
    live = sha256(live_ids.astype("<i8").tobytes()).hexdigest()
    return {"factory": factory, "fingerprint": fingerprint, "n": len(live_ids), "live": live}


def _sample(rows: StoredRows, live_ids: NDArray[np.int64], *, num_lists: int) -> Rows16:
    """Random live rows, in id order: the first ones of a sorted folder would train half a model."""
    num_rows = min(len(live_ids), TRAIN_ROWS_PER_LIST * num_lists)
    chosen = np.random.default_rng(SEED).choice(live_ids, num_rows, replace=False)
    return rows.gather(np.sort(chosen))


def _train(
    layout: Layout,
    sample: Rows16,
    report: dict[str, object],
    training: Callable[..., Training],
    *,
    steps: Steps,
) -> str:
    steps("train")
    temporary = layout.codebooks / f".{secrets.token_hex(8)}.tmp"
    temporary.mkdir()
    factory, dim = str(report["factory"]), sample.shape[1]
    rotation = Rotation.random(dim, seed=SEED) if needs_rotation(factory) else Rotation()
    rotation.write(temporary / "rotation.f32")
    trained = training(path=temporary / "trained.faiss", rotation=rotation)
    report |= {"D": dim, "seed": SEED, "n_train": len(sample), **trained._asdict()}
    (temporary / "train.json").write_bytes(canonical_json(report))
    name = _name_of(temporary)
    install_folder(temporary, layout.codebooks / name, steps=steps)
    return name


def _name_of(folder: Path) -> str:
    """The hash of what decides the codes: the trained index and, where there is one, the rotation.

    Without a rotation it is the trained index's own hash, as it always was.
    """
    name = sha256_of(folder / "trained.faiss")
    if (folder / "rotation.f32").exists():
        name = sha256(f"{name} {sha256_of(folder / 'rotation.f32')}".encode()).hexdigest()
    return name[:_NAME_LENGTH]
