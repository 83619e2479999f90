"""Processors: affinity, and the quota of a container."""

from pathlib import Path

import pytest

from multigrain.cpus import num_cpus


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("?", 8)],
)
def test_the_quota_of_a_container_counts(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight processors of which the container may use some."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert num_cpus(tmp_path / "cpu.max") == expected


def test_without_affinity_or_control_groups_all_processors_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the operating system has neither, the machine's count is taken."""
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert num_cpus(tmp_path / "absent") == 3
