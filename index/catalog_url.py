"""Which database a published catalog is in: its address, which is written down without secrets."""

from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from index.errors import IndexFolderError

FILE = "sqlite"
DRIVER = "postgresql+psycopg"
_FORM = f"{DRIVER}://USER:PASSWORD@HOST:PORT/DATABASE"
_SECRETS = ("password", "sslpassword", "passfile", "sslkey")


def database_url(given: SecretStr | None, *, recorded: str | None) -> URL | None:
    """The database that is meant: the given one, else the recorded one; None: the index's file.

    Raises IndexFolderError, without saying what was given, for an address that is none.
    """
    text = given.get_secret_value() if given else recorded
    if text is None or text == FILE:
        return None
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    if url is None or url.drivername != DRIVER or not url.database:
        raise IndexFolderError(f"--catalog: neither {FILE} nor an address like {_FORM}")
    return url


def without_secrets(url: URL) -> str:
    """The address as it may be shown and written down."""
    bare = URL.create(
        url.drivername, url.username, None, url.host, url.port, url.database, url.query
    )
    return bare.difference_update_query(_SECRETS).render_as_string()
