"""The live rows of an index, written for other programs: .npy with a list beside it, or Parquet.

Letters: n live rows, D embedding.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from index.catalog_opening import open_catalog
from index.catalog_reader import CatalogReader, Entry
from index.changes.follower import Follower
from index.changes.recent import Recent
from index.current import live_manifest
from index.errors import IndexFolderError
from index.layout import Layout
from index.lock import open_shared
from index.manifest import Manifest
from index.rows import RowRange, StoredRows
from index.searching.live import live_flags
from index.store import EMBEDDING_DTYPE, Rows16
from multigrain.files import write_via_temporary

_BLOCK_ROWS = 8192


class Block(NamedTuple):
    """Some live rows by id: ids int64 [b], fp16 [b, D], and the absolute files of each."""

    ids: NDArray[np.int64]
    rows: Rows16
    files: list[list[str]]


def export_index(root: Path, out: Path, *, catalog: SecretStr | None = None) -> int:
    """Write the live rows, by id, to `out`, with what no build has taken in; gives their number.

    `x.npy` holds fp16 [n, D], and `x.jsonl` a line for each row: id, path, paths. `x.parquet`
    holds id, path, paths and embedding (fp32). Raises IndexFolderError for another suffix, for
    Parquet without pyarrow, and for a damaged index.
    """
    writers = {".npy": _write_npy, ".parquet": _write_parquet}
    if out.suffix not in writers:
        raise IndexFolderError(f"--out {out}: give a name that ends in {' or '.join(writers)}")
    layout = Layout(Path(root))
    manifest = live_manifest(layout)
    # Held, so that no build removes it meanwhile.
    with (
        open_shared(layout.manifest(manifest.generation)),
        closing(open_catalog(layout, manifest, catalog=catalog)) as reader,
    ):
        recent = Follower(layout, manifest, reader).refresh()
        live = live_flags(layout, manifest)
        live[list(recent.hidden)] = False
        ids = np.flatnonzero(live).astype(np.int64)
        num_rows = len(ids) + len(recent.ids)
        # Adds have ids behind all others.
        blocks = chain(_built(layout, manifest, reader, recent, ids), _added(recent))
        writers[out.suffix](out, blocks, (num_rows, manifest.model.D))
    return num_rows


def _built(
    layout: Layout,
    manifest: Manifest,
    catalog: CatalogReader,
    recent: Recent,
    ids: NDArray[np.int64],
) -> Iterator[Block]:
    shards = manifest.shards
    ranges = (RowRange(one.first_id, one.n, layout.embeddings(one.folder)) for one in shards)
    rows = StoredRows(ranges, dim=manifest.model.D)
    for part in _parts(ids):
        found = catalog.entries(part.tolist())
        entries = {one: recent.relinked(one, found[one]) for one in found}
        yield _block(part, rows.gather(part), entries)


def _added(recent: Recent) -> Iterator[Block]:
    for part in _parts(recent.ids):
        yield _block(part, recent.rows.gather(part), recent.entries(part.tolist()))


def _parts(ids: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(ids), _BLOCK_ROWS):
        yield ids[start : start + _BLOCK_ROWS]


def _block(ids: NDArray[np.int64], rows: Rows16, entries: Mapping[int, Entry]) -> Block:
    return Block(ids, rows, [[str(file) for file in entries[one].files] for one in ids.tolist()])


def _write_npy(out: Path, blocks: Iterator[Block], shape: tuple[int, int]) -> None:
    with write_via_temporary(out) as array, write_via_temporary(out.with_suffix(".jsonl")) as text:
        header = {"descr": EMBEDDING_DTYPE.str, "fortran_order": False, "shape": shape}
        with array.open("wb") as rows, text.open("w", encoding="utf-8") as lines:
            np.lib.format.write_array_header_1_0(rows, header)
            for block in blocks:
                rows.write(block.rows.tobytes())
                for one, files in zip(block.ids.tolist(), block.files, strict=True):
                    line = {"id": one, "path": files[0], "paths": files}
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_parquet(out: Path, blocks: Iterator[Block], shape: tuple[int, int]) -> None:
    arrow, parquet = _pyarrow()
    kind = arrow.list_(arrow.float32(), shape[1])
    text = arrow.string()
    columns = {"id": arrow.int64(), "path": text, "paths": arrow.list_(text), "embedding": kind}
    schema = arrow.schema(list(columns.items()))
    with (
        write_via_temporary(out) as temporary,
        parquet.ParquetWriter(temporary, schema) as writer,
    ):
        for block in blocks:
            values = arrow.array(block.rows.astype(np.float32).ravel())
            embedding = arrow.FixedSizeListArray.from_arrays(values, shape[1])
            firsts = [files[0] for files in block.files]
            parts = [arrow.array(block.ids), arrow.array(firsts, text)]
            parts += [arrow.array(block.files, arrow.list_(text)), embedding]
            writer.write_table(arrow.Table.from_arrays(parts, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise IndexFolderError(
            "Parquet needs pyarrow: install multigrain-retrieval[parquet], or export to .npy"
        ) from None
    return pa, parquet
