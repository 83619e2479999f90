"""Where this user keeps what can be made or fetched again."""

from collections.abc import Mapping
from pathlib import Path


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """The user's cache folder: converted models, copies of what lies in object stores."""
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "multigrain"
