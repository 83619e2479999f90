"""A PostgreSQL database as published catalogs are read from it.

Each generation has a schema of its own, a namespace, with the tables of index/catalog.py and the
version of their form.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from index.catalog_url import without_secrets
from index.errors import BackendAwayError, IndexFolderError

# The newest revision of index/migrations; readers compare with it and need no alembic.
REVISION = "0001"
_SECONDS = 10
# Ids that others are compared with, such as removed ones, are hashed while they fit.
_WORK_MEMORY = "64MB"


@contextmanager
def server_errors(url: URL) -> Iterator[None]:
    """Turn the driver's errors into IndexFolderError, naming the database and what to do.

    BackendAwayError where nobody answers.
    """
    try:
        yield
    except DBAPIError as error:
        said, kind = str(error.orig).strip().partition("\n")[0], IndexFolderError
        if "password" in said or "no pg_hba.conf entry" in said:
            remedy = "give its address with the password as --catalog or in MULTIGRAIN_CATALOG"
        elif error.connection_invalidated or "connection" in said:
            remedy = "start it, or give its address as --catalog or in MULTIGRAIN_CATALOG"
            kind = BackendAwayError
        else:
            remedy = "mend it, then run again"
        raise kind(f"catalog {without_secrets(url)}: {said}; {remedy}") from error


def open_engine(url: URL, *, namespace: str | None = None) -> Engine:
    """Connections to a database, each statement for itself; in a namespace, if one is named.

    Raises IndexFolderError without the driver.
    """
    _require_driver()
    defaults = {"connect_timeout": str(_SECONDS), "tcp_user_timeout": str(_SECONDS * 1000)}
    missing = {name: value for name, value in defaults.items() if name not in url.query}
    engine = create_engine(
        url.update_query_dict(missing), pool_size=0, isolation_level="AUTOCOMMIT"
    )
    settings = f"SET work_mem = '{_WORK_MEMORY}'"
    if namespace is not None:
        settings += f"; SET search_path TO {namespace}"

    # Not as options of the connection, which poolers do not pass on.
    @event.listens_for(engine, "connect")
    def _set(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        before, connection.autocommit = connection.autocommit, True
        cursor = connection.cursor()
        cursor.execute(settings)
        cursor.close()
        connection.autocommit = before

    return engine


def _require_driver() -> None:
    try:
        import psycopg  # noqa: F401 - whether it is there
    except ImportError:
        raise IndexFolderError(
            "a catalog in PostgreSQL needs psycopg: install multigrain-retrieval[postgres]"
        ) from None


def revision_of(connection: Connection, namespace: str) -> str | None:
    """The form a generation's tables have; None where there are none."""
    table = f'"{namespace}".alembic_version'
    # A question about a table that is not there would end the transaction.
    if connection.execute(select(func.to_regclass(table))).scalar_one() is None:
        return None
    asked = text(f"SELECT version_num FROM {table}")  # noqa: S608 - a name of ours
    return str(connection.execute(asked).scalar_one())


def open_namespace(url: URL, namespace: str, *, generation: str) -> Engine:
    """A generation's catalog; raises IndexFolderError where it is not there as this version reads.

    Revisions are numbered, so that an older form can be told from a newer one.
    """
    engine = open_engine(url, namespace=namespace)
    try:
        with server_errors(url), engine.connect() as connection:
            found = revision_of(connection, namespace)
    except BaseException:
        engine.dispose()
        raise
    name = f"catalog {without_secrets(url)}, schema {namespace}"
    if found == REVISION:
        return engine
    engine.dispose()
    if found is None:
        raise IndexFolderError(
            f"{name}: generation {generation} is not there; give the address it was published "
            "to, or run index.build, which publishes it there again"
        )
    if found < REVISION:
        raise IndexFolderError(
            f"{name}: of form {found}, {REVISION} is read; run index.build of this version once"
        )
    raise IndexFolderError(
        f"{name}: of form {found}, {REVISION} is read; update multigrain-retrieval here, a newer "
        "one has built this index"
    )
