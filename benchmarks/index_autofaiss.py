"""autofaiss in an environment of its own, asked through pipes: it needs an older numpy than ours.

A batch of 32 queries passes the pipes in a tenth of a millisecond, a hundredth of what autofaiss
takes for it.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.index_search import K

REQUIREMENTS = ("autofaiss", "numpy<2", "pyarrow<20")
_PROGRAM = Path(__file__).with_name("index_autofaiss_program.py")


class AutoFaiss:
    """An index built by autofaiss: `choice` is its string and search parameters."""

    def __init__(self, environment: Path, rows: NDArray[np.float32]) -> None:
        python = _python(environment)
        with TemporaryDirectory() as folder:
            np.save(Path(folder) / "rows.npy", rows)
            self._child = subprocess.Popen(
                [python, "-I", _PROGRAM, Path(folder) / "rows.npy", str(K)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            self._asked, self._told = self._child.stdin, self._child.stdout
            built = json.loads(self._told.readline())
        self.build_seconds: float = built["seconds"]
        self.choice: str = built["choice"]

    def search(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of the neighbours of queries fp32 [Q, D], on one thread: [Q, K]."""
        self._asked.write(f"{len(queries)}\n".encode() + queries.tobytes())
        self._asked.flush()
        data = self._told.read(len(queries) * K * np.dtype(np.float32).itemsize)
        return np.frombuffer(data, np.float32).reshape(len(queries), K)

    def __enter__(self) -> Self:
        """Ready to be searched."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._asked.close()
        self._child.wait(timeout=60)
        self._told.close()


def _python(environment: Path) -> Path:
    """The interpreter of autofaiss's environment, which is made where it is missing."""
    python = environment / "bin" / "python"
    if not (environment / "made").exists():
        venv.create(environment, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (environment / "made").touch()
    return python
