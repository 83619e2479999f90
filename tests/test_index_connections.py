"""The catalog's connections stay open between questions, and leave no descriptor behind."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from index_fixtures import build, write_photos
from sqlalchemy import Select

from index.catalog_engine import open_catalog_engine
from index.catalog_opening import open_catalog_file
from index.catalog_questions import CONTENTS, PHOTOS_OF, STORED_PHOTOS
from index.catalog_reader import CatalogReader
from index.errors import IndexFolderError


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalog of four photos."""
    folder = tmp_path_factory.mktemp("connections")
    build(write_photos(folder / "photos", range(4)), folder / "index")
    (found,) = (folder / "index" / "catalogs").iterdir()
    return found


@pytest.fixture
def reader(catalog: Path) -> Iterator[CatalogReader]:
    """It opened."""
    with closing(open_catalog_file(catalog)) as opened:
        yield opened


def num_open(catalog: Path) -> int:
    """How many descriptors of this process are of the catalog."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += entry.readlink() == catalog
        except FileNotFoundError:  # the listing's own
            continue
    return found


def test_one_caller_after_another_shares_one_connection(
    reader: CatalogReader, catalog: Path
) -> None:
    """Also when each is a thread of its own that has ended."""
    for _ in range(5):
        thread = threading.Thread(target=reader.entries, args=([0, 1],))
        thread.start()
        thread.join()
        assert len(reader.entries([0, 1, 2])) == 3
    assert num_open(catalog) == 1


@pytest.mark.parametrize("question", [PHOTOS_OF, STORED_PHOTOS, CONTENTS])
def test_contents_are_looked_up_and_not_searched_for(catalog: Path, question: Select[Any]) -> None:
    """SQLite's own plan goes by an index or the row's number for each id."""
    engine = open_catalog_engine(catalog)
    compiled = str(question.compile(dialect=engine.dialect))
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", ("[0, 1]",)).all()
    engine.dispose()
    assert [row for row in plan if "SCAN photo" in row[3] or "SCAN content" in row[3]] == []


def test_callers_at_once_have_a_connection_each(reader: CatalogReader, catalog: Path) -> None:
    """No more are opened than there were callers, and all are closed in the end."""
    num_callers, together = 4, threading.Barrier(4)
    answers = list[int]()

    def ask() -> None:
        for _ in range(20):
            together.wait(timeout=120)
            answers.append(len(reader.entries([0, 3, 99])))

    threads = [threading.Thread(target=ask) for _ in range(num_callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [2] * 80
    assert 1 <= num_open(catalog) <= num_callers
    reader.close()
    assert num_open(catalog) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_opens_its_own(reader: CatalogReader, catalog: Path) -> None:
    """And answers; the parent goes on with its connection."""
    reader.entries([0])
    child = os.fork()
    if not child:
        try:
            is_right = len(reader.entries([0, 1])) == 2 and num_open(catalog) == 1
            os._exit(0 if is_right else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert len(reader.entries([2])) == 1
    assert num_open(catalog) == 1


def test_a_question_that_fails_costs_its_connection_nothing_else(tmp_path: Path) -> None:
    """A file that is no catalog is refused each time it is asked."""
    path = tmp_path / "none.sqlite"
    path.write_bytes(b"no catalog" * 1000)
    with closing(open_catalog_file(path)) as broken:
        for _ in range(3):
            with pytest.raises(IndexFolderError, match=r"none\.sqlite: damaged"):
                broken.entries([0])
    assert num_open(path) == 0
