"""Comparing an index folder with what its manifests promise; every fault names a file."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog_hashes import published_hashes
from index.current import generations, read_current
from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import FilePart, Manifest, ShardPart, parse_manifest
from index.store import unpack_live
from index.upkeep.check_adds import check_adds
from index.upkeep.check_shard import (
    Fault,
    check_shard,
    check_shard_files,
    differing,
    missing_or_cut,
)
from multigrain.checkpoint import load_checkpoint
from multigrain.errors import MultiGrainError


class Found(NamedTuple):
    """The faults of a folder, and how many files were looked at."""

    faults: list[Fault]
    num_files: int


class _Job(NamedTuple):
    """A shard to check, of the newest generation that names it."""

    part: ShardPart
    manifest: Manifest


def check_folder(layout: Layout, *, deep: bool) -> Found:
    """Check every generation whose manifest is there; raises IndexFolderError where none is.

    Fast: sizes, headers, counts, and the hashes of small files. `deep`: every byte, every row
    and every id.
    """
    if not generations(layout):
        raise IndexFolderError(f"{layout.root}: no index here; make one with python -m index.build")
    faults = list(_check_current(layout))
    manifests = list[Manifest]()
    for one in _check_manifests(layout):
        if isinstance(one, Fault):
            faults.append(one)
        else:
            manifests.append(one)
    files = {part.file: part for one in manifests for part in one.files}
    for part in files.values():
        # Opening hashes the bitmap too, which is small.
        faults += _check_file(layout.root / part.file, part, deep=deep or _is_bitmap(part))
    live = {one.generation: _bitmap(layout, one) for one in manifests}
    jobs = {part.folder: _Job(part, one) for one in manifests for part in one.shards}
    for job in jobs.values():
        own = _own(live[job.manifest.generation], job.part)
        faults += check_shard(layout, job.part, dim=job.manifest.model.D, live=own, deep=deep)
    for one in manifests:
        faults += _check_counts(layout, one, live[one.generation])
        faults += _check_codebook(layout, one, deep=deep)
        faults += _check_model(layout, one, deep=deep)
    # What the newest has taken in leaves with the generation before it.
    folded = max((one.adds.folded for one in manifests), default=0)
    faults += check_adds(layout, folded=folded, deep=deep)
    num_files = 1 + len(generations(layout)) + len(files)
    num_files += sum(len(list((layout.shards / folder).glob("*"))) for folder in jobs)
    return Found(list(dict.fromkeys(faults)), num_files)


def check_generation(layout: Layout, manifest: Manifest) -> Iterator[Fault]:
    """The faults of the files one generation names, by every checksum."""
    for part in manifest.files:
        yield from _check_file(layout.root / part.file, part, deep=True)
    for shard in manifest.shards:
        yield from check_shard_files(layout, shard, deep=True)
    yield from _check_codebook(layout, manifest, deep=True)
    yield from _check_model(layout, manifest, deep=True)


def _check_current(layout: Layout) -> Iterator[Fault]:
    pointer = read_current(layout)
    if pointer is None:
        yield Fault(layout.current, "missing, or not the name and hash of a manifest")
        return
    if layout.current.read_bytes() != pointer.line:
        yield Fault(layout.current, "not as it was written")
    if not layout.manifest(pointer.generation).exists():
        yield Fault(layout.manifest(pointer.generation), "missing, and CURRENT names it")


def _check_manifests(layout: Layout) -> Iterator[Fault | Manifest]:
    """Manifests oldest first, and the faults of those that are not whole."""
    pointer, hashes = read_current(layout), _hashes(layout)
    for name in generations(layout):
        path = layout.manifest(name)
        data = path.read_bytes()
        digest = sha256(data).hexdigest()
        if pointer is not None and name == pointer.generation:
            if digest != pointer.sha256:
                yield Fault(path, "its hash is not the one in CURRENT; one of the two is damaged")
                continue
        elif digest != hashes.get(name, digest):
            yield Fault(path, "its hash is not the one in the catalogs of later generations")
            continue
        try:
            yield parse_manifest(data, name=str(path))
        except IndexFolderError as error:
            yield Fault(path, str(error).removeprefix(f"{path}: "))


def _hashes(layout: Layout) -> dict[str, str]:
    """Manifest hashes as later catalogs remember them; a broken catalog is found by its own."""
    hashes = dict[str, str]()
    for path in sorted(layout.catalogs.glob("*.sqlite")):
        try:
            hashes |= published_hashes(path)
        except IndexFolderError:
            continue
    return hashes


def _is_bitmap(part: FilePart) -> bool:
    return part.file.endswith(".bits")


def _check_file(path: Path, part: FilePart, *, deep: bool) -> Iterator[Fault]:
    fault = missing_or_cut(path, part.size)
    if fault is None and deep:
        fault = differing(path, part.sha256)
    if fault is not None:
        yield fault


def _check_codebook(layout: Layout, manifest: Manifest, *, deep: bool) -> Iterator[Fault]:
    """The codebook of a manifest that does not know its hash, by its folder's name."""
    path = layout.trained(manifest.codebook)
    if manifest.codebook_files:
        return
    if not path.is_file():
        yield Fault(path, "missing")
    elif deep and (fault := differing(path, manifest.codebook)):
        yield fault


def _check_model(layout: Layout, manifest: Manifest, *, deep: bool) -> Iterator[Fault]:
    """The checkpoint of a manifest that does not know its hash, by its fingerprint."""
    if manifest.checkpoint is not None:
        return
    path = layout.checkpoint(manifest.model.fingerprint)
    if not path.is_file():
        yield Fault(path, "missing")
    elif deep:
        try:
            fingerprint = load_checkpoint(path).fingerprint
        except MultiGrainError as error:
            yield Fault(path, str(error))
        else:
            if fingerprint != manifest.model.fingerprint:
                yield Fault(path, "its fingerprint is not the manifest's")


def _check_counts(
    layout: Layout, manifest: Manifest, live: NDArray[np.bool_] | None
) -> Iterator[Fault]:
    num_rows = sum(part.n for part in manifest.shards)
    if num_rows != manifest.counts.rows:
        path = layout.manifest(manifest.generation)
        yield Fault(path, f"counts {manifest.counts.rows} rows, its shards hold {num_rows}")
    if live is not None and int(live.sum()) != manifest.counts.live:
        path = layout.root / manifest.tombstones.file
        yield Fault(path, f"{int(live.sum())} live, the manifest counts {manifest.counts.live}")


def _own(live: NDArray[np.bool_] | None, part: ShardPart) -> NDArray[np.bool_] | None:
    return None if live is None else live[part.first_id : part.first_id + part.n]


def _bitmap(layout: Layout, manifest: Manifest) -> NDArray[np.bool_] | None:
    """The live flag of each id; None where the file is damaged, which is a fault of its own."""
    part = manifest.tombstones
    if any(_check_file(layout.root / part.file, part, deep=True)):
        return None
    bits = np.fromfile(layout.root / part.file, dtype=np.uint8)
    return unpack_live(bits, num_ids=manifest.counts.next_id)
