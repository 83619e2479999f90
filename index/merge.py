"""Stage E: few shards, and lists that hold mostly live rows.

Letters: n rows of a shard, live and dead.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog_generations import ShardRecord
from index.codebook.train import Codebook
from index.encode import (
    begin_shard,
    install_shard,
    link_or_copy,
    read_shard,
    require_encoded,
    write_lists,
)
from index.faiss_merge import merge_codes
from index.layout import Layout
from index.rows import RowRange
from index.store import EMBEDDING_DTYPE, ShardDocument, pack_live, unpack_live
from index.workshop import Workshop
from multigrain.files import sha256_of

MAX_SMALL_SHARDS = 4
MAX_DEAD_SHARE = 0.2
_FLAT = "Flat"


class Filling(NamedTuple):
    """A shard, and a flag for each of its n rows: whether its lists hold it, whether it lives."""

    record: ShardRecord
    coded: NDArray[np.bool_]
    live: NDArray[np.bool_]

    @property
    def end(self) -> int:
        """The id behind its last one."""
        return self.record.first_id + self.record.n


def merge_shards(
    shop: Workshop, codebook: Codebook, *, shard_rows: int, force: bool = False
) -> int:
    """Rewrite the shards the rules ask for, `force`: whatever can be; gives how many have gone.

    All take the place of the old ones in one transaction, so that a kill leaves either.
    """
    require_encoded(shop.layout, shop.journal, codebook=codebook.name)
    live = np.zeros(shop.journal.next_id(), dtype=bool)
    live[shop.journal.live_ids()] = True
    fillings = [_filling(shop.layout, record, live) for record in shop.journal.shards()]
    dropped = [one.record for one in fillings if not one.live.any()]
    kept = [one for one in fillings if one.live.any()]
    groups = groups_to_rewrite(
        kept, shard_rows=shard_rows, has_ids=codebook.factory != _FLAT, force=force
    )
    if not groups and not dropped:
        return 0
    new = [_rewritten(shop, codebook, group, live) for group in groups]
    old = [one.record for group in groups for one in group]
    shop.journal.replace_shards(old, new, dropped=dropped)
    return len(old) + len(dropped)


def groups_to_rewrite(
    shards: Sequence[Filling], *, shard_rows: int, has_ids: bool, force: bool
) -> list[list[Filling]]:
    """Neighbouring shards that become one, and single ones whose lists are out of date.

    Up to four small shards stay as they are; of more, neighbours become one while their ids span
    no more than `shard_rows`. Lists without ids (Flat) count rows from the shard's first, so
    none can leave them.
    """
    small = [one for one in shards if _is_small(one, shard_rows)]
    groups = [[one] for one in shards]
    if len(small) > MAX_SMALL_SHARDS or force:
        groups = _neighbours(shards, shard_rows)
    return [
        group
        for group in groups
        if len(group) > 1 or (has_ids and _is_out_of_date(group[0], force=force))
    ]


def _is_small(shard: Filling, shard_rows: int) -> bool:
    # Two of them always fit into one shard, unless a gap of unused ids lies between them.
    return 2 * shard.record.n <= shard_rows


def _neighbours(shards: Sequence[Filling], shard_rows: int) -> list[list[Filling]]:
    groups = list[list[Filling]]()
    for one in shards:
        last = groups[-1] if groups else None
        can_join = last is not None and all(_is_small(part, shard_rows) for part in (*last, one))
        if last is not None and can_join and one.end - last[0].record.first_id <= shard_rows:
            last.append(one)
        else:
            groups.append([one])
    return groups


def _is_out_of_date(shard: Filling, *, force: bool) -> bool:
    """Whether too many codes are dead, or a content came back whose code has left the lists."""
    num_dead = np.count_nonzero(shard.coded & ~shard.live)
    share = 0.0 if force else MAX_DEAD_SHARE
    return bool(num_dead > share * np.count_nonzero(shard.coded)) or _lacks_live(shard)


def _lacks_live(shard: Filling) -> bool:
    return bool((shard.live & ~shard.coded).any())


def _filling(layout: Layout, record: ShardRecord, live: NDArray[np.bool_]) -> Filling:
    document = read_shard(
        layout, record.folder, expected_sha256=sha256_of(layout.shard_document(record.folder))
    )
    own = live[record.first_id : record.first_id + record.n]
    return Filling(record, coded_rows(layout, record.folder, document), own)


def coded_rows(layout: Layout, folder: str, document: ShardDocument) -> NDArray[np.bool_]:
    """Which rows of a shard its lists hold: bool [n]."""
    if document.codes is None:
        return np.ones(document.n, dtype=bool)
    return unpack_live(np.fromfile(layout.coded_rows(folder), np.uint8), num_ids=document.n)


def _rewritten(
    shop: Workshop, codebook: Codebook, group: list[Filling], live: NDArray[np.bool_]
) -> ShardRecord:
    """One shard of the rows of several; its lists hold the live ones."""
    first_id, end = group[0].record.first_id, group[-1].end
    coded = live[first_id:end] if codebook.factory != _FLAT else np.ones(end - first_id, bool)
    shop.steps("compact")
    temporary = begin_shard(shop.layout, first_id)
    _write_rows(shop.layout, group, temporary / "emb.f16", dim=shop.model.D)
    _write_lists(shop, codebook, group, temporary, coded=coded, live=live)
    num_codes = int(coded.sum())
    if num_codes < len(coded):
        bits = pack_live(np.flatnonzero(coded), num_ids=len(coded))
        (temporary / "coded.bits").write_bytes(bits.tobytes())
    document = ShardDocument(
        first_id=first_id,
        n=end - first_id,
        D=shop.model.D,
        dtype=EMBEDDING_DTYPE.str,
        codebook=codebook.name,
        fingerprint=shop.model.fingerprint,
        files={},
        codes=num_codes if num_codes < len(coded) else None,
    )
    folder = install_shard(shop.layout, temporary, document, steps=shop.steps)
    return ShardRecord(folder, first_id, end - first_id, codebook.name)


def _write_rows(layout: Layout, group: list[Filling], target: Path, *, dim: int) -> None:
    """The rows of all shards, zeros for unused ids between them."""
    if len(group) == 1:
        link_or_copy(layout.embeddings(group[0].record.folder), target)
        return
    row_bytes = dim * EMBEDDING_DTYPE.itemsize
    first_id = group[0].record.first_id
    with target.open("wb") as merged:
        for one in group:
            # What is skipped reads as zeros.
            merged.seek((one.record.first_id - first_id) * row_bytes)
            with layout.embeddings(one.record.folder).open("rb") as rows:
                shutil.copyfileobj(rows, merged)


def _write_lists(
    shop: Workshop,
    codebook: Codebook,
    group: list[Filling],
    temporary: Path,
    *,
    coded: NDArray[np.bool_],
    live: NDArray[np.bool_],
) -> None:
    trained, target = shop.layout.trained(codebook.name), temporary / "ivf.faiss"
    can_copy = codebook.factory != _FLAT and not any(map(_lacks_live, group))
    sources = [shop.layout.lists(one.record.folder) for one in group]
    if can_copy and merge_codes(trained, sources, target, live=live):
        return
    rows = RowRange(group[0].record.first_id, len(coded), temporary / "emb.f16")
    write_lists(
        shop.layout,
        rows,
        target,
        codebook=codebook.name,
        dim=shop.model.D,
        coded=coded,
        device=shop.device,
    )
