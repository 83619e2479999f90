"""The offsets of tar shards' members, kept in the user's cache from one run to the next."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from multigrain.cache_folder import default_cache_dir
from multigrain.files import atomic_write_text

_FORMAT = 2


class Member(NamedTuple):
    """A photo in a tar file: where its bytes lie, and its class if it has one."""

    name: str
    offset: int
    num_bytes: int
    class_name: str | None


class Shard(NamedTuple):
    """The photos of a tar file, and how many other members it has."""

    members: list[Member]
    num_skipped: int


class ShardIndexes:
    """Indexes made or found; `why_unwritten` says why one could not be kept."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._folder = (cache_dir or default_cache_dir(os.environ)) / "tar"
        self.num_made = 0
        self.why_unwritten: str | None = None

    def of(self, shard: Path, *, make: Callable[[Path], Shard]) -> Shard:
        """Return a shard's photos; a kept index serves while size and time are the same."""
        path, status = shard.resolve(), shard.stat()
        stamp = [_FORMAT, str(path), status.st_size, status.st_mtime_ns]
        # The whole path is the key: equal names in two folders are two shards.
        key = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
        file = self._folder / f"{key}.json"
        kept = _read(file)
        if kept is not None and kept.get("stamp") == stamp:
            return Shard([Member(*row) for row in kept["members"]], kept["num_skipped"])
        found = make(shard)
        self.num_made += 1
        try:
            atomic_write_text(file, json.dumps({"stamp": stamp, **found._asdict()}))
        except OSError as error:
            self.why_unwritten = f"{self._folder} cannot be written ({error.strerror})"
        return found


def _read(file: Path) -> dict[str, Any] | None:
    """Read an index; a missing or damaged one is made anew."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
