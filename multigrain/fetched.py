"""A file that lies in an object store, fetched to this machine once."""

import os
from hashlib import sha256
from pathlib import Path

from multigrain.cache_folder import default_cache_dir
from multigrain.files import write_via_temporary
from multigrain.locations import Url
from multigrain.object_store import ObjectStore, ObjectStoreError


def local_file(place: Path | Url, *, cache_dir: Path | None = None) -> Path:
    """The path of a file; one of an address is fetched to `cache_dir`, unless it did not change.

    The default is the user's cache. Raises ObjectStoreError; ObjectMissingError where nothing is.
    """
    if isinstance(place, Path):
        return place
    store = ObjectStore(place)
    found = store.stat()
    # As it is now: a later state lies beside it under another name.
    marks = f"{place} {found.size} {found.modified_ns} {found.mark}"
    folder = (cache_dir or default_cache_dir(os.environ)) / "files"
    path = folder / sha256(marks.encode()).hexdigest()[:16] / found.name
    if not path.is_file() or path.stat().st_size != found.size:
        with write_via_temporary(path) as temporary:
            store.download("", temporary)
            if temporary.stat().st_size != found.size:
                raise ObjectStoreError(f"{place}: cut off, or replaced while it was fetched")
    return path
