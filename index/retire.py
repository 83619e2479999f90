"""Generations nobody needs leave: the live one, its parent and those being read stay."""

import logging
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from index.catalog_publishing import CatalogServer
from index.changes.segment import remove_segments
from index.current import generations
from index.encode import read_shard
from index.errors import IndexFolderError
from index.layout import Layout
from index.lock import is_read_by_someone
from index.manifest import Manifest, parse_manifest
from index.milvus_loading import MilvusServer
from index.steps import Steps
from index.store import require_size

_logger = logging.getLogger(__name__)


def retire(
    layout: Layout,
    live: Manifest,
    *,
    steps: Steps,
    server: CatalogServer | None = None,
    milvus: MilvusServer | None = None,
    begun: str = "",
) -> None:
    """Remove old manifests, then everything they alone name: files, catalogs, collections.

    Catalogs are those in the database of a `server`, collections those in `milvus`. A parent that
    has lost files of its own could not take the live one's place, and goes too.
    """
    parent = _read(layout, live.parent) if live.parent else None
    has_use = parent is not None and _has_files(layout, parent)
    needed = {live.generation, live.parent if has_use else None}
    retire_but(layout, needed, steps=steps, server=server, milvus=milvus, begun=begun)


def retire_but(
    layout: Layout,
    needed: Collection[str | None],
    *,
    steps: Steps,
    server: CatalogServer | None = None,
    milvus: MilvusServer | None = None,
    begun: str = "",
) -> None:
    """The same, of all generations but these and those being read."""
    old = [
        layout.manifest(name)
        for name in generations(layout)
        if name not in needed and not is_read_by_someone(layout.manifest(name))
    ]
    _remove(old, steps=steps)
    read = [_read(layout, name) for name in generations(layout)]
    kept = [one for one in read if one is not None]
    # The files of one that cannot be read cannot be told from those nobody needs; the next
    # generation but one parts with the manifest, and then with them.
    if len(kept) == len(read):
        _remove(_unnamed(layout, kept), steps=steps)
        if server is not None:
            named = [one.database.namespace for one in kept if one.database]
            server.retire(named, begun=begun, steps=steps)
        if milvus is not None:
            loaded = [one.milvus.collection for one in kept if one.milvus]
            milvus.retire(loaded, begun=begun, steps=steps)
        remove_segments(layout, up_to=min(one.adds.folded for one in kept), steps=steps)


def _unnamed(layout: Layout, kept: Sequence[Manifest]) -> list[Path]:
    named = {layout.root / part.file for one in kept for part in (one.tombstones, one.catalog)}
    named |= {layout.codebooks / one.codebook for one in kept}
    named |= {layout.shards / part.folder for one in kept for part in one.shards}
    folders = (layout.tombstones, layout.catalogs, layout.codebooks, layout.shards)
    return [path for folder in folders for path in folder.iterdir() if path not in named]


def _has_files(layout: Layout, manifest: Manifest) -> bool:
    try:
        for part in (manifest.catalog, manifest.tombstones, *manifest.codebook_files):
            require_size(layout.root / part.file, part.size)
        for shard in manifest.shards:
            read_shard(layout, shard.folder, expected_sha256=shard.sha256)
    except IndexFolderError as error:
        _logger.warning("generation %s leaves: %s", manifest.generation, error)
        return False
    return True


def _read(layout: Layout, name: str) -> Manifest | None:
    path = layout.manifest(name)
    try:
        return parse_manifest(path.read_bytes(), name=str(path))
    except (OSError, IndexFolderError) as error:
        _logger.warning("old files are kept: %s", error)
        return None


def _remove(paths: Sequence[Path], *, steps: Steps) -> None:
    if not paths:
        return
    steps("retire")
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    steps("retired")
