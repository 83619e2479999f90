"""What a generation keeps beside its folder, in a database or in Milvus, compared with the folder.

Nothing here is mended: a build publishes again what is not there.
"""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from index.catalog_opening import open_catalog, open_catalog_file
from index.catalog_reader import CatalogReader
from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import Manifest
from index.milvus_lists import MilvusLists
from index.searching.live import live_flags
from index.upkeep.check_shard import Fault

_ROWS_AT_ONCE = 1000


def check_elsewhere(
    layout: Layout,
    manifest: Manifest,
    *,
    deep: bool,
    catalog: SecretStr | None = None,
    milvus_uri: SecretStr | None = None,
) -> Iterator[Fault]:
    """The faults of a generation's rows in its database and its Milvus, if it has them.

    Fast: the ids a database has live, the number of rows in Milvus. `deep`: what the database
    says of each, too. The addresses are the manifest's, unless others are given.
    """
    path = layout.manifest(manifest.generation)
    if manifest.database is None and manifest.milvus is None:
        return
    try:
        live_ids = np.flatnonzero(live_flags(layout, manifest))
        if manifest.database is not None:
            with closing(open_catalog(layout, manifest, catalog=catalog)) as reader:
                if what := _difference(layout, manifest, reader, live_ids, deep=deep):
                    place = f"catalog {manifest.database.url}, schema {manifest.database.namespace}"
                    yield Fault(path, f"{place}: {what}; drop the schema, then run index.build")
        if manifest.milvus is not None:
            uri = milvus_uri.get_secret_value() if milvus_uri else manifest.milvus.uri
            # Who opens a collection compares the number of rows.
            MilvusLists(uri, manifest.milvus, factory=manifest.factory, loaded=live_ids).close()
    except IndexFolderError as error:
        yield Fault(path, str(error))


def _difference(
    layout: Layout,
    manifest: Manifest,
    reader: CatalogReader,
    live_ids: NDArray[np.int64],
    *,
    deep: bool,
) -> str | None:
    found = reader.matching([])
    if not np.array_equal(found, live_ids):
        return f"{len(found)} live contents, not the {len(live_ids)} of the index"
    if deep:
        with closing(open_catalog_file(layout.root / manifest.catalog.file)) as file:
            for start in range(0, len(live_ids), _ROWS_AT_ONCE):
                ids = live_ids[start : start + _ROWS_AT_ONCE].tolist()
                here, there = file.stored(ids), reader.stored(ids)
                for one in ids:
                    if here[one] != there.get(one):
                        return f"content {one} is not what the index folder says of it"
    return None
