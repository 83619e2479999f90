"""Single photos put into a published index by hand, beside its collections.

They are named in a list of the index folder, `added.jsonl`, which is a collection like any other.
"""

import json
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from pydantic import SecretStr

from index.backend import PUBLISHED_FOR, Backend
from index.build_report import BuildReport
from index.builder import TARGET_RECALL, BuildOptions, build_index
from index.collection.photo_file import read_photo_file
from index.collection.reading import PhotoEmbedder
from index.errors import IndexFolderError
from index.steps import Steps, no_steps
from index.store import write_whole
from index.workshop import Workshop, reopen_workshop
from multigrain.photo_limits import DEFAULT_LIMITS
from multigrain.photo_list import is_utf8, read_photo_list


def add_photos(
    root: Path,
    photos: Sequence[Path],
    embedder: PhotoEmbedder,
    *,
    decode_threads: int | None = None,
    steps: Steps = no_steps,
    catalog: SecretStr | None = None,
    backend: Backend = PUBLISHED_FOR,
) -> BuildReport:
    """Embed photos and publish the index with them; bytes that were removed get a new id.

    Bytes that are live already gain a path. Raises IndexFolderError for a folder or a list,
    PhotoError for a file that cannot be read.
    """
    files = [_absolute(path) for path in photos]
    hashes = [_hash(file) for file in files]
    with reopen_workshop(root, steps=steps, catalog=catalog, backend=backend) as shop:
        assert shop.parent is not None
        _write_list(shop, files)
        shop.journal.give_up(hashes, root=str(shop.layout.added))
        layout, factory = shop.layout, shop.parent.factory
        target = shop.parent.search.target or TARGET_RECALL
    return build_index(
        [layout.added],
        layout.checkpoint(embedder.fingerprint),
        layout.root,
        embedder,
        BuildOptions(
            factory=factory,
            target_recall=target,
            decode_threads=decode_threads,
            steps=steps,
            catalog=catalog,
            backend=backend,
        ),
    )


def _absolute(path: Path) -> Path:
    file = Path(os.path.abspath(path))  # noqa: PTH100 - links in the name stay as the user wrote them
    if not is_utf8(str(file)):
        raise IndexFolderError(f"{str(file)!r}: the name is not UTF-8; rename it")
    if file.is_dir():
        raise IndexFolderError(f"{path}: a folder; give it to index.build as --photos")
    return file


def _hash(file: Path) -> bytes:
    return sha256(read_photo_file(file, max_bytes=DEFAULT_LIMITS.max_bytes)).digest()


def _write_list(shop: Workshop, files: Sequence[Path]) -> None:
    """Name the files in the list, behind those it names; what else a row says stays."""
    path = shop.layout.added
    listed = {one.path: one.attributes for one in read_photo_list(path)} if path.exists() else {}
    rows = listed | {str(file): listed.get(str(file), {}) for file in files}
    if rows != listed:
        lines = [json.dumps({"path": name} | rows[name], ensure_ascii=False) for name in rows]
        write_whole(path, "".join(f"{line}\n" for line in lines).encode(), steps=shop.steps)
