"""The settings of a program: a frozen pydantic model, closed to unknown keys.

Flags, environment names and YAML keys follow from its fields (multigrain/program.py reads them).
See docs/decisions/0001-configuration.md.
"""

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo

from multigrain.errors import MultiGrainError
from multigrain.locations import Url, is_url


class ConfigError(MultiGrainError):
    """A flag, a key or a value that the program does not take."""


def public_name(field: str) -> str:
    """A field's name to the outside: `lambda_` is a reserved word here and `lambda` there."""
    return field.removesuffix("_")


class Config(BaseModel):
    """Base of a program's settings: immutable, and closed to unknown keys.

    A trailing underscore of a field's name is not part of its flag, key or variable.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=public_name, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _single_values_are_lists(cls, values: Any) -> Any:
        """Let `data: photos` stand for `data: [photos]` in a file, as one flag does."""
        if not isinstance(values, Mapping):
            return values
        lists = {name for name, field in fields_of(cls).items() if is_list(field.annotation)}
        return {
            key: [value]
            if public_name(key) in lists and isinstance(value, str | int | float | Path)
            else value
            for key, value in values.items()
        }

    @model_validator(mode="before")
    @classmethod
    def _paths_are_no_urls(cls, values: Any) -> Any:
        """Refuse an address where a path of this machine is wanted, before it is read as one."""
        if not isinstance(values, Mapping):
            return values
        paths = {name for name, field in fields_of(cls).items() if _is_path(field.annotation)}
        for key, value in values.items():
            given = value if isinstance(value, list | tuple) else [value]
            urls = [one for one in given if isinstance(one, str) and is_url(one)]
            if public_name(key) in paths and urls:
                flag = f"--{public_name(key).replace('_', '-')}"
                raise ValueError(f"{flag} takes a path of this machine, not the URL {urls[0]}")
        return values

    def to_yaml(self) -> str:
        """The resolved settings as YAML, itself a valid `--config` file."""
        return yaml.safe_dump(
            self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True
        )

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Validate merged values; raises ConfigError naming key, value and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_explain(error, cls)) from error


def fields_of(cls: type[Config]) -> dict[str, FieldInfo]:
    """Public names and fields, in their order."""
    return {public_name(name): field for name, field in cls.model_fields.items()}


def is_list(annotation: Any) -> bool:
    """Whether a field takes several values."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return any(is_list(member) for member in typing.get_args(annotation))
    return typing.get_origin(annotation) in (list, tuple)


def _is_path(annotation: Any) -> bool:
    """Whether what a field takes is a path, or several, and never an address."""
    members = list(typing.get_args(annotation))
    nested = (part for member in members for part in typing.get_args(member))
    kinds = [annotation, *members, *nested]
    return Path in kinds and Url not in kinds


def is_secret(annotation: Any) -> bool:
    """Whether what a field takes must not be shown."""
    members = typing.get_args(annotation)
    return annotation is SecretStr or any(is_secret(member) for member in members)


def did_you_mean(unknown: str, known: Sequence[str]) -> str:
    """Return the nearest known name as the end of a message, nothing when none is near."""
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _explain(error: ValidationError, cls: type[Config]) -> str:
    """One line for each fault: where, what was given unless it is a secret, what is wanted."""
    lines = []
    secrets = {name for name, field in fields_of(cls).items() if is_secret(field.annotation)}
    for fault in error.errors():
        name = ".".join(str(part) for part in fault["loc"])
        flag = f"--{name.replace('_', '-')}" if name else "settings"
        if fault["type"] == "missing":
            lines.append(f"{flag} is required")
        elif fault["type"] == "value_error":  # a validator's own words
            said, given = fault["msg"].removeprefix("Value error, "), fault["input"]
            shown = f", not {given!r}" if isinstance(given, str) and given not in said else ""
            lines.append(f"{flag}: {said}{shown}" if name else said)
        else:
            given = "" if name.partition(".")[0] in secrets else f", not {fault['input']!r}"
            lines.append(f"{flag}: {fault['msg']}{given}")
    return "; ".join(lines)
