"""Changes of the index folder: what a service does when the folder is odd or does not answer."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from service_running import wait_until

from service.serving.changes import Changes
from service.serving.engine import Engine


class Folder:
    """Stands for the engine, its generations and the searcher; the first look fails."""

    def __init__(self) -> None:
        self.generations = self
        self.num_looks = 0

    @contextmanager
    def lease(self) -> Iterator["Folder"]:
        """Lend itself."""
        yield self

    def refresh(self) -> bool:
        """Look for changes."""
        self.num_looks += 1
        if self.num_looks == 1:
            raise ValueError("a fault nobody foresaw")
        return False


def test_watching_survives_what_nobody_foresaw(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that fails is logged, and others follow."""
    folder = Folder()
    changes = Changes(tmp_path, cast(Engine, folder))
    changes.watch(0.01)
    wait_until(lambda: folder.num_looks >= 3)
    changes.close()
    assert "a fault nobody foresaw" in caplog.text


def test_closing_waits_for_no_folder_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that hangs while it opens the folder keeps no service from ending."""
    opening, may_go_on = threading.Event(), threading.Event()

    def hang(_root: Path) -> None:
        opening.set()
        may_go_on.wait(10)

    monkeypatch.setattr("service.serving.changes.ChangeWriter", hang)
    monkeypatch.setattr("service.serving.changes._CLOSE_SECONDS", 0.05)
    changes = Changes(tmp_path, cast(Engine, Folder()))
    stuck = threading.Thread(target=changes._take_writer)
    stuck.start()
    assert opening.wait(10)
    began_at = time.monotonic()
    changes.close()
    assert time.monotonic() - began_at < 5
    may_go_on.set()
    stuck.join(120)
