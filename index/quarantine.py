"""quarantine.jsonl: the photos an index could not take, and why."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from index.catalog_journal import Journal
from index.layout import Layout
from index.steps import Steps
from multigrain.files import write_via_temporary


def write_quarantine(layout: Layout, journal: Journal, *, steps: Steps) -> dict[str, int]:
    """Replace quarantine.jsonl: path, code and, where the bytes could be read, their hash.

    Gives how many there are of each code.
    """
    path, nums = layout.quarantine, Counter[str]()
    if not _holds(path, _bad_lines(journal, nums)):
        nums.clear()
        steps(f"write {path.name}")
        with write_via_temporary(path) as temporary, temporary.open("wb") as file:
            file.writelines(_bad_lines(journal, nums))
        steps(f"{path.name} written")
    return dict(nums.most_common())


def _holds(path: Path, lines: Iterable[bytes]) -> bool:
    """Whether a file is these lines; a line at a time, as every photo may be bad."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return all(found == line for found, line in zip_longest(file, lines))


def _bad_lines(journal: Journal, nums: Counter[str]) -> Iterator[bytes]:
    """A line for each bad photo; counts them by code."""
    for bad in journal.bad_photos():
        code, _, digest = bad.error.partition(" ")
        nums[code] += 1
        line = json.dumps({"path": str(bad.file), "code": code, "hash": digest or None})
        yield f"{line}\n".encode()
