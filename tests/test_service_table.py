"""docs/service-faults.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_of_the_table_exists() -> None:
    """`NAME: test, test` in its last column stands for tests/test_service_NAME.py."""
    table = (ROOT / "docs" / "service-faults.md").read_text()
    rows = re.findall(r"^\| F?\d+ \|.*\| (.*) \|$", table, re.MULTILINE)
    assert len(rows) >= 24
    missing = list[str]()
    parts = [part for row in rows for part in row.split("; ") if ":" in part]
    for room, names in (part.split(":", 1) for part in parts):
        file = ROOT / "tests" / f"test_service_{room.strip()}.py"
        source = file.read_text() if file.is_file() else ""
        named = re.findall(r"`(\w+)`", names)
        assert named, f"{room}: no test"
        missing += [f"{file.name}: {name}" for name in named if f"def test_{name}(" not in source]
    assert missing == []
