"""Rows of mapped files: the same whether they wait for the disk or not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.paging import page_runs, read_rows
from index.rows import RowRange, StoredRows
from index.store import map_rows


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=40),
    st.sampled_from([32, 100, 1024, 5000]),
)
def test_the_pages_asked_for_are_those_the_rows_lie_on(numbers: list[int], row_bytes: int) -> None:
    """Against every byte of every row; a page is asked for once."""
    runs = page_runs(np.sort(np.array(numbers)), row_bytes=row_bytes, page_bytes=4096)
    asked = [page for first, last in runs.tolist() for page in range(first, last + 1)]
    needed = {
        byte // 4096 for one in numbers for byte in range(one * row_bytes, (one + 1) * row_bytes)
    }
    assert asked == sorted(needed)


@pytest.mark.parametrize("num_waits", [0, 1])
def test_rows_are_the_same_whether_the_disk_was_waited_for(tmp_path: Path, num_waits: int) -> None:
    """The last row of the file included; the disk is looked at once before and once after."""
    data = np.random.default_rng(0).normal(size=(3000, 40)).astype(np.float16)
    data.tofile(tmp_path / "rows")
    numbers = np.sort(np.random.default_rng(1).permutation(3000)[:200])
    numbers[-1] = 2999
    looks = iter([7, 7 + num_waits])
    rows = map_rows(tmp_path / "rows", num_rows=3000, dim=40)
    found = read_rows(rows, numbers, waits=lambda: next(looks))
    assert np.array_equal(found, data[numbers])
    assert next(looks, None) is None
    stored = StoredRows([RowRange(50, 3000, tmp_path / "rows")], dim=40)
    ids = np.random.default_rng(2).integers(50, 3050, 500)
    assert np.array_equal(stored.gather(ids), data[ids - 50])
