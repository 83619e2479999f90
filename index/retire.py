"""Generations nobody needs leave: the live one, its parent and those being read stay."""

import shutil
from pathlib import Path

from index.layout import Layout
from index.lock import is_read_by_someone
from index.manifest import Manifest, generations, parse_manifest
from index.steps import Steps


def retire(layout: Layout, live: Manifest, *, steps: Steps) -> None:
    """Remove old manifests, then every file that no remaining manifest names."""
    steps("retire")
    for name in generations(layout):
        path = layout.manifest(name)
        if name not in (live.generation, live.parent) and not is_read_by_someone(path):
            path.unlink()
    kept = [_read(layout, name) for name in generations(layout)]
    named = {layout.root / part.file for one in kept for part in (one.tombstones, one.catalog)}
    named |= {layout.codebooks / one.codebook for one in kept}
    named |= {layout.shards / part.folder for one in kept for part in one.shards}
    for folder in (layout.tombstones, layout.catalogs, layout.codebooks, layout.shards):
        for path in folder.iterdir():
            if path not in named:
                _remove(path)
    steps("retired")


def _read(layout: Layout, name: str) -> Manifest:
    path = layout.manifest(name)
    return parse_manifest(path.read_bytes(), name=str(path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
