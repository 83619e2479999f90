"""An index to read: a folder, or a copy of one that lies in an object store."""

import logging
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from index.errors import IndexFolderError
from index.replica.local_copy import IndexCopy
from multigrain.cache_folder import default_cache_dir
from multigrain.errors import MultiGrainError
from multigrain.locations import Url

_logger = logging.getLogger(__name__)
T = TypeVar("T")


class IndexSource:
    """Where an index is read from; `update` brings what is fetched up to date."""

    def __init__(self, place: Path | Url, *, cache_dir: Path | None = None) -> None:
        """A copy is kept in `cache_dir`, by default the user's cache, under the address's hash."""
        self._copy: IndexCopy | None = None
        if isinstance(place, Path):
            self.root, self.address = place, str(place.absolute())
        else:
            self.root, self.address = _folder(place, cache_dir), str(place)
            self._copy = IndexCopy(place, self.root)

    @property
    def is_remote(self) -> bool:
        """Whether it is a copy."""
        return self._copy is not None

    def update(self, *, deep: bool = False) -> None:
        """Fetch the live generation, where it lies elsewhere, with `deep` whatever is damaged.

        Raises ObjectStoreError, and IndexFolderError for an index that is not whole.
        """
        if self._copy is not None:
            self._copy.update(deep=deep)

    def open(self, opener: Callable[[Path], T]) -> T:
        """Open the folder that is `ready`; a copy that does not open is mended and opened again.

        Raises as `update` and the opener.
        """
        self.ready()
        return self.mended(opener)

    def mended(self, opener: Callable[[Path], T]) -> T:
        """The same of the folder as it is."""
        try:
            return opener(self.root)
        except IndexFolderError as error:
            if self._copy is None:
                raise
            _logger.warning("the copy in %s is compared with its origin: %s", self.root, error)
            self._copy.update(deep=True)
            return opener(self.root)

    def ready(self) -> Path:
        """The folder, brought up to date; one that was before is given where that fails now.

        Raises as `update`.
        """
        try:
            self.update()
        except MultiGrainError as error:
            if self._copy is None or not self._copy.has_generation:
                raise
            _logger.warning("the copy in %s is used as it is: %s", self.root, error)
        return self.root


def _folder(url: Url, cache_dir: Path | None) -> Path:
    folder = (cache_dir or default_cache_dir(os.environ)) / "indexes"
    return folder / sha256(url.encode()).hexdigest()[:16]
