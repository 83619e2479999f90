"""What a published catalog says of the generations before its own."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from index.catalog import generation
from index.catalog_engine import open_catalog_engine
from index.errors import IndexFolderError


def published_hashes(catalog: Path) -> dict[str, str]:
    """Manifest hashes of earlier generations; raises IndexFolderError for a broken catalog."""
    engine = open_catalog_engine(catalog)
    try:
        with engine.connect() as connection:
            chosen = select(generation.c.name, generation.c.manifest_sha256)
            rows = connection.execute(chosen.where(generation.c.manifest_sha256.is_not(None)))
            return {str(name): str(digest) for name, digest in rows}
    except DBAPIError as error:
        raise IndexFolderError(f"{catalog}: damaged ({error.orig})") from error
    finally:
        engine.dispose()
