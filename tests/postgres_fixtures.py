"""A PostgreSQL server for the tests that ask one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_running import PostgresServer, binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server; skips where the package is not installed."""
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: postgresql)")
    # Not pytest's folder, which root alone may enter.
    folder = Path(tempfile.mkdtemp(prefix="multigrain-postgres-"))
    server = PostgresServer(programs, folder)
    try:
        yield server
    finally:
        server.stop(is_for_good=True)
        shutil.rmtree(folder)
