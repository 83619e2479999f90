"""Whole files or none."""

from pathlib import Path

import pytest

from multigrain.files import atomic_write_text, sha256_of, write_via_temporary


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An exception half-way removes the temporary file and keeps what was there."""
    target = tmp_path / "file"
    atomic_write_text(target, "old")

    def write_half() -> None:
        with write_via_temporary(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_makes_its_folder_and_replaces_the_file(tmp_path: Path) -> None:
    """Folders appear as needed; the digest is that of the new bytes."""
    target = tmp_path / "a/b/file"
    for text in ("first", "second"):
        atomic_write_text(target, text)
    assert sha256_of(target) == ("16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4")


def test_a_file_may_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    """Also when a library has written the temporary file for its owner alone."""
    target, plain = tmp_path / "file", tmp_path / "plain"
    with write_via_temporary(target) as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode
