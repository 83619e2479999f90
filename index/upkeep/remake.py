"""Files of a generation made again from its other files, kept only with the hash they had."""

import os
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import partial
from hashlib import sha256
from pathlib import Path

from index.codebook.rotation import Rotation
from index.codebook.train import SEED
from index.encode import shard_bytes, write_lists
from index.errors import IndexFolderError
from index.faiss_check import held_ids, write_empty
from index.layout import Layout
from index.manifest import Manifest, ShardPart
from index.merge import coded_rows
from index.rows import RowRange
from index.store import EMBEDDING_DTYPE, ShardDocument, file_record, pack_live, write_whole
from multigrain.files import fsync_folder, sha256_of


def remake(layout: Layout, live: Manifest, path: Path, *, damaged: AbstractSet[Path]) -> bool:
    """Make a file of the live generation from files that are not damaged; False where not."""
    if path == layout.trained(live.codebook):
        return _make_codebook(layout, live, damaged)
    if path == layout.rotation(live.codebook):
        rotation = Rotation.random(live.model.D, seed=SEED)
        return _install(layout, path, rotation.write, _digest(layout, live, path))
    makers = {
        "ivf.faiss": _make_lists,
        "coded.bits": _make_coded,
        "SHARD.json": _make_document,
    }
    part = next((one for one in live.shards if layout.shards / one.folder == path.parent), None)
    maker = makers.get(path.name)
    return part is not None and maker is not None and maker(layout, live, part, damaged)


def _make_lists(
    layout: Layout, live: Manifest, part: ShardPart, damaged: AbstractSet[Path]
) -> bool:
    rows = RowRange(part.first_id, part.n, layout.embeddings(part.folder))
    needed = {rows.path, layout.trained(live.codebook), layout.coded_rows(part.folder)}
    if damaged & (needed | {layout.shard_document(part.folder)}):
        return False
    document = _document(layout, part)
    write = partial(
        write_lists,
        layout,
        rows,
        codebook=live.codebook,
        dim=live.model.D,
        coded=None if part.codes is None else coded_rows(layout, part.folder, document),
    )
    return _install(layout, layout.lists(part.folder), write, document.files["ivf.faiss"].sha256)


def _make_coded(
    layout: Layout, _live: Manifest, part: ShardPart, damaged: AbstractSet[Path]
) -> bool:
    if damaged & {layout.lists(part.folder), layout.shard_document(part.folder)}:
        return False
    ids = held_ids(layout.lists(part.folder))
    assert ids is not None  # Flat lists hold every row, so they have no coded.bits
    bits = pack_live(ids - part.first_id, num_ids=part.n)
    expected = _document(layout, part).files["coded.bits"].sha256
    return _install(layout, layout.coded_rows(part.folder), bits.tofile, expected)


def _make_document(
    layout: Layout, live: Manifest, part: ShardPart, damaged: AbstractSet[Path]
) -> bool:
    """SHARD.json says what the manifest and the files themselves say."""
    path = layout.shard_document(part.folder)
    files = sorted(file for file in path.parent.iterdir() if file != path)
    if damaged & set(files):
        return False
    document = ShardDocument(
        first_id=part.first_id,
        n=part.n,
        D=live.model.D,
        dtype=EMBEDDING_DTYPE.str,
        codebook=live.codebook,
        fingerprint=live.model.fingerprint,
        files={file.name: file_record(file) for file in files},
        codes=part.codes,
    )
    data = shard_bytes(document)
    if sha256(data).hexdigest() != part.sha256:
        return False
    write_whole(path, data)
    return True


def _make_codebook(layout: Layout, live: Manifest, damaged: AbstractSet[Path]) -> bool:
    """A shard's lists, emptied, are the codebook they were made with."""
    path, whole = layout.trained(live.codebook), [layout.lists(one.folder) for one in live.shards]
    expected = _digest(layout, live, path)
    return any(
        _install(layout, path, partial(write_empty, lists), expected)
        for lists in whole
        if lists not in damaged
    )


def _digest(layout: Layout, live: Manifest, path: Path) -> str:
    """How the hash of a codebook's file begins; old manifests know it by its folder's name."""
    name = path.relative_to(layout.root).as_posix()
    known = (part.sha256 for part in live.codebook_files if part.file == name)
    return next(known, live.codebook)


def _document(layout: Layout, part: ShardPart) -> ShardDocument:
    return ShardDocument.model_validate_json(layout.shard_document(part.folder).read_bytes())


def _install(layout: Layout, path: Path, write: Callable[[Path], object], expected: str) -> bool:
    """Write a file beside its place and put it there when its sha256 begins as expected."""
    temporary = layout.staging / f".{path.name}.tmp"
    try:
        write(temporary)
        if not sha256_of(temporary).startswith(expected):
            return False
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except IndexFolderError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
