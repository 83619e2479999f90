"""What a build does with the memory of its device and of its machine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from index_fixtures import StubEmbedder, build, durable_state, write_photos
from numpy.typing import NDArray

from multigrain.engine import DeviceMemoryError


class FullDevice(StubEmbedder):
    """Has no memory left once it has embedded so many photos."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def embed_pixels(
        self, pixels: Sequence[NDArray[np.uint8]], batch_size: int = 8
    ) -> NDArray[np.float32]:
        """Embed, or be out of memory."""
        if self.num_embedded >= self._room:
            raise DeviceMemoryError("no room for a single photo")
        return super().embed_pixels(pixels, batch_size)


def test_a_device_without_memory_ends_the_build_behind_a_durable_row(tmp_path: Path) -> None:
    """No photo is blamed; the next build embeds the others alone, and ends as if nothing was."""
    photos = write_photos(tmp_path / "photos", range(80))
    build(photos, tmp_path / "whole", factory="IVF1,SQ8")
    with pytest.raises(DeviceMemoryError):
        build(photos, tmp_path / "index", FullDevice(room=64), factory="IVF1,SQ8")
    assert not (tmp_path / "index" / "CURRENT").exists()
    embedder = StubEmbedder()
    report = build(photos, tmp_path / "index", embedder, factory="IVF1,SQ8")
    assert (embedder.num_embedded, report.num_live, report.num_bad) == (16, 80, 0)
    assert durable_state(tmp_path / "index") == durable_state(tmp_path / "whole")
