"""The rows of a generation put into a Milvus collection, whole or not at all.

A collection is named by what it holds, so one that is complete is never loaded twice, and one
that a killed build left is told by its missing index and made anew.
"""

from collections.abc import Collection, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexFolderError
from index.manifest import MilvusPart, ShardPart, canonical_json
from index.milvus_address import parse_address
from index.milvus_client import (
    EMBEDDING,
    ID,
    METRIC,
    is_there,
    milvus_errors,
    num_rows_of,
    open_client,
)
from index.milvus_index import MilvusIndex, milvus_index
from index.rows import Rows
from index.searching.candidates import unit_blocks
from index.steps import Steps

_PREFIX = "multigrain"
# Flushing, making lists and loading: 1e8 rows take hours.
_LOAD_SECONDS = 6 * 3600.0
_SECONDS = 60.0


class MilvusServer:
    """The Milvus that a builder puts an index folder's rows into.

    A folder's collections begin with a token of its path and of when it was `begun`: its copy,
    and a folder of the same path on another machine, load their own and drop no other's.
    """

    def __init__(self, uri: str, *, folder: Path) -> None:
        self._address = parse_address(uri)
        self.uri, self._owner = self._address.uri, f"multigrain index {folder}"
        self._client = open_client(self._address)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def has(self, part: MilvusPart) -> bool:
        """Whether a collection is there with all its rows."""
        with milvus_errors(self._address, doing=f"asking for collection {part.collection}"):
            return self._is_whole(part.collection, part.rows)

    def load(
        self,
        rows: Rows,
        live_ids: NDArray[np.int64],
        *,
        shards: Iterable[ShardPart],
        factory: str,
        begun: str,
        steps: Steps,
    ) -> MilvusPart:
        """Load the live rows, ids int64 [n] ascending, of some shards; gives where they are.

        Nothing is done where they are there already. Raises IndexFolderError where Milvus
        refuses, has no such index, or holds another number of rows in the end.
        """
        index = milvus_index(factory)
        contents = {
            "shards": [[part.folder, part.sha256] for part in shards],
            "live": sha256(live_ids.tobytes()).hexdigest(),
            "index": [index.type, index.params],
        }
        digest = sha256(canonical_json(contents)).hexdigest()[:16]
        name = f"{self._token(begun)}_{digest}"
        with milvus_errors(self._address, doing=f"loading collection {name}"):
            if not self._is_whole(name, len(live_ids)):
                steps("load into milvus")
                self._fill(name, rows, live_ids, index)
                steps("milvus loaded")
            found = num_rows_of(self._client, name)
        if found != len(live_ids):
            raise IndexFolderError(
                f"milvus {self.uri}: collection {name} holds {found} rows instead of "
                f"{len(live_ids)}; run again, which loads it anew"
            )
        return MilvusPart(uri=self.uri, collection=name, index=index.type, rows=len(live_ids))

    def switch(self, collection: str, *, begun: str) -> None:
        """Let the folder's alias name a collection."""
        alias = self._token(begun)
        with milvus_errors(self._address, doing=f"switching alias {alias}"):
            if not is_there(self._client, alias):
                self._client.create_alias(collection, alias, timeout=_SECONDS)
            elif self._client.describe_alias(alias)["collection_name"] != collection:
                self._client.alter_alias(collection, alias, timeout=_SECONDS)

    def retire(self, kept: Collection[str], *, begun: str, steps: Steps) -> None:
        """Drop this folder's collections but those kept; what a killed build left goes too."""
        prefix = f"{self._token(begun)}_"
        with milvus_errors(self._address, doing="dropping old collections"):
            for name in self._client.list_collections(timeout=_SECONDS):
                if name.startswith(prefix) and name not in kept:
                    self._client.drop_collection(name, timeout=_SECONDS)
                    steps("dropped from milvus")

    def _is_whole(self, name: str, num_rows: int) -> bool:
        """Whether all rows are there; the index is made behind the last of them."""
        if not is_there(self._client, name) or not self._client.list_indexes(name):
            return False
        self._client.load_collection(name, timeout=_LOAD_SECONDS)
        return num_rows_of(self._client, name) == num_rows

    def _fill(self, name: str, rows: Rows, live_ids: NDArray[np.int64], index: MilvusIndex) -> None:
        if is_there(self._client, name):
            self._client.drop_collection(name, timeout=_SECONDS)
        self._create(name, dim=rows.dim)
        for ids, units in unit_blocks(rows, live_ids):
            block = zip(ids.tolist(), units, strict=True)
            self._client.insert(
                name, [{ID: one, EMBEDDING: row} for one, row in block], timeout=_LOAD_SECONDS
            )
        self._client.flush(name, timeout=_LOAD_SECONDS)
        params = self._client.prepare_index_params()
        # One level deeper than pymilvus's own examples: Milvus reads both, Milvus Lite only this.
        params.add_index(
            field_name=EMBEDDING,
            index_type=index.type,
            metric_type=METRIC,
            params={"params": index.params},
        )
        self._client.create_index(name, params, timeout=_LOAD_SECONDS)
        self._client.load_collection(name, timeout=_LOAD_SECONDS)

    def _create(self, name: str, *, dim: int) -> None:
        from pymilvus import DataType

        schema: Any = self._client.create_schema(
            auto_id=False, enable_dynamic_field=False, description=self._owner
        )
        schema.add_field(ID, DataType.INT64, is_primary=True)
        schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=dim)
        self._client.create_collection(name, schema=schema, timeout=_SECONDS)

    def _token(self, begun: str) -> str:
        return f"{_PREFIX}_{sha256(f'{self._owner} {begun}'.encode()).hexdigest()[:12]}"
