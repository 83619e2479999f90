"""A generation's catalog put into a PostgreSQL database, whole or not at all.

Everything happens in one transaction: tables, rows, indexes. Readers know a generation's
namespace from its manifest, which is written behind it, so a publication that was killed is seen
by nobody and removed by the next.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Table, func, select, text

from index.catalog import PUBLISHED, photo
from index.catalog_dialects import Document, storable, storable_document
from index.catalog_engine import READER_INDEXES
from index.catalog_server import (
    REVISION,
    open_engine,
    revision_of,
    server_errors,
)
from index.catalog_url import without_secrets
from index.errors import IndexFolderError
from index.steps import Steps

_MIGRATIONS = Path(__file__).parent / "migrations"
_PREFIX = "multigrain"
# SQLite's tables are looked up by these through their constraints.
_OWN_INDEXES = ("content_of_sha256 ON content (sha256)", "tombstone_of_id ON tombstone (id)")
_NAMESPACES = text("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, :prefix)")


class CatalogServer:
    """The database that a builder publishes an index folder's catalogs to.

    A folder's namespaces begin with a token of its path and of when it was `begun`: its copy, and
    a folder of the same path on another machine, publish to their own and remove no other's.
    """

    def __init__(self, url: URL, *, folder: Path) -> None:
        self.address = without_secrets(url)
        self._url, self._owner = url, f"multigrain index {folder}"
        self._engine = open_engine(url)

    def check(self) -> None:
        """Refuse a database that cannot be published to; raises IndexFolderError."""
        _require_alembic()
        with server_errors(self._url), self._engine.connect() as connection:
            encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
            may_create = connection.execute(
                select(func.has_database_privilege(func.current_database(), "CREATE"))
            ).scalar_one()
        if encoding != "UTF8":
            raise IndexFolderError(f"catalog {self.address}: of {encoding}; make one of UTF8")
        if not may_create:
            raise IndexFolderError(
                f"catalog {self.address}: this user may make no schema; "
                "GRANT CREATE ON DATABASE to it"
            )

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def has(self, namespace: str) -> bool:
        """Whether a generation is there, in the form that is read now."""
        with server_errors(self._url), self._engine.connect() as connection:
            return revision_of(connection, namespace) == REVISION

    def publish(self, catalog: Path, generation: str, *, begun: str, steps: Steps) -> str:
        """Publish a catalog's file as a generation; gives its namespace."""
        namespace = f"{self._token(begun)}_{generation}"
        with self._transaction() as connection:
            connection.exec_driver_sql(f'DROP SCHEMA IF EXISTS "{namespace}" CASCADE')
            connection.exec_driver_sql(f'CREATE SCHEMA "{namespace}"')
            self._sign(connection, namespace)
            upgrade(connection, namespace)
            steps("copy to database")
            _copy(connection, catalog)
            for index in (*READER_INDEXES, *_OWN_INDEXES):
                connection.exec_driver_sql(f"CREATE INDEX {index}")
            for table in PUBLISHED:
                connection.exec_driver_sql(f"ANALYZE {table.name}")
            steps("commit database")
        steps("database committed")
        return namespace

    def retire(self, kept: Sequence[str], *, begun: str, steps: Steps) -> None:
        """Remove this folder's namespaces but those kept, which get the newest form.

        What a killed publication left goes too.
        """
        with self._transaction() as connection:
            prefix = {"prefix": f"{self._token(begun)}_"}
            own = connection.execute(_NAMESPACES, prefix).scalars().all()
            for namespace in own:
                if namespace not in kept:
                    connection.exec_driver_sql(f'DROP SCHEMA "{namespace}" CASCADE')
                elif revision_of(connection, namespace) != REVISION:
                    upgrade(connection, namespace)
            steps("retire from database")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with server_errors(self._url), self._engine.connect() as opened:
            connection = opened.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                yield connection

    def _token(self, begun: str) -> str:
        return f"{_PREFIX}_{sha256(f'{self._owner} {begun}'.encode()).hexdigest()[:12]}"

    def _sign(self, connection: Connection, namespace: str) -> None:
        form = func.format("COMMENT ON SCHEMA %I IS %L", namespace, self._owner)
        command = connection.execute(select(form)).scalar_one()
        connection.execute(text(command.replace(":", "\\:")))


def upgrade(connection: Connection, namespace: str) -> None:
    """Bring a namespace's tables to the newest form; the transaction goes on in it."""
    _require_alembic()
    connection.exec_driver_sql(f'SET LOCAL search_path TO "{namespace}"')
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, namespace=namespace)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise IndexFolderError(
            f"schema {namespace}: {error}; a newer multigrain-retrieval has built this index, "
            "update it here"
        ) from error


def _require_alembic() -> None:
    try:
        import alembic  # noqa: F401 - whether it is there
    except ImportError:
        raise IndexFolderError(
            "a catalog in PostgreSQL needs alembic: install multigrain-retrieval[postgres]"
        ) from None


def _copy(connection: Connection, catalog: Path) -> None:
    """Copy the published tables' rows, of photos the live ones."""
    driver: Any = connection.connection.driver_connection
    # One writer's read-only copy: no lock, no log.
    uri = f"{catalog.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as file, driver.cursor() as cursor:
        for table in PUBLISHED:
            names = ", ".join(column.name for column in table.columns)
            live = " WHERE deleted IS NULL" if table is photo else ""
            rows = file.execute(f"SELECT {names} FROM {table.name}{live}")  # noqa: S608 - our names
            with cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
                for row in _storable_rows(table, rows):
                    copy.write_row(row)


def _storable_rows(table: Table, rows: Iterator[tuple[Any, ...]]) -> Iterator[list[Any]]:
    place = next((n for n, one in enumerate(table.columns) if one.type is Document), None)
    for row in rows:
        values = list(row)
        if any(isinstance(one, str) and "\0" in one for one in row):
            values = [storable(one) if isinstance(one, str) else one for one in row]
        if place is not None and values[place] is not None:
            values[place] = storable_document(values[place])
        yield values
