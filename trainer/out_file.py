"""The file that a program was told to write."""

import tempfile
from pathlib import Path

from multigrain.errors import MultiGrainError


class OutFileError(MultiGrainError):
    """A name that cannot be a file, or a place that cannot be written."""


def check_out_file(path: Path) -> None:
    """Raise OutFileError for a file that cannot be written, before the work that it is for.

    Its folder is made, and tried with a file that is gone again.
    """
    try:
        is_folder = path.is_dir()
        if not is_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise OutFileError(
            f"--out {path} cannot be written ({error.strerror}): name a file in another folder"
        ) from error
    if is_folder:
        raise OutFileError(f"--out {path} is a folder: name the file to write")
