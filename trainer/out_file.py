"""The checkpoint file that a program was told to write."""

from pathlib import Path

from multigrain.errors import MultiGrainError


class OutFileError(MultiGrainError):
    """A name that cannot be a checkpoint file."""


def check_out_file(path: Path) -> None:
    """Raise OutFileError for a folder, before the work whose result it should take."""
    if path.is_dir():
        raise OutFileError(f"--out {path} is a folder: name the checkpoint file to write")
