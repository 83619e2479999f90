"""Server processes under measurement: started, waited for, their processor time and memory read."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import NamedTuple

START_SECONDS = 180.0
STOP_SECONDS = 40.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """A running server: where it listens, and the process that leads its group."""

    url: str
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds that its processes have taken."""
        return sum(_cpu_seconds(pid) for pid in self._pids())

    @property
    def anonymous_bytes(self) -> int:
        """Memory of its processes that no file backs."""
        return sum(_anonymous_bytes(pid) for pid in self._pids())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop its processes until the block ends: one that only waits may poll meanwhile."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    def _pids(self) -> Iterator[int]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and _group_of(int(entry.name)) == self.pid:
                yield int(entry.name)


@contextmanager
def serving(
    module: str, words: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run `python -m MODULE WORDS --port N` until the block ends; raises when it does not start."""
    port = _free_port()
    command = [sys.executable, "-m", module, *words, "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(environ) if environ is not None else None,
            start_new_session=True,  # a group of its own: its workers are found and ended with it
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(f"{url}/health", process, log)
        yield Server(url, process.pid)
    finally:
        _end(process)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"{url} does not answer: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own server
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _free_port() -> int:
    with socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _group_of(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[2]) if fields else None


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return sum(int(field) for field in fields[11:13]) / _TICKS_A_SECOND if fields else 0.0


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
