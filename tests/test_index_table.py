"""docs/index-faults.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_of_the_table_exists() -> None:
    """`NAME: test, test` in its last column stands for tests/test_index_NAME.py; * for any end."""
    table = (ROOT / "docs" / "index-faults.md").read_text()
    rows = re.findall(r"^\| A?\d+ \|.*\| (.*) \|$", table, re.MULTILINE)
    pattern = r"(\w+): (all|(?:`\w+\*?`(?:, )?)+)"
    groups = [group for row in rows for group in re.findall(pattern, row)]
    assert len(rows) >= 30
    assert len(groups) >= len(rows)
    missing = []
    for room, names in groups:
        source = (ROOT / "tests" / f"test_index_{room}.py").read_text()
        wanted = [name.replace("*", r"\w*") for name in re.findall(r"`(\w+\*?)`", names)]
        missing += [
            f"{room}: {one}" for one in wanted if not re.search(rf"def test_{one}\(", source)
        ]
    assert missing == []
