"""Read a pickle of plain values: what an annotation needs, and nothing that runs code."""

import io
import pickle
from pathlib import Path
from typing import Any

from trainer.protocols.test_set import ProtocolError

# What numpy's own arrays and numbers are made of again, under its old and its new name.
_ALLOWED = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in (
        (f"{core}.multiarray", "_reconstruct"),
        (f"{core}.multiarray", "scalar"),
        (f"{core}.numeric", "_frombuffer"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )
} | {("__builtin__", "bytes"), ("builtins", "bytes")}  # an empty one, by pickles of Python 2


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, texts, numbers and numpy arrays alone."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_plain_pickle(path: Path) -> Any:
    """The value in a file, made of plain containers and numpy arrays.

    Texts of Python 2 are read as Latin 1. Raises ProtocolError for anything else, before it
    could run.
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise ProtocolError(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:
        raise ProtocolError(f"{path} is not a pickle of plain values: {error}") from error
