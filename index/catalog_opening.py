"""A generation's catalog opened for reading: the index folder's own file, or a database."""

from pathlib import Path

from pydantic import SecretStr

from index.catalog_engine import open_catalog_engine
from index.catalog_reader import CatalogReader
from index.catalog_server import open_namespace
from index.catalog_url import FILE, database_url, without_secrets
from index.errors import IndexFolderError
from index.layout import Layout
from index.manifest import Manifest


def open_catalog_file(path: Path) -> CatalogReader:
    """A catalog's file in an index folder."""
    index = path.absolute().parent.parent
    return CatalogReader(open_catalog_engine(path), name=str(path), index=index)


def open_catalog(
    layout: Layout, manifest: Manifest, *, catalog: SecretStr | None = None
) -> CatalogReader:
    """The catalog readers of a generation ask; `catalog` is its database's address.

    Without it the manifest's is taken, which has no password. Raises IndexFolderError for a
    database that does not answer or lacks the generation, and for one the index is not in.
    """
    require_same_kind(layout, manifest, catalog)
    database = manifest.database
    if database is None:
        return open_catalog_file(layout.root / manifest.catalog.file)
    url = database_url(catalog, recorded=database.url)
    assert url is not None
    engine = open_namespace(url, database.namespace, generation=manifest.generation)
    name = f"catalog {without_secrets(url)}, schema {database.namespace}"
    return CatalogReader(engine, name=name, index=layout.root.absolute())


def require_same_kind(layout: Layout, manifest: Manifest, catalog: SecretStr | None) -> None:
    """Refuse a database for an index without one, and the reverse; raises IndexFolderError."""
    if catalog is None:
        return
    is_file = catalog.get_secret_value() == FILE
    if manifest.database is None and not is_file:
        raise IndexFolderError(
            f"{layout.root}: its catalog is a file of its own; leave out --catalog and "
            "MULTIGRAIN_CATALOG, or put it into a database with index.build --catalog"
        )
    if manifest.database is not None and is_file:
        raise IndexFolderError(
            f"{layout.root}: its catalog is in {manifest.database.url}; give that address, with "
            "its password, as --catalog or in MULTIGRAIN_CATALOG"
        )
