"""Damaged files of an index folder made again, or removed where only a build can make them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from index.current import current_manifest
from index.layout import Layout
from index.manifest import Manifest
from index.upkeep.check_shard import Fault
from index.upkeep.remake import remake
from index.upkeep.repair_adds import Repair, repair_adds

_NEXT_BUILD = {
    "emb.f16": "removed: the next index.build embeds its photos again, ids stay",
    "ivf.faiss": "removed: the next index.build encodes its rows again",
    "trained.faiss": "removed: the next index.build trains it again",
    "rotation.f32": "removed: the next index.build trains the codebook again",
    "coded.bits": "removed: the next index.build encodes its rows again",
    ".bits": "removed: the next index.build publishes it anew",
    ".sqlite": "removed: the next index.build publishes it anew",
    ".safetensors": "removed: the next index.build copies it from --checkpoint",
}
_LEFT = "left: the next index.build passes over it and publishes anew"
_SAYS_ONLY = (
    "left: it only says how the codebook was trained; without it the next index.build trains again"
)
_OLD = "left: it is of an older generation, which leaves with the next one"


def repair(layout: Layout, faults: Sequence[Fault]) -> Iterator[Repair]:
    """Make again what can be made from other files of the folder, remove what a build makes."""
    live = current_manifest(layout)
    of_adds = {fault.file for fault in faults if fault.file.parent in (layout.adds, layout.uploads)}
    yield from repair_adds(layout, sorted(of_adds))
    damaged = {fault.file for fault in faults} - of_adds
    for path in sorted(damaged, key=_turn):
        if live is None or not _belongs_to(layout, live, path):
            yield Repair(path, _LEFT if path.suffix == ".json" else _OLD, is_whole=False)
        elif remake(layout, live, path, damaged=damaged):
            damaged.discard(path)
            yield Repair(path, "made again, with the same hash", is_whole=True)
        else:
            yield Repair(path, _removed(path), is_whole=False)


def _turn(path: Path) -> tuple[int, Path]:
    """Files others are made from come first; SHARD.json is made from its folder's files."""
    order = ("emb.f16", "rotation.f32", "trained.faiss", "coded.bits", "ivf.faiss", "SHARD.json")
    return (order.index(path.name) if path.name in order else -1, path)


def _belongs_to(layout: Layout, live: Manifest, path: Path) -> bool:
    named = {layout.root / part.file for part in (live.tombstones, live.catalog)}
    named.add(layout.checkpoint(live.model.fingerprint))
    folders = {layout.shards / part.folder for part in live.shards}
    folders.add(layout.codebooks / live.codebook)
    return path in named or path.parent in folders


def _removed(path: Path) -> str:
    for end, what in _NEXT_BUILD.items():
        if path.name.endswith(end):
            path.unlink(missing_ok=True)
            return what
    if path.name == "train.json":
        return _SAYS_ONLY
    return "left: the next index.build encodes the shard's rows again"
