"""Stage D: a shard's rows and lists, installed under the hash of its description."""

import os
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.catalog_generations import ShardRecord
from index.catalog_journal import Journal
from index.codebook.rotation import Rotation
from index.errors import IndexFolderError
from index.faiss_encode import EncodedShard, encode_rows
from index.faiss_gpu import FaissDevice
from index.layout import Layout
from index.manifest import canonical_json
from index.rows import RowRange
from index.steps import Steps
from index.store import (
    EMBEDDING_DTYPE,
    ShardDocument,
    file_record,
    install_folder,
    map_rows,
    require_size,
)
from multigrain.cpus import num_cpus

_NAME_LENGTH = 16


def row_ranges(layout: Layout, journal: Journal) -> list[RowRange]:
    """Every row of the build: those of shards, and staged ones; each range once."""
    ranges = {
        record.first_id: RowRange(record.first_id, record.n, layout.embeddings(record.folder))
        for record in journal.shards()
    }
    for part in journal.staged():
        if part.num_rows:  # one without rows only keeps ids back
            ranges[part.first_id] = RowRange(part.first_id, part.num_rows, layout.staged(part.name))
    return [ranges[first_id] for first_id in sorted(ranges)]


def encode_missing(
    layout: Layout,
    journal: Journal,
    *,
    codebook: str,
    fingerprint: str,
    dim: int,
    steps: Steps,
    device: str = "cpu",
    faiss_device: FaissDevice | None = None,
) -> list[ShardRecord]:
    """Encode every row range that has no shard of this codebook yet; gives all of its shards."""
    done = {record.first_id for record in journal.shards() if record.codebook == codebook}
    for part in row_ranges(layout, journal):
        if part.first_id not in done:
            folder = encode_shard(
                layout,
                part,
                codebook=codebook,
                fingerprint=fingerprint,
                dim=dim,
                steps=steps,
                device=device,
                faiss_device=faiss_device,
            )
            journal.add_shard(ShardRecord(folder, part.first_id, part.n, codebook))
    journal.keep_shards_of(codebook)
    for leftover in layout.staging.iterdir():
        leftover.unlink()
    return journal.shards()


def require_encoded(layout: Layout, journal: Journal, *, codebook: str) -> None:
    """Refuse to go on while there are rows without lists; raises IndexFolderError."""
    is_encoded = all(record.codebook == codebook for record in journal.shards())
    if not is_encoded or any(part.num_rows for part in journal.staged()):
        raise IndexFolderError(
            f"{layout.root}: there are rows that no shard of the codebook holds; run the stage "
            "encode"
        )


def encode_shard(
    layout: Layout,
    rows: RowRange,
    *,
    codebook: str,
    fingerprint: str,
    dim: int,
    steps: Steps,
    device: str = "cpu",
    faiss_device: FaissDevice | None = None,
) -> str:
    """Write one shard from its rows, which are linked, not copied; gives the folder's name."""
    require_size(rows.path, rows.n * dim * EMBEDDING_DTYPE.itemsize)
    steps("encode")
    temporary = begin_shard(layout, rows.first_id)
    link_or_copy(rows.path, temporary / "emb.f16")
    encoded = write_lists(
        layout,
        rows,
        temporary / "ivf.faiss",
        codebook=codebook,
        dim=dim,
        device=device,
        faiss_device=faiss_device,
    )
    document = ShardDocument(
        first_id=rows.first_id,
        n=rows.n,
        D=dim,
        dtype=EMBEDDING_DTYPE.str,
        codebook=codebook,
        fingerprint=fingerprint,
        files={"emb.f16": encoded.rows, "ivf.faiss": encoded.lists},
    )
    return install_shard(layout, temporary, document, steps=steps)


def write_lists(
    layout: Layout,
    rows: RowRange,
    target: Path,
    *,
    codebook: str,
    dim: int,
    coded: NDArray[np.bool_] | None = None,
    device: str = "cpu",
    faiss_device: FaissDevice | None = None,
) -> EncodedShard:
    """Encode a row file's rows, or those of them that are to be `coded`, bool [n]."""
    return encode_rows(
        layout.trained(codebook),
        map_rows(rows.path, num_rows=rows.n, dim=dim),
        target,
        rotation=Rotation.open(layout.rotation(codebook), dim=dim),
        first_id=rows.first_id,
        coded=coded,
        num_threads=num_cpus(),
        device=device,
        faiss_device=faiss_device,
    )


def begin_shard(layout: Layout, first_id: int) -> Path:
    """An empty temporary folder for a shard's files."""
    temporary = layout.staging / f".{first_id:016d}.tmp"
    temporary.mkdir()
    return temporary


def install_shard(layout: Layout, temporary: Path, document: ShardDocument, *, steps: Steps) -> str:
    """Describe the files of a temporary folder and give it its name, which is returned.

    Files that the document does not describe yet are read for their checksums.
    """
    files = {
        file.name: document.files.get(file.name) or file_record(file)
        for file in sorted(temporary.iterdir())
    }
    whole = document.model_copy(update={"files": files})
    data = shard_bytes(whole)
    (temporary / "SHARD.json").write_bytes(data)
    folder = sha256(data).hexdigest()[:_NAME_LENGTH]
    install_folder(temporary, layout.shards / folder, steps=steps)
    return folder


def shard_bytes(document: ShardDocument) -> bytes:
    """SHARD.json, byte for byte."""
    return canonical_json(document.model_dump(mode="json", exclude_none=True))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:  # each file system says so in its own way
        shutil.copyfile(source, target)


def first_free_id(layout: Layout) -> int:
    """The first id behind every shard of the folder, whichever generation it is of."""
    ends = [0]
    for path in layout.shards.glob("*/SHARD.json"):
        data = path.read_bytes()
        if sha256(data).hexdigest().startswith(path.parent.name):
            document = ShardDocument.model_validate_json(data)
            ends.append(document.first_id + document.n)
    return max(ends)


def read_shard(layout: Layout, folder: str, *, expected_sha256: str) -> ShardDocument:
    """A shard's description, checked with the sizes of its files; raises IndexFolderError."""
    path = layout.shard_document(folder)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be read ({error.strerror})") from error
    if sha256(data).hexdigest() != expected_sha256:
        raise IndexFolderError(f"{path}: damaged, its hash is not the manifest's")
    document = ShardDocument.model_validate_json(data)
    for name, record in document.files.items():
        require_size(path.parent / name, record.size)
    return document
