"""Which files a generation consists of, and what their bytes must be."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import FilePart, Manifest, ShardPart
from index.store import ShardDocument
from multigrain.files import sha256_of


def shard_files(layout: Layout, manifest: Manifest) -> Iterator[FilePart]:
    """The files of its shards that their SHARD.json names; raises IndexFolderError.

    Those lie in the folder already.
    """
    for part in manifest.shards:
        path = layout.shard_document(part.folder)
        if not is_document(path, part=part):
            raise IndexFolderError(f"{path}: missing, or its hash is not the manifest's")
        document = ShardDocument.model_validate_json(path.read_bytes())
        folder = path.parent.relative_to(layout.root)
        for name, record in document.files.items():
            file = (folder / name).as_posix()
            yield FilePart(file=file, sha256=record.sha256, size=record.size)


def is_document(path: Path, *, part: ShardPart) -> bool:
    """Whether a file is the SHARD.json that a manifest names."""
    return path.is_file() and sha256(path.read_bytes()).hexdigest() == part.sha256


def is_whole(path: Path, *, part: FilePart, deep: bool) -> bool:
    """Whether a file is there with the right size, and with `deep` with the right bytes."""
    if not path.is_file() or path.stat().st_size != part.size:
        return False
    return not deep or sha256_of(path) == part.sha256


def require_complete(manifest: Manifest, *, name: str) -> None:
    """Refuse a manifest that does not know all its files; raises IndexFolderError."""
    if manifest.checkpoint is None or not manifest.codebook_files:
        raise IndexFolderError(
            f"{name}: written by an early version, without checksums of checkpoint and codebook; "
            "build into a new --out"
        )


def shard_documents(layout: Layout, manifest: Manifest) -> Iterator[FilePart]:
    """The SHARD.json of its shards, which lie in the folder; raises IndexFolderError."""
    for part in manifest.shards:
        path = layout.shard_document(part.folder)
        if not path.is_file():
            raise IndexFolderError(f"{path}: missing")
        file = path.relative_to(layout.root).as_posix()
        yield FilePart(file=file, sha256=part.sha256, size=path.stat().st_size)
