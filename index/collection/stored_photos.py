"""Photos in an object store, found as the files of a folder are."""

from collections.abc import Iterator

from index.catalog_scan import FoundPhoto
from index.collection.photo_file import PATH_INVALID
from multigrain.locations import Url
from multigrain.object_store import ObjectMissingError, ObjectStore, StoredObject


def scan_objects(url: Url) -> Iterator[FoundPhoto]:
    """Every object below an address whose path has no part that begins with ".", in scan order.

    A folder at a time: a store may hold more objects than memory. Change marks are its time of
    writing, its size and the store's own tag. Raises ObjectStoreError.
    """
    store = ObjectStore(url)
    listed = [("", iter(store.folder()))]
    while listed:
        prefix, names = listed[-1]
        for one in names:
            if one.name == "/":  # a part without a name, which no path of ours has
                yield FoundPhoto(f"{prefix}/", 0, 0, 0, 0, PATH_INVALID, None, _class_of(prefix))
            elif one.name.endswith("/") and not one.name.startswith("."):
                listed.append((prefix + one.name, iter(_inside(store, prefix + one.name))))
                break
            elif not one.name.startswith("."):
                yield _found(prefix, one)
        else:
            listed.pop()


def _inside(store: ObjectStore, folder: str) -> list[StoredObject]:
    try:
        return store.folder(folder.rstrip("/"))
    except ObjectMissingError:  # its last object left while others were listed
        return []


def _found(prefix: str, one: StoredObject) -> FoundPhoto:
    path, label = prefix + one.name, _class_of(prefix)
    return FoundPhoto(path, 0, one.mark, one.size, one.modified_ns, None, None, label)


def _class_of(prefix: str) -> str | None:
    """The class of photos below a folder "a/b/", as of those on a disk."""
    return prefix.partition("/")[0] or None
