"""What the documents list is so: tests that exist, settings as they are."""

import re
from pathlib import Path

from pydantic.fields import FieldInfo

from service.settings import Settings

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


def typed(default: object) -> str:
    """A default as a table shows it."""
    match default:
        case None | []:
            return ""
        case bool():
            return "on" if default else "off"
        case list():
            return ", ".join(default)
        case float():
            return f"{default:g}"
    return str(default)


def row_of(name: str, field: FieldInfo) -> str:
    """The line of a setting: flag, default, description."""
    default = None if field.is_required() else field.default
    return f"| `--{name.replace('_', '-')}` | {typed(default)} | {field.description} |"


def test_every_setting_is_listed_with_its_default() -> None:
    """The table of docs/service.md says what --help says."""
    document = (ROOT / "docs" / "service.md").read_text()
    rows = [row_of(name, field) for name, field in Settings.model_fields.items()]
    assert [row for row in rows if row not in document] == []
    listed = re.findall(r"^\| `(--[\w-]+)` \|", document, re.MULTILINE)
    assert len(listed) == len(rows)
