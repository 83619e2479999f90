"""One way to configure every program: flags > environment > YAML files > defaults.

A program declares a frozen pydantic model; flags, environment names and YAML keys follow from
its fields, and nothing else is accepted. See docs/decisions/0001-configuration.md.
"""

import argparse
import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from multigrain.errors import MultiGrainError

ENVIRONMENT_PREFIX = "MULTIGRAIN_"
_BASE = "base"  # the key of a file that names files to begin from

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class ConfigError(MultiGrainError):
    """A flag, a key or a value that the program does not take."""


def _public(field: str) -> str:
    """A field's name to the outside: `lambda_` is a reserved word here and `lambda` there."""
    return field.removesuffix("_")


class Config(BaseModel):
    """Base of a program's settings: immutable, and closed to unknown keys.

    A trailing underscore of a field's name is not part of its flag, key or variable.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=_public, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _single_values_are_lists(cls, values: Any) -> Any:
        """Let `data: photos` stand for `data: [photos]` in a file, as one flag does."""
        if not isinstance(values, Mapping):
            return values
        lists = {name for name, field in _fields(cls).items() if _is_list(field.annotation)}
        return {
            key: [value]
            if _public(key) in lists and isinstance(value, str | int | float | Path)
            else value
            for key, value in values.items()
        }

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
            raise ConfigError(_explain(error)) from error


C = TypeVar("C", bound=Config)


def load_config(
    cls: type[C],
    *,
    prog: str,
    description: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
) -> C:
    """Resolve a program's settings.

    Flags are the field names in kebab case; a boolean field has `--flag` and `--no-flag`, a
    list field may be repeated. Environment names are MULTIGRAIN_ and the field in upper case.
    An empty text unsets: `--exponents ''` is an empty list, `--clip-norm ''` none.
    `--config` may be repeated, later files win; a file's `base:` names files beside it that it
    changes. `--help` and `--print-config` print and exit
    with 0; a wrong flag, key or value prints one message and exits with 2.
    """
    parser = _make_parser(cls, prog, description)
    flags = vars(parser.parse_args(list(argv)))
    files, print_only = flags.pop("config_files"), flags.pop("print_config_and_exit")
    try:
        values = _from_files(cls, files) | _from_environment(cls, environ)
        given = {name: value for name, value in flags.items() if value is not None}
        config = cls.from_values(values | _unset(cls, given))
    except ConfigError as error:
        parser.error(str(error))
    if print_only:
        sys.stdout.write(config.to_yaml())
        parser.exit()
    return config


def run_main(main: Callable[[], int], *, prog: str) -> int:
    """Run a program; turn an error the user can cure into one line and exit status 2."""
    try:
        return main()
    except MultiGrainError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:  # a folder that cannot be written, a full disk, a closed pipe
        where = "" if error.filename is None else f": {error.filename}"
        print(f"{prog}: {error.strerror or error}{where}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _fields(cls: type[Config]) -> dict[str, FieldInfo]:
    """Public names and fields, in their order."""
    return {_public(name): field for name, field in cls.model_fields.items()}


class _Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest flag when one is unknown."""

    def error(self, message: str) -> NoReturn:
        marker = "unrecognized arguments: "
        if message.startswith(marker):
            unknown = message.removeprefix(marker).split()[0].split("=")[0]
            known = [flag for action in self._actions for flag in action.option_strings]
            message += _did_you_mean(unknown, known)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def _make_parser(cls: type[Config], prog: str, description: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        dest="config_files",
        metavar="FILE",
        type=Path,
        help="YAML file of settings; repeatable, later files win",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        dest="print_config_and_exit",
        help="print the resolved settings as YAML and exit",
    )
    for section, names in _sections(cls):
        # A program whose settings have no parts needs no headings.
        group = parser if section is cls else parser.add_argument_group(_heading(section))
        for name in names:
            flag = f"--{_public(name).replace('_', '-')}"
            group.add_argument(flag, dest=_public(name), **_flag_of(cls.model_fields[name]))
    return parser


def _sections(cls: type[Config]) -> Iterator[tuple[type, list[str]]]:
    """The classes that settings are put together of, and the fields each declares, in order."""
    owners = {
        name: next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
        for name in cls.model_fields
    }
    for owner in dict.fromkeys(owners.values()):
        yield owner, [name for name in cls.model_fields if owners[name] is owner]


def _heading(section: type) -> str:
    return (section.__doc__ or section.__name__).splitlines()[0].rstrip(".").lower()


def _flag_of(field: FieldInfo) -> dict[str, Any]:
    """Keyword arguments of `add_argument` for a field; values stay text for pydantic to read."""
    choices = _choices_of(field.annotation)
    default = "" if field.is_required() else f" (default: {_shown(field)})"
    help_text = (field.description or "") + default
    flag: dict[str, Any] = {"default": None, "help": help_text.replace("%", "%%")}
    if field.annotation is bool:
        return flag | {"action": argparse.BooleanOptionalAction}
    if choices:
        flag["metavar"] = "{" + ",".join(choices) + "}"
    else:
        flag["metavar"] = "VALUE"
    return flag | ({"action": "append"} if _is_list(field.annotation) else {})


def _shown(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return "none" if default in (None, [], ()) else str(default)


def _choices_of(annotation: Any) -> list[str]:
    members = [annotation, *typing.get_args(annotation)]
    literals = [member for member in members if typing.get_origin(member) is typing.Literal]
    return [str(choice) for literal in literals for choice in typing.get_args(literal)]


def _is_list(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return any(_is_list(member) for member in typing.get_args(annotation))
    return typing.get_origin(annotation) in (list, tuple)


def _from_files(cls: type[Config], files: Sequence[Path]) -> dict[str, Any]:
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
    unknown = [str(key) for key in loaded if key not in _fields(cls)]
    if unknown:
        hint = _did_you_mean(unknown[0], [*_fields(cls), _BASE])
        raise ConfigError(f"unknown key {unknown[0]!r}{hint} in {file}")
    values: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        values |= _from_file(cls, file.parent / str(base), above=(*above, file.resolve()))
    return values | loaded


def _read(file: Path) -> dict[Any, Any]:
    try:
        loaded = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file} is not YAML: {error}") from error
    if not isinstance(loaded, dict | None):
        raise ConfigError(f"--config {file} must hold `key: value` lines")
    return loaded or {}


def _from_environment(cls: type[Config], environ: Mapping[str, str]) -> dict[str, Any]:
    """Values of the fields that the environment names; a list is written as YAML, `[a, b]`."""
    values: dict[str, Any] = {}
    for name, field in _fields(cls).items():
        text = environ.get(ENVIRONMENT_PREFIX + name.upper())
        if text is not None:
            values[name] = _list_from(text) if _is_list(field.annotation) else text
    return _unset(cls, values)


def _unset(cls: type[Config], values: Mapping[str, Any]) -> dict[str, Any]:
    """Read empty texts as what they unset: lists become empty, optional values None."""

    def one(name: str, value: Any) -> Any:
        annotation = _fields(cls)[name].annotation
        if value == [""]:
            return []
        return None if value == "" and type(None) in typing.get_args(annotation) else value

    return {name: one(name, value) for name, value in values.items()}


def _list_from(text: str) -> list[Any]:
    if not text.lstrip().startswith("["):
        return [text]
    try:
        values: list[Any] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} in the environment is not a list: {error}") from error
    return values


def _explain(error: ValidationError) -> str:
    """One line for each fault: where, what was given, what is wanted."""
    lines = []
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
            lines.append(f"{flag}: {fault['msg']}, not {fault['input']!r}")
    return "; ".join(lines)


def _did_you_mean(unknown: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
