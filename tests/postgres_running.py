"""A PostgreSQL server of the tests' own: Debian's package, a private port, a folder that goes."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

USER = "multigrain"
_SECONDS = 240


def binaries() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: one.parts[-3])
    return found[-1].parent if found else None


class PostgresServer:
    """A server that listens on 127.0.0.1 alone and asks for a password."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.password = f"s3cret-{secrets.token_hex(8)}"
        self.port = _free_port()
        self._programs, self._data = programs, folder / "data"
        word = folder / "password"
        word.write_text(self.password)
        if os.geteuid() == 0:
            for path in (folder, word):
                shutil.chown(path, "postgres", "postgres")
        # A language's order, unlike the catalog's: what sorts by it would be found out.
        locale = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        options = [f"--pwfile={word}", "-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "-N"]
        subprocess.run(
            self._unprivileged(["initdb", "-D", str(self._data), *options, *locale]),
            check=True,
            capture_output=True,
            cwd="/",
        )
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = self._unprivileged(["postgres", "-D", str(self._data), *words])
        with (self._data.parent / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log, cwd="/")
        until = time.monotonic() + _SECONDS
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", f"{self.port}"]
        while subprocess.run(ready, check=False).returncode != 0:
            assert self._process.poll() is None, (self._data.parent / "log").read_text()
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.02)

    def stop(self, *, is_for_good: bool = False) -> None:
        """End it, with its connections; for good, it does not tidy up."""
        self._process.send_signal(signal.SIGQUIT if is_for_good else signal.SIGINT)
        self._process.wait(timeout=_SECONDS)

    def url(self, database: str, *, password: str | None = None) -> SecretStr:
        """The address of a database."""
        word = password or self.password
        return SecretStr(f"postgresql+psycopg://{USER}:{word}@127.0.0.1:{self.port}/{database}")

    def bare_url(self, database: str) -> str:
        """The address without the password."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def query(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """Run a statement; gives its rows."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self.password,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]  # as the test wrote it
            return cursor.fetchall() if cursor.description else []

    def create(self, database: str) -> SecretStr:
        """Make an empty database; gives its address."""
        self.query("postgres", f"CREATE DATABASE {database}")
        return self.url(database)

    def _unprivileged(self, command: Sequence[str]) -> list[str]:
        """It refuses to run as root."""
        words = [str(self._programs / command[0]), *command[1:]]
        if os.geteuid() != 0:
            return words
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *words]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
