"""The live rows of an index, written for other programs: .npy with a list beside it, or Parquet.

Letters: n live rows, D embedding.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.catalog_reader import CatalogReader
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


def export_index(root: Path, out: Path) -> int:
    """Write the live rows, by id, to `out`; gives their number.

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
    with open_shared(layout.manifest(manifest.generation)):
        ids = np.flatnonzero(live_flags(layout, manifest)).astype(np.int64)
        writers[out.suffix](out, _blocks(layout, manifest, ids), (len(ids), manifest.model.D))
    return len(ids)


def _blocks(layout: Layout, manifest: Manifest, ids: NDArray[np.int64]) -> Iterator[Block]:
    shards = manifest.shards
    ranges = (RowRange(one.first_id, one.n, layout.embeddings(one.folder)) for one in shards)
    rows = StoredRows(ranges, dim=manifest.model.D)
    with closing(CatalogReader(layout.root / manifest.catalog.file)) as catalog:
        for start in range(0, len(ids), _BLOCK_ROWS):
            part = ids[start : start + _BLOCK_ROWS]
            entries = catalog.entries(part.tolist())
            files = [[str(file) for file in entries[one].files] for one in part.tolist()]
            yield Block(part, rows.gather(part), files)


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
