"""A catalog that was published to PostgreSQL answers as the index folder's own file does."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from change_fixtures import EMBEDDER, Changing, hits
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from index_fixtures import build, durable_state, photo_bytes, write_photos
from postgres_running import PostgresServer
from pydantic import SecretStr
from sqlalchemy import make_url
from stub_embedder import StubEmbedder

import index.catalog_publishing
from index import calibrate, compact, duplicates, export, remove, stats
from index.catalog import PUBLISHED, tables
from index.catalog_opening import open_catalog, open_catalog_file
from index.catalog_publishing import _MIGRATIONS
from index.catalog_reader import CatalogReader
from index.catalog_server import REVISION, open_engine
from index.catalog_url import without_secrets
from index.changes.addition import add_photos
from index.changes.removal import remove_photos
from index.changes.writer import ChangeWriter
from index.current import live_manifest
from index.errors import BackendAwayError, IndexFolderError
from index.layout import Layout
from index.searcher import Searcher
from index.searching.where import Filter, checked, parse_filters
from index.stats import read_stats
from index.verify import main as verify_main

pytest_plugins = ["postgres_fixtures"]

# What lists may hold, and a few things that look like numbers.
VALUES: list[Any] = [
    *(
        9,
        -3,
        0.1,
        1e308,
        2**62,
        10**400,
        True,
        False,
        None,
        "",
        "a",
        "A",
        "ä",
        "b\0c",
        "\U0010ffff",
    ),
    *("12.5", " 7 ", "+3", ".5", "5.", "1e3", "1e400", "-1e400", "1e-400", "0x10", "12a", "NaN"),
    *("Infinity", "true", 'it\'s "*"', "a%b", "100:x", "\\u0000", ["a"], {"a": 1}, "1" * 1200),
]


class Both(NamedTuple):
    """The same generation's catalog, from its file and from the database."""

    file: CatalogReader
    database: CatalogReader


def collection(folder: Path) -> list[Path]:
    """A folder of photos, one of them broken, and a list that names some and says much of them."""
    photos = write_photos(folder / "photos" / "cat", range(6)).parent
    (photos / "top.png").write_bytes(photo_bytes(6))
    (photos / "copy.png").write_bytes(photo_bytes(0))
    (photos / "bad.png").write_bytes(b"no photo")
    write_photos(folder / "listed", range(10, 10 + len(VALUES)))
    rows = [
        {"path": f"listed/{10 + number:04d}.png", "value": value, "label": value, "n": number}
        for number, value in enumerate(VALUES)
    ]
    rows += [{"path": "photos/cat/0001.png", "value": 9}, {"path": "gone.png", "value": "a"}]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [photos, folder / "list.jsonl"]


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> tuple[Path, SecretStr]:
    """An index whose catalog is in a database; a photo was removed and one has vanished."""
    folder, catalog = tmp_path_factory.mktemp("published"), postgres.create("collections")
    sources = collection(folder)
    build(sources, folder / "index", catalog=catalog)
    (folder / "photos" / "cat" / "0002.png").unlink()
    build(sources, folder / "index", catalog=catalog)
    remove_photos(folder / "index", paths=[Path("cat/0003.png")], catalog=catalog)
    return folder / "index", catalog


@pytest.fixture(scope="module")
def both(published: tuple[Path, SecretStr]) -> Iterator[Both]:
    layout = Layout(published[0])
    manifest = live_manifest(layout)
    file = open_catalog_file(layout.root / manifest.catalog.file)
    with closing(file), closing(open_catalog(layout, manifest, catalog=published[1])) as database:
        yield Both(file, database)


def test_what_is_known_of_contents_is_the_same(both: Both) -> None:
    """Places, metadata, hashes and counts, of live, dead and unknown ids; NUL and so on apart."""
    ids = [*range(-1, 60), 2**63, 10**30]
    assert both.database.entries(ids).keys() == both.file.entries(ids).keys()
    of_file, of_database = both.file.contents(ids), both.database.contents(ids)
    same = [one for one in of_file if one.metadata.get("value") != "b\0c"]
    assert len(same) == len(of_file) - 1 > 30
    assert [one for one in of_database if one.id in {each.id for each in same}] == same
    assert "b\ufffdc" in [one.metadata.get("value") for one in of_database]
    hashes = [both.file.hash_of(one) for one in range(60)]
    assert hashes == [both.database.hash_of(one) for one in range(60)]
    known = [one for one in hashes if one]
    assert both.database.ids_of([*known, b"?" * 32]) == both.file.ids_of(known)
    assert (
        both.database.num_bad()
        == both.file.num_bad()
        == {
            "image_undecodable": 1,
            "photo_missing": 1,
        }
    )
    assert both.database.num_removed() == both.file.num_removed() == 1
    assert both.database.read_photo(0) == photo_bytes(0)


