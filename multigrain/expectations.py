"""What scores a team expects of its model: metric -> [low, high]."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from multigrain.bootstrap import Estimate
from multigrain.config import ConfigError, did_you_mean
from multigrain.config_sources import read_yaml

Expected = dict[str, tuple[float, float]]
BESIDE = ".expect.yaml"


def read_expectations(given: Expected | Path) -> Expected:
    """The block itself, or that of a YAML file, under the key `expect` or alone in it.

    Raises ConfigError for a file or a block that is none.
    """
    if not isinstance(given, Path):
        return given
    loaded = read_yaml(given, name=str(given))
    block = loaded.get("expect", loaded) if isinstance(loaded, dict) else loaded
    try:
        return TypeAdapter(Expected).validate_python(block)
    except ValidationError as error:
        raise ConfigError(f"{given}: lines of `metric: [low, high]` are expected") from error


def read_beside(lists: Iterable[Path]) -> dict[Path, Expected]:
    """What stands beside lists: of `mine.csv` the file `mine.expect.yaml`, where there is one.

    Raises ConfigError as `read_expectations` does.
    """
    files = {path: path.with_name(f"{path.stem}{BESIDE}") for path in lists}
    return {path: read_expectations(file) for path, file in files.items() if file.exists()}


def resolve(expected: Expected, names: Mapping[str, object]) -> Expected:
    """Expectations by full names, `protocol.metric`; the metric alone will do where it is one's.

    Raises ConfigError for a name that no metric has, or several have, and for an empty interval.
    """
    found = Expected()
    for name, (low, high) in expected.items():
        matching = [full for full in names if full == name or full.endswith(f".{name}")]
        if not matching:
            raise ConfigError(f"expect: no metric {name!r}{did_you_mean(name, list(names))}")
        if len(matching) > 1 and name not in matching:
            raise ConfigError(f"expect: {name!r} is one of {', '.join(matching)}: name it in full")
        if not low <= high:
            raise ConfigError(f"expect: {name}: [{low:g}, {high:g}] holds no number")
        found[name if name in matching else matching[0]] = (low, high)
    return found


def left_values(expected: Expected, values: Mapping[str, float]) -> list[str]:
    """A line for each of some numbers without intervals that is outside of its own."""
    return [
        f"{name} is {values[name]:.4f}, expected within [{low:g}, {high:g}]"
        for name, (low, high) in expected.items()
        if not low <= values[name] <= high
    ]


def left_intervals(expected: Expected, scores: Mapping[str, Estimate]) -> list[str]:
    """A line for each metric outside its interval, with its value and bootstrap interval."""
    return [
        f"{name} is {scores[name].value:.4f} (95 % {scores[name].interval.low:.4f} to "
        f"{scores[name].interval.high:.4f}), expected within [{low:g}, {high:g}]"
        for name, (low, high) in expected.items()
        if not low <= scores[name].value <= high
    ]
