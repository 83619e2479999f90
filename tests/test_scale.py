"""The tables of docs/scale.md are what the model of benchmarks/scale_model.py says."""

from pathlib import Path

import pytest

from benchmarks.scale_model import needs, size_table, time_table
from benchmarks.scale_rows import FACTORY, SHARD_ROWS
from index.codebook.footprint import building_bytes

DOCUMENT = Path(__file__).parent.parent / "docs" / "scale.md"


@pytest.mark.parametrize("table", [size_table, time_table])
def test_the_document_shows_the_models_table(table: object) -> None:
    """Line by line, so that neither moves without the other."""
    assert callable(table)
    assert "\n".join(table()) in DOCUMENT.read_text()


def test_ten_times_the_photos_take_ten_times_the_reading() -> None:
    """What is done for each photo grows with their number, and so does what is stored."""
    for small, large in ((10**8, 10**9), (10**9, 10**10)):
        few, many = needs(small), needs(large)
        assert many.decode_hours == pytest.approx(10 * few.decode_hours)
        assert many.embed_gpu_hours == pytest.approx(10 * few.embed_gpu_hours)
        assert many.disk == pytest.approx(10 * few.disk, rel=0.05)


def test_a_builds_memory_is_that_of_a_shard_and_a_sample() -> None:
    """Behind a million rows of one string it grows by a bit for each row and shard."""
    one = building_bytes(FACTORY, num_rows=10**6, dim=512, shard_rows=SHARD_ROWS)
    twenty = building_bytes(FACTORY, num_rows=2 * 10**7, dim=512, shard_rows=SHARD_ROWS)
    assert twenty == one