def test_stored_rows_are_the_same(both: Both) -> None:
    """Those by which changes are compared with what a generation holds."""
    ids = range(6)
    assert both.database.stored(ids) == both.file.stored(ids)


COLUMNS = st.sampled_from(
    ["label", "folder", "taken_at", "camera", "bytes", "width", "format", "attributes.value"]
)
WORDS = st.sampled_from([one for one in VALUES if isinstance(one, str)]) | st.text(max_size=2)
NUMBERS = st.sampled_from([9, 0.1, 12.5, 7, 3, 0.5, 5, 1000, 1, 0, 16, 852]) | st.floats(
    allow_nan=False, allow_infinity=False
)
FILTERS = st.builds(
    Filter,
    COLUMNS,
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    WORDS | NUMBERS | st.just("2019-07"),
    is_prefix=st.booleans(),
    is_excluded=st.booleans(),
)


@settings(max_examples=200)
@given(filters=st.lists(FILTERS, min_size=1, max_size=2), after=st.integers(-1, 60))
def test_filters_choose_the_same(both: Both, filters: Sequence[Filter], after: int) -> None:
    """Whatever is compared with whatever: SQLite says what a number and what a text is."""
    try:
        asked = [checked(one) for one in filters]
        asked = [one for one in asked if not (isinstance(one.value, float) and one.is_prefix)]
    except IndexFolderError:
        return
    # SQLite ends a text at a NUL when it takes it out of JSON, and misses what the database finds.
    assume(not any("\0" in str(one.value) for one in asked))
    expected = both.file.matching(asked).tolist()
    assert both.database.matching(asked).tolist() == expected
    step = both.database.scroll(after=after, limit=3, filters=asked)
    assert step == [one for one in expected if one > after][:3]


