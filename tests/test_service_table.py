"""docs/service-faults.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_of_the_table_exists() -> None:
    """`NAME: test, test` in its last column stands for tests/test_service_NAME.py."""
    table = (ROOT / "docs" / "service-faults.md").read_text()
    rows = re.findall(r"^\| F?\d+ \|.*\| (.*) \|$", table, re.MULTILINE)
    groups = [group for row in rows for group in re.findall(r"(\w+): ((?:`\w+`(?:, )?)+)", row)]
    assert len(rows) >= 24
    assert len(groups) >= len(rows)
    missing = []
    for room, names in groups:
        source = (ROOT / "tests" / f"test_service_{room}.py").read_text()
        tests = re.findall(r"`(\w+)`", names)
        missing += [f"{room}: {test}" for test in tests if f"def test_{test}(" not in source]
    assert missing == []
