"""Generations nobody needs leave: the live one, its parent and those being read stay."""

import logging
import shutil
from pathlib import Path

from index.current import generations
from index.errors import IndexFolderError
from index.layout import Layout
from index.lock import is_read_by_someone
from index.manifest import Manifest, parse_manifest
from index.steps import Steps

_logger = logging.getLogger(__name__)


def retire(layout: Layout, live: Manifest, *, steps: Steps) -> None:
    """Remove old manifests, then every file that no remaining manifest names."""
    steps("retire")
    for name in generations(layout):
        path = layout.manifest(name)
        if name not in (live.generation, live.parent) and not is_read_by_someone(path):
            path.unlink()
    read = [_read(layout, name) for name in generations(layout)]
    kept = [one for one in read if one is not None]
    if len(kept) < len(read):
        # Its files cannot be told from those nobody needs; the next generation but one parts
        # with the manifest, and then with them.
        steps("retired")
        return
    named = {layout.root / part.file for one in kept for part in (one.tombstones, one.catalog)}
    named |= {layout.codebooks / one.codebook for one in kept}
    named |= {layout.shards / part.folder for one in kept for part in one.shards}
    for folder in (layout.tombstones, layout.catalogs, layout.codebooks, layout.shards):
        for path in folder.iterdir():
            if path not in named:
                _remove(path)
    steps("retired")


def _read(layout: Layout, name: str) -> Manifest | None:
    path = layout.manifest(name)
    try:
        return parse_manifest(path.read_bytes(), name=str(path))
    except (OSError, IndexFolderError) as error:
        _logger.warning("old files are kept: %s", error)
        return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
