"""Settings from YAML files and from the environment, before they are validated."""

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from multigrain.config import Config, ConfigError, did_you_mean, fields_of, is_list

ENVIRONMENT_PREFIX = "MULTIGRAIN_"
_BASE = "base"  # the key of a file that names files to begin from


def from_files(cls: type[Config], files: Sequence[Path]) -> dict[str, Any]:
    """Values of the files, later ones over earlier ones; raises ConfigError."""
    values: dict[str, Any] = {}
    for file in files:
        values |= _from_file(cls, file, above=())
    return values


def _from_file(cls: type[Config], file: Path, *, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's values over those of the files in its `base:`, which lie beside it.

    `above` are the files that have led here.
    """
    if file.resolve() in above:
        raise ConfigError(f"--config {file} is a `{_BASE}` of itself")
    loaded = _read(file)
    bases = loaded.pop(_BASE, [])
    if not isinstance(bases, list | str):
        raise ConfigError(f"`{_BASE}` in {file} must be a file or a list of files, not {bases!r}")
    unknown = [str(key) for key in loaded if key not in fields_of(cls)]
    if unknown:
        hint = did_you_mean(unknown[0], [*fields_of(cls), _BASE])
        raise ConfigError(f"unknown key {unknown[0]!r}{hint} in {file}")
    values: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        values |= _from_file(cls, file.parent / str(base), above=(*above, file.resolve()))
    return values | loaded


def _read(file: Path) -> dict[Any, Any]:
    loaded = read_yaml(file, name=f"--config {file}")
    if not isinstance(loaded, dict | None):
        raise ConfigError(f"--config {file} must hold `key: value` lines")
    return loaded or {}


def read_yaml(file: Path, *, name: str) -> Any:
    """What a YAML file holds; raises ConfigError, which calls it by `name`."""
    try:
        return yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not YAML: {error}") from error


def from_environment(cls: type[Config], environ: Mapping[str, str]) -> dict[str, Any]:
    """Values of the fields that the environment names; a list is written as YAML, `[a, b]`."""
    values: dict[str, Any] = {}
    for name, field in fields_of(cls).items():
        text = environ.get(ENVIRONMENT_PREFIX + name.upper())
        if text is not None:
            values[name] = _list_from(text, name) if is_list(field.annotation) else text
    return unset(cls, values)


def unset(cls: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Read empty texts as what they unset: lists become empty, optional values None."""

    def one(name: str, value: Any) -> Any:
        annotation = fields_of(cls)[name].annotation
        if value == [""]:
            return []
        return None if value == "" and type(None) in typing.get_args(annotation) else value

    return {name: one(name, value) for name, value in values.items()}


def _list_from(text: str, name: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [text]
    try:
        values: list[Any] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Of the text nothing is said: it may hold keys.
        said = getattr(error, "problem", None) or "see its brackets and quotes"
        variable = ENVIRONMENT_PREFIX + name.upper()
        raise ConfigError(f"{variable} in the environment is not a list `[a, b]`: {said}") from None
    return values
