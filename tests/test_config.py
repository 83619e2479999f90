"""Settings: precedence, closed to unknown names, printable and readable again."""

import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from multigrain.config import Config
from multigrain.errors import MultiGrainError
from multigrain.photo import PhotoError, open_photo
from multigrain.program import load_config, run_main


class Settings(Config):
    """Settings of a program that does not exist."""

    photos: list[Path] = Field(default=[], description="folders, 100% of them")
    batch_size: int = Field(default=8, description="photos a batch", gt=0)
    device: Literal["auto", "cpu"] = "auto"
    quick: bool = False
    title: str | None = None
    lambda_: float = 0.5


def load(argv: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Settings:
    return load_config(
        Settings, prog="prog", description="A test.", argv=argv, environ=environ or {}
    )


def message_of(
    capsys: pytest.CaptureFixture[str],
    argv: Sequence[str],
    environ: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(SystemExit) as caught:
        load(argv, environ)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_flags_beat_the_environment_beats_files_beats_defaults(tmp_path: Path) -> None:
    """Each source overrides the next, field by field; later files win."""
    (tmp_path / "a.yaml").write_text("batch_size: 2\ndevice: cpu\ntitle: a\n")
    (tmp_path / "b.yaml").write_text("title: b\nbatch_size: 3\n")
    files = ["--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml")]
    environ = {"MULTIGRAIN_BATCH_SIZE": "4", "MULTIGRAIN_TITLE": "env", "OTHER": "x"}
    settings = load([*files, "--title", "flag"], environ)
    assert settings == Settings(batch_size=4, device="cpu", title="flag")


def test_lists_are_repeated_flags_and_keep_commas() -> None:
    """A folder name may hold a comma; the environment takes one value or a YAML list."""
    assert load(["--photos", "/Rome, 2019", "--photos", "b"]).photos == [
        Path("/Rome, 2019"),
        Path("b"),
    ]
    assert load(environ={"MULTIGRAIN_PHOTOS": "/Rome, 2019"}).photos == [Path("/Rome, 2019")]
    assert load(environ={"MULTIGRAIN_PHOTOS": "[a, b]"}).photos == [Path("a"), Path("b")]


def test_booleans_can_be_switched_both_ways(tmp_path: Path) -> None:
    """`--no-quick` overrides a file that says true."""
    (tmp_path / "c.yaml").write_text("quick: true\n")
    assert load(["--config", str(tmp_path / "c.yaml")]).quick
    assert not load(["--config", str(tmp_path / "c.yaml"), "--no-quick"]).quick


def test_a_reserved_word_is_a_field_with_an_underscore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lambda_` is --lambda, MULTIGRAIN_LAMBDA and `lambda:`."""
    (tmp_path / "c.yaml").write_text("lambda: 0.25\n")
    assert load(["--lambda", "0"]).lambda_ == 0
    assert load(environ={"MULTIGRAIN_LAMBDA": "1"}).lambda_ == 1
    assert load(["--config", str(tmp_path / "c.yaml")]).lambda_ == 0.25
    assert "--lambda: Input should be a valid number" in message_of(capsys, ["--lambda", "x"])


def test_an_empty_text_unsets(tmp_path: Path) -> None:
    """A list becomes empty, an optional value none, on the command line and in the environment."""
    (tmp_path / "c.yaml").write_text("photos: [a]\ntitle: b\n")
    file = ["--config", str(tmp_path / "c.yaml")]
    assert load([*file, "--photos", "", "--title", ""]) == Settings()
    assert load(file, {"MULTIGRAIN_PHOTOS": "", "MULTIGRAIN_TITLE": ""}) == Settings()
    assert load([*file, "--title", "c"], {"MULTIGRAIN_TITLE": ""}).title == "c"


def test_a_file_changes_what_its_base_says(tmp_path: Path) -> None:
    """Bases lie beside the file that names them, may have bases, and later ones win."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "first.yaml").write_text("batch_size: 2\ntitle: first\nquick: true\n")
    (tmp_path / "parts" / "second.yaml").write_text("base: first.yaml\ntitle: second\n")
    (tmp_path / "third.yaml").write_text("lambda: 0.25\ntitle: third\n")
    top = tmp_path / "top.yaml"
    top.write_text("base: [third.yaml, parts/second.yaml]\nbatch_size: 4\n")
    settings = load(["--config", str(top)])
    assert settings == Settings(batch_size=4, title="second", quick=True, lambda_=0.25)


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        (["--config", "loop.yaml"], {}, "is a `base` of itself"),
        (["--config", "number.yaml"], {}, "must be a file or a list of files, not 3"),
        (["--config", "nobase.yaml"], {}, "--config absent.yaml: No such file"),
        (["--batch-sise", "3"], {}, "did you mean --batch-size?"),
        (["--batch-size", "0"], {}, "--batch-size: Input should be greater than 0, not '0'"),
        (["--device", "gpu"], {}, "--device: Input should be 'auto' or 'cpu', not 'gpu'"),
        ([], {"MULTIGRAIN_BATCH_SIZE": "many"}, "--batch-size: Input should be a valid integer"),
        ([], {"MULTIGRAIN_PHOTOS": "[a"}, "is not a list"),
        (["--config", "/absent.yaml"], {}, "No such file"),
        (["--config", "bad.yaml"], {}, "unknown key 'batchsize' (did you mean batch_size?)"),
        (["--config", "private.yaml"], {}, "unknown key 'lambda_' (did you mean lambda?)"),
        (["--config", "list.yaml"], {}, "must hold `key: value` lines"),
        (["--config", "broken.yaml"], {}, "is not YAML"),
    ],
)
def test_a_wrong_name_or_value_is_explained(
    argv: list[str],
    environ: dict[str, str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit status 2, one message with the place, the value and the nearest name."""
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("batchsize: 3\n")
    Path("private.yaml").write_text("lambda_: 0\n")
    Path("loop.yaml").write_text("base: loop2.yaml\n")
    Path("loop2.yaml").write_text("base: loop.yaml\n")
    Path("number.yaml").write_text("base: 3\n")
    Path("nobase.yaml").write_text("base: absent.yaml\n")
    Path("list.yaml").write_text("- 1\n")
    Path("broken.yaml").write_text("a: [\n")
    assert expected in message_of(capsys, argv, environ)


def test_the_printed_config_is_a_valid_config(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`--print-config` round-trips through `--config`."""
    with pytest.raises(SystemExit) as caught:
        load(["--photos", "a", "--batch-size", "5", "--print-config"])
    assert caught.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    again = load(["--config", str(tmp_path / "printed.yaml")])
    assert again == Settings(photos=[Path("a")], batch_size=5)


def test_help_names_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Descriptions, choices and defaults are shown; a per cent sign does not break it."""
    with pytest.raises(SystemExit) as caught:
        load(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for expected in ("--photos", "100% of them", "(default: 8)", "{auto,cpu}", "--no-quick"):
        assert expected in text


def test_errors_of_the_family_end_a_program_with_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status 2 and the message for ours, 130 for an interrupt, the status otherwise."""

    def fail() -> int:
        raise MultiGrainError("no such folder")

    def interrupt() -> int:
        raise KeyboardInterrupt

    def fill() -> int:
        raise OSError(28, "No space left on device", "/run/x")

    assert run_main(fail, prog="prog") == 2
    assert capsys.readouterr().err == "prog: no such folder\n"
    assert run_main(fill, prog="prog") == 2
    assert capsys.readouterr().err == "prog: No space left on device: /run/x\n"
    assert run_main(interrupt, prog="prog") == 130
    assert run_main(lambda: 3, prog="prog") == 3


def test_a_program_shows_no_warning_of_pillow(test_data: Path) -> None:
    """Photos are refused with a reason or decoded; what Pillow says beside it is for nobody."""
    damaged = test_data / "hard/files/oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif"

    def program() -> int:
        with suppress(PhotoError):
            open_photo(damaged)
        return 0

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with suppress(PhotoError):
            open_photo(damaged)
        assert shown
        shown.clear()
        assert run_main(program, prog="prog") == 0
    assert shown == []


def test_reading_settings_does_not_import_torch() -> None:
    """`--help` answers at once because torch comes after parsing."""
    code = "import sys, multigrain.program; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
