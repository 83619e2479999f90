"""How the catalog's two kinds of files are opened, brought up to date and copied.

`build.sqlite` is the builder's own (WAL); a generation's catalog is a copy of it, immutable.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from index.catalog import tables
from index.errors import IndexFolderError

# The folder of a path with its "/", nothing for a photo at the top: what is left of the last "/".
FOLDER = "rtrim(path, replace(path, '/', ''))"
# Made before the first publish, after the bulk load, which they would slow. They hold whatever a
# query reads, `deleted` too: SQLite asks for it although all rows of the index have none.
READER_INDEXES = (
    "photo_of_content ON photo (content_id, path, deleted) WHERE deleted IS NULL",
    "photo_of_label ON photo (label, content_id, deleted) WHERE deleted IS NULL",
    f"photo_of_folder ON photo (({FOLDER}), content_id, deleted) WHERE deleted IS NULL",
    *(
        f"content_of_{column} ON content ({column})"
        for column in ("taken_at", "camera", "bytes", "width", "height", "format")
    ),
)
_OLD_INDEXES = ("photo_by_content",)

BUSY_TIMEOUT_MS = 10_000
_JOURNAL_PRAGMAS = (
    "page_size=8192",
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "cache_size=-65536",
    f"mmap_size={1 << 30}",
    "temp_store=MEMORY",
    "wal_autocheckpoint=4000",
)


@contextmanager
def journal_errors(path: Path) -> Iterator[None]:
    """Turn the database's errors into IndexFolderError, naming the file and what to do."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        # Operational: a full disk, a lock, permissions. Any other is about the file's content.
        if "locked" in str(cause):
            remedy = "another program holds it; close that, then run again to continue"
        elif isinstance(cause, sqlite3.OperationalError):
            remedy = "mend it, then run again to continue"
        else:
            remedy = "remove the file: the next build makes it again from the live generation"
        raise IndexFolderError(f"{path}: {cause}; {remedy}") from error


def open_journal_engine(path: Path) -> Engine:
    """The builder's database, with the tables and columns made that it does not have yet."""
    # pool_size 0: no limit, as every decoding thread keeps one connection.
    engine = create_engine(f"sqlite:///{path}", pool_size=0)

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", *_JOURNAL_PRAGMAS):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    tables.create_all(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            _add_columns(connection, table)
    return engine


def _add_columns(connection: Connection, table: Table) -> None:
    """Bring a table of an older version up to date; its rows have no values there."""
    known = {row.name for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")}
    for column in table.columns:
        if column.name not in known:
            kind = column.type.compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def open_catalog_engine(path: Path) -> Engine:
    """A generation's catalog, read-only and immutable: no lock file, no write permission."""
    # The name is a URI: a "?" or "#" in a folder's name must not end it.
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1&uri=true"
    # Nothing is written, so no transaction needs an end, which would cost every question a third.
    return create_engine(f"sqlite:///{uri}", pool_size=0, isolation_level="AUTOCOMMIT")


def copy_catalog(engine: Engine, target: Path) -> None:
    """Write a compact copy, indexed for readers, that is not in WAL mode (VACUUM INTO)."""
    with engine.begin() as connection:
        for name in _OLD_INDEXES:
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")
        for index in READER_INDEXES:
            connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {index}")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM INTO :target"), {"target": str(target)})
