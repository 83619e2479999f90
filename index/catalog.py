"""The catalog's tables, and how its two kinds of files are opened.

`build.sqlite` is the builder's own (WAL); a generation's catalog is a copy of it, immutable.
"""

import posixpath
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    JSON,
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from index.errors import IndexFolderError

tables = MetaData()

# A folder's root ends in "/", a list's root is the list file: dirname(root) is then the folder
# both kinds of relative paths start from.
collection = Table(
    "collection",
    tables,
    Column("collection_id", Integer, primary_key=True),
    Column("root", Text, nullable=False, unique=True),
    Column("created", Text, nullable=False),
)
content = Table(
    "content",
    tables,
    Column("id", Integer, primary_key=True),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("bytes", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("format", Text, nullable=False),
)
# `error` is a code, or a code, a space and the sha256 of the bytes that failed; `seen` and
# `deleted` are numbers of scans, never times.
photo = Table(
    "photo",
    tables,
    Column("photo_id", Integer, primary_key=True),
    Column("collection_id", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("dev", Integer, nullable=False),
    Column("ino", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("content_id", Integer),
    Column("error", Text),
    Column("seen", Integer, nullable=False),
    Column("deleted", Integer),
    Column("attributes", JSON(none_as_null=True)),
    UniqueConstraint("collection_id", "path"),
)
tombstone = Table(
    "tombstone",
    tables,
    Column("sha256", LargeBinary, primary_key=True),
    Column("id", Integer, nullable=False),
)
shard = Table(
    "shard",
    tables,
    Column("folder", Text, primary_key=True),
    Column("first_id", Integer, nullable=False),
    Column("n", Integer, nullable=False),
    Column("codebook", Text, nullable=False),
)
progress = Table(
    "progress",
    tables,
    Column("staging", Text, primary_key=True),
    Column("durable_rows", Integer, nullable=False),
)
# A row without a hash is the generation being built: something differs from the last published.
generation = Table(
    "generation",
    tables,
    Column("name", Text, primary_key=True),
    Column("manifest_sha256", Text),
)

# Made before the first publish, after the bulk load, which it would slow.
_HYDRATION_INDEX = (
    "CREATE INDEX IF NOT EXISTS photo_by_content ON photo (content_id, path) WHERE deleted IS NULL"
)

_JOURNAL_PRAGMAS = (
    "page_size=8192",
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "busy_timeout=10000",
    "cache_size=-65536",
    f"mmap_size={1 << 30}",
    "temp_store=MEMORY",
    "wal_autocheckpoint=4000",
)


def photo_file(root: str, path: str) -> Path:
    """The file a photo's row stands for; an absolute path of a list stays itself."""
    return Path(posixpath.dirname(root), path)


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn the database's errors into IndexFolderError, naming the file and what to do."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        # Operational: a full disk, a lock, permissions. Any other is about the file's content.
        is_outside = isinstance(cause, sqlite3.OperationalError)
        remedy = (
            "mend it, then run again to continue"
            if is_outside
            else "remove the file: the next build makes it again from the live generation"
        )
        raise IndexFolderError(f"{path}: {cause}; {remedy}") from error


def open_journal_engine(path: Path) -> Engine:
    """The builder's database, with its tables made where they are missing."""
    # pool_size 0: no limit, as every decoding thread keeps one connection.
    engine = create_engine(f"sqlite:///{path}", pool_size=0)

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in _JOURNAL_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    tables.create_all(engine)
    return engine


def open_catalog_engine(path: Path) -> Engine:
    """A generation's catalog, read-only and immutable: no lock file, no write permission."""
    # The name is a URI: a "?" or "#" in a folder's name must not end it.
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1&uri=true"
    return create_engine(f"sqlite:///{uri}", pool_size=0)


def copy_catalog(engine: Engine, target: Path) -> None:
    """Write a compact copy, indexed for readers, that is not in WAL mode (VACUUM INTO)."""
    with engine.begin() as connection:
        connection.exec_driver_sql(_HYDRATION_INDEX)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM INTO :target"), {"target": str(target)})