def test_what_is_added_while_serving_is_found_and_folded(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """Searches, filters, deletes and the next build go by the database's rows and the journal."""
    catalog, out = postgres.create("adding"), tmp_path / "index"
    photos = write_photos(tmp_path / "photos" / "cat", range(3)).parent
    build(photos, out, catalog=catalog)
    with (
        closing(Searcher.open(out, catalog=catalog)) as searcher,
        closing(ChangeWriter(out)) as writer,
    ):
        serving = Changing(searcher, writer)
        assert serving.add(7, label="dog") == (3, True)
        assert serving.add(1, label="dog") == (1, False)
        assert serving.delete(0)
        searcher.refresh()
        assert searcher.matching(parse_filters(["label=dog"])).tolist() == [1, 3]
        assert sorted(one.id for one in hits(searcher, 7)) == [1, 2, 3]
    build(photos, out, catalog=catalog)
    with closing(Searcher.open(out, catalog=catalog)) as searcher:
        assert searcher.matching(parse_filters(["label=dog"])).tolist() == [1, 3]
        assert searcher.contents([0]) == []


def test_every_tool_reads_and_publishes_there(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adds, removals, calibrations, exports and counts; shards and ids are those without it."""
    catalog, out = postgres.create("tools"), tmp_path / "index"
    photos = write_photos(tmp_path / "photos", range(5))
    build(photos, tmp_path / "plain")
    build(photos, out, catalog=catalog)
    assert durable_state(out) == durable_state(tmp_path / "plain")
    file = write_photos(tmp_path / "more", [9]) / "0009.png"
    assert add_photos(out, [file], EMBEDDER, catalog=catalog).num_live == 6
    assert calibrate.calibrate(out, StubEmbedder(), catalog=catalog).database is not None
    monkeypatch.setenv("MULTIGRAIN_CATALOG", catalog.get_secret_value())
    asked = ["--index", str(out)]
    assert remove.main([*asked, "--id", "0"]) == 0
    assert compact.main([*asked, "--force"]) == 0
    assert export.main([*asked, "--out", str(tmp_path / "rows.npy")]) == 0
    assert duplicates.main([*asked, "--threshold", "0.9"]) == 0
    counts = read_stats(out, catalog=catalog)
    assert (counts["removed"], counts["live"]) == (1, 5)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 5
    assert namespaces(postgres, "tools") == named(out)


def namespaces(postgres: PostgresServer, database: str) -> set[str]:
    """The generations there are."""
    found = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'multigrain%'"
    return {str(name) for (name,) in postgres.query(database, found)}


def named(out: Path) -> set[str]:
    """Those that the manifests name."""
    documents = [json.loads(path.read_text()) for path in (out / "manifests").iterdir()]
    return {one["database"]["namespace"] for one in documents if one["database"]}


def test_a_generation_nobody_needs_leaves_with_its_rows(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """The live one, its parent and one that is being read stay, and are read as they were."""
    catalog, out = postgres.create("retiring"), tmp_path / "index"
    build(write_photos(tmp_path / "photos", [0]), out, catalog=catalog)
    with closing(Searcher.open(out, catalog=catalog)) as first:
        for seed in range(1, 4):
            build(write_photos(tmp_path / "photos", [seed]), out, catalog=catalog)
        assert first.matching([]).tolist() == [0]
        assert [one[-6:] for one in sorted(namespaces(postgres, "retiring"))] == [
            "000001",
            "000003",
            "000004",
        ]
    build(write_photos(tmp_path / "photos", [4]), out, catalog=catalog)
    assert namespaces(postgres, "retiring") == named(out)
    assert len(named(out)) == 2


def test_a_publication_that_was_killed_is_seen_by_nobody(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """At any of its steps: readers have the generation before; the next build leaves no rest."""
    catalog, out = postgres.create("killing"), tmp_path / "index"
    build(write_photos(tmp_path / "photos", [0]), out, catalog=catalog)
    write_photos(tmp_path / "photos", [1])
    seen = list[str]()

    class Cut(Exception):  # noqa: N818 - no error of ours
        pass

    def cut(action: str) -> None:
        if "database" in action and action not in seen:
            seen.append(action)
            raise Cut

    for _ in range(9):
        try:
            build(tmp_path / "photos", out, catalog=catalog, steps=cut)
        except Cut:
            with closing(Searcher.open(out, catalog=catalog)) as searcher:
                assert searcher.matching([]).tolist() in ([0], [0, 1])
            continue
        break
    assert seen == [
        "copy to database",
        "commit database",
        "database committed",
        "retire from database",
    ]
    with closing(Searcher.open(out, catalog=catalog)) as searcher:
        assert searcher.matching([]).tolist() == [0, 1]
    assert namespaces(postgres, "killing") == named(out)


def test_a_newer_form_comes_with_the_next_build(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The builder brings kept generations to it, with their rows; older readers then refuse."""
    catalog, out = postgres.create("newer"), tmp_path / "index"
    build(write_photos(tmp_path / "photos", [0]), out, catalog=catalog)
    newer = Path(shutil.copytree(index.catalog_publishing._MIGRATIONS, tmp_path / "migrations"))
    (newer / "versions" / "r0002_more.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        'revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None\n'
        'def upgrade():\n    op.add_column("content", sa.Column("more", sa.Text))\n'
    )
    with monkeypatch.context() as patch:
        patch.setattr("index.catalog_publishing._MIGRATIONS", newer)
        patch.setattr("index.catalog_publishing.REVISION", "0002")
        patch.setattr("index.catalog_server.REVISION", "0002")
        with pytest.raises(IndexFolderError, match=r"run index\.build of this version once"):
            Searcher.open(out, catalog=catalog)
        build(write_photos(tmp_path / "photos", [1]), out, catalog=catalog)
        with closing(Searcher.open(out, catalog=catalog)) as searcher:
            assert searcher.matching([]).tolist() == [0, 1]
    assert len(namespaces(postgres, "newer")) == 2
    for namespace in namespaces(postgres, "newer"):
        asked = f"SELECT version_num, count(more) FROM {namespace}.alembic_version, "  # noqa: S608
        assert postgres.query("newer", f"{asked} {namespace}.content GROUP BY 1") == [("0002", 0)]
    with pytest.raises(IndexFolderError, match="update multigrain-retrieval"):
        Searcher.open(out, catalog=catalog)
    with pytest.raises(IndexFolderError, match="a newer multigrain-retrieval"):
        build(tmp_path / "photos", out, catalog=catalog)


def test_a_copy_of_the_folder_publishes_to_its_own(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """It removes none of the original's rows."""
    catalog, out = postgres.create("copies"), tmp_path / "index"
    photos = write_photos(tmp_path / "photos", [0])
    build(photos, out, catalog=catalog)
    shutil.copytree(out, tmp_path / "copy")
    for seed in (1, 2, 3):
        build(write_photos(photos, [seed]), tmp_path / "copy", catalog=catalog)
    with closing(Searcher.open(out, catalog=catalog)) as searcher:
        assert searcher.matching([]).tolist() == [0]
    with closing(Searcher.open(tmp_path / "copy", catalog=catalog)) as searcher:
        assert searcher.matching([]).tolist() == [0, 1, 2, 3]


def test_it_goes_there_and_back(tmp_path: Path, postgres: PostgresServer) -> None:
    """A build that is asked for it publishes once more; one that is not leaves it where it is."""
    photos, out = write_photos(tmp_path / "photos", [0]), tmp_path / "index"
    one, other = postgres.create("there"), postgres.create("elsewhere")
    expected = [(None, True), (one, True), (one, False), (other, True), (SecretStr("sqlite"), True)]
    for catalog, is_new in expected:
        assert build(photos, out, catalog=catalog).is_new_generation == is_new
    assert live_manifest(Layout(out)).database is None
    assert not build(photos, out).is_new_generation
    with closing(Searcher.open(out)) as searcher:
        assert searcher.matching([]).tolist() == [0]


def test_rows_that_were_lost_are_published_again(tmp_path: Path, postgres: PostgresServer) -> None:
    """A new server has none; the folder's own file has all."""
    photos, out = write_photos(tmp_path / "photos", [0]), tmp_path / "index"
    catalog = postgres.create("lost")
    build(photos, out, catalog=catalog)
    postgres.query("postgres", "DROP DATABASE lost")
    postgres.create("lost")
    with pytest.raises(IndexFolderError, match=r"generation 000001 is not there; .*index\.build"):
        Searcher.open(out, catalog=catalog)
    assert build(photos, out, catalog=catalog).is_new_generation
    Searcher.open(out, catalog=catalog).close()


def test_a_database_that_is_away_ends_an_opening_without_older_generations(
    published: tuple[Path, SecretStr], caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them would wait as long for it."""
    nowhere = SecretStr("postgresql+psycopg://reader:hush@127.0.0.1:1/collections")
    with pytest.raises(BackendAwayError, match=r"127\.0\.0\.1:1/collections: .*; start it"):
        Searcher.open(published[0], catalog=nowhere)
    assert "cannot be opened" not in caplog.text


def test_verify_compares_the_rows_with_the_index(
    tmp_path: Path, postgres: PostgresServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids at once; with --deep what is known of each; and one line where no server is."""
    catalog = postgres.create("verified")
    build(write_photos(tmp_path / "photos", range(3)), tmp_path / "index", catalog=catalog)
    words = ["--index", str(tmp_path / "index"), "--catalog", catalog.get_secret_value()]
    assert verify_main([*words, "--deep"]) == 0
    database = live_manifest(Layout(tmp_path / "index")).database
    assert database is not None
    photo = f'"{database.namespace}".photo'
    postgres.query("verified", f"UPDATE {photo} SET label = 5 WHERE content_id = 1")  # noqa: S608
    assert verify_main(words) == 0
    assert verify_main([*words, "--deep"]) == 1
    assert "content 1 is not what the index folder says of it" in capsys.readouterr().out
    postgres.query("verified", f"DELETE FROM {photo} WHERE content_id = 1")  # noqa: S608
    assert verify_main(words) == 1
    assert "2 live contents, not the 3 of the index" in capsys.readouterr().out


def test_the_password_is_written_nowhere(
    published: tuple[Path, SecretStr],
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not into a file of the index, not into a message; a program takes it from the environment."""
    root, catalog = published
    secret = postgres.password.encode()
    assert not any(secret in path.read_bytes() for path in root.rglob("*") if path.is_file())
    database = live_manifest(Layout(root)).database
    assert database is not None
    assert database.url == postgres.bare_url("collections")
    assert stats.main(["--index", str(root)]) == 2
    assert "MULTIGRAIN_CATALOG" in capsys.readouterr().err
    monkeypatch.setenv("MULTIGRAIN_CATALOG", catalog.get_secret_value())
    assert stats.main(["--index", str(root)]) == 0
    with pytest.raises(SystemExit):
        stats.main(["--index", str(root), "--print-config"])
    wrong = postgres.url("collections", password=postgres.password + "x")
    monkeypatch.setenv("MULTIGRAIN_CATALOG", wrong.get_secret_value())
    assert stats.main(["--index", str(root)]) == 2
    said = capsys.readouterr()
    assert postgres.password not in said.out + said.err + caplog.text


def test_a_server_started_again_is_asked_again(
    published: tuple[Path, SecretStr], postgres: PostgresServer
) -> None:
    """Its end costs the questions it did not answer, and no later one."""
    with closing(Searcher.open(published[0], catalog=published[1])) as searcher:
        assert searcher.contents([0])
        postgres.stop()
        with pytest.raises(IndexFolderError, match="not read"):
            searcher.contents([0])
        postgres.start()
        assert searcher.contents([0])
        postgres.stop()
        postgres.start()
        assert searcher.contents([0])


def test_a_reader_may_have_a_role_that_writes_nothing(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    """With the rights docs/index.md names, given once and before the first publication."""
    catalog, out = postgres.create("rights"), tmp_path / "index"
    for statement in (
        f"CREATE ROLE reader LOGIN PASSWORD '{postgres.password}'",
        "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO reader",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
    ):
        postgres.query("rights", statement)
    build(write_photos(tmp_path / "photos", [0]), out, catalog=catalog)
    reader = SecretStr(catalog.get_secret_value().replace("multigrain:", "reader:"))
    with closing(Searcher.open(out, catalog=reader)) as searcher:
        assert searcher.matching([]).tolist() == [0]
    with pytest.raises(IndexFolderError, match="GRANT CREATE ON DATABASE"):
        build(tmp_path / "photos", out, catalog=reader)


def test_a_child_process_leaves_its_parents_connections_alone(both: Both) -> None:
    """It opens its own, and what it closes ends nothing of the parent's."""
    expected = both.database.entries([0, 1])
    child = os.fork()
    if child == 0:
        is_same = both.database.entries([0, 1]) == expected
        both.database.close()
        os._exit(0 if is_same else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert both.database.entries([0, 1]) == expected


@pytest.mark.parametrize(
    ("revision", "remedy"),
    [("0000", r"run index\.build of this version once"), ("9999", "update multigrain-retrieval")],
)
def test_another_form_of_the_tables_is_refused(
    published: tuple[Path, SecretStr], postgres: PostgresServer, revision: str, remedy: str
) -> None:
    """The reader says who is older, and what to do."""
    root, catalog = published
    database = live_manifest(Layout(root)).database
    assert database is not None
    change = f"UPDATE {database.namespace}.alembic_version SET version_num ="  # noqa: S608 - ours
    postgres.query("collections", f"{change} '{revision}'")
    try:
        layout = Layout(root)
        with pytest.raises(IndexFolderError, match=remedy):
            open_catalog(layout, live_manifest(layout), catalog=catalog)
    finally:
        postgres.query("collections", f"{change} '{REVISION}'")


def test_migrations_make_what_the_tables_say(
    published: tuple[Path, SecretStr],
) -> None:
    """The newest revision is the one readers expect, and differs from the tables in indexes."""
    database = live_manifest(Layout(published[0])).database
    assert database is not None
    newest = max(path.stem for path in (_MIGRATIONS / "versions").glob("r*.py"))
    assert newest.startswith(f"r{REVISION}_")
    engine = open_engine(make_url(published[1].get_secret_value()), namespace=database.namespace)
    ours = {table.name for table in PUBLISHED}

    def is_compared(_one: object, name: str, kind: str, _reflected: object, _other: object) -> bool:
        return kind == "column" or (kind == "table" and name in ours)

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": is_compared, "compare_type": True}
        )
        assert compare_metadata(context, tables) == []
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mysql://u:hush@h/d", "neither sqlite nor an address"),
        ("postgresql+psycopg://u:hush@h", "neither sqlite nor an address"),
        ("hush", "neither sqlite nor an address"),
        ("postgresql+psycopg://u:hush@127.0.0.1:1/d", "start it, or give its address"),
    ],
)
def test_an_address_that_cannot_be_used_is_not_repeated(
    tmp_path: Path, text: str, word: str
) -> None:
    """It may hold a password; and nothing was embedded for it."""
    photos, embedder = write_photos(tmp_path / "photos", [0]), StubEmbedder()
    with pytest.raises(IndexFolderError, match=word) as raised:
        build(photos, tmp_path / "index", embedder, catalog=SecretStr(text))
    assert "hush" not in str(raised.value)
    assert embedder.num_embedded == 0


def test_what_is_shown_of_an_address_has_no_secret() -> None:
    """Wherever in it one stands."""
    url = make_url("postgresql+psycopg://u:hush@h:1/d?sslpassword=hush&sslmode=require")
    assert without_secrets(url) == "postgresql+psycopg://u@h:1/d?sslmode=require"


def test_an_address_for_an_index_without_a_database_is_refused(tmp_path: Path) -> None:
    """Nobody is left to believe that it was asked."""
    build(write_photos(tmp_path / "photos", [0]), tmp_path / "index")
    catalog = SecretStr("postgresql+psycopg://u@h/d")
    for asked in (Searcher.open, read_stats):
        with pytest.raises(IndexFolderError, match="a file of its own; leave out --catalog"):
            asked(tmp_path / "index", catalog=catalog)
    Searcher.open(tmp_path / "index", catalog=SecretStr("sqlite")).close()
