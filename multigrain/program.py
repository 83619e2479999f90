"""What every program does: read its settings, run, and end with one line for what went wrong.

Flags > environment > YAML files > defaults; see docs/decisions/0001-configuration.md.
"""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from multigrain.config import Config, ConfigError
from multigrain.config_flags import EXIT_USAGE, make_parser
from multigrain.config_sources import from_environment, from_files, unset
from multigrain.errors import MultiGrainError

EXIT_INTERRUPTED = 130

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
    changes. `--help` and `--print-config` print and exit with 0; a wrong flag, key or value
    prints one message and exits with 2.
    """
    parser = make_parser(cls, prog, description)
    flags = vars(parser.parse_args(list(argv)))
    files, print_only = flags.pop("config_files"), flags.pop("print_config_and_exit")
    try:
        values = from_files(cls, files) | from_environment(cls, environ)
        given = {name: value for name, value in flags.items() if value is not None}
        config = cls.from_values(values | unset(cls, given))
    except ConfigError as error:
        parser.error(str(error))
    if print_only:
        sys.stdout.write(config.to_yaml())
        parser.exit()
    return config


def run_main(main: Callable[[], int], *, prog: str) -> int:
    """Run a program; turn an error the user can cure into one line and exit status 2.

    Pillow's warnings about photos are not shown: each would be lines of its own, in a log of
    JSON too, and be remembered, of as many kinds as a hostile photo has damaged tags.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
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
