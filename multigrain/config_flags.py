"""The flags of a program, made of its settings."""

import argparse
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from multigrain.config import Config, did_you_mean, is_list, public_name

EXIT_USAGE = 2


class _Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest flag when one is unknown."""

    def error(self, message: str) -> NoReturn:
        marker = "unrecognized arguments: "
        if message.startswith(marker):
            unknown = message.removeprefix(marker).split()[0].split("=")[0]
            known = [flag for action in self._actions for flag in action.option_strings]
            message += did_you_mean(unknown, known)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def make_parser(cls: type[Config], prog: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with a flag for each setting, `--config` and `--print-config`."""
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
            flag = f"--{public_name(name).replace('_', '-')}"
            group.add_argument(flag, dest=public_name(name), **_flag_of(cls.model_fields[name]))
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
    return flag | ({"action": "append"} if is_list(field.annotation) else {})


def _shown(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return "none" if default in (None, [], ()) else str(default)


def _choices_of(annotation: Any) -> list[str]:
    members = [annotation, *typing.get_args(annotation)]
    literals = [member for member in members if typing.get_origin(member) is typing.Literal]
    return [str(choice) for literal in literals for choice in typing.get_args(literal)]
