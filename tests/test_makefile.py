"""What `make demo` would run, read off a dry run; .ci/run runs it for real."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


VARIABLES = ("PORT", "PHOTOS", "CHECKPOINT", "DETACH", "DATA")


def dry_run(*arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_demo_draws_trains_builds_searches_and_serves() -> None:
    """Without arguments every stage is run, in order, in the foreground."""
    text = dry_run("demo", "DEMO=build/none", "DEMO_MODEL=build/none/model.safetensors")
    stages = ("trainer.scenes", "trainer/train.py", "index.build", "index.search", "-m service ")
    places = [text.index(stage) for stage in stages]
    assert places == sorted(places)
    assert "--port 8000" in text
    assert "nohup" not in text


def test_own_photos_are_used_as_they_are_named(tmp_path: Path) -> None:
    """A folder with spaces and quotes is one word, nothing is drawn, its index is its own."""
    photos = tmp_path / "Bob's  photos"
    text = dry_run("demo", f"PHOTOS={photos}")
    words = shlex.split(next(line for line in text.splitlines() if "trainer/train.py" in line))
    assert words[words.index("--data") + 1] == str(photos)
    words = shlex.split(next(line for line in text.splitlines() if "index.build" in line))
    assert words[words.index("--photos") + 1] == str(photos)
    assert "trainer.scenes" not in text
    assert "--out demo/drawn" not in text


def test_a_checkpoint_spares_the_training() -> None:
    """With CHECKPOINT= nothing is trained, and the index is another one."""
    text = dry_run("demo", "CHECKPOINT=models/a.safetensors")
    assert "torchrun" not in text
    assert "--checkpoint 'models/a.safetensors'" in text
    assert "--out demo/drawn/index-" in text


def test_detached_the_service_is_waited_for_on_its_port() -> None:
    """DETACH=1 starts in the background, asks /health on PORT, and prints the address last."""
    text = dry_run("demo", "DETACH=1", "PORT=8099")
    assert "nohup" in text
    assert "service.healthcheck --url http://127.0.0.1:8099" in text
    assert "echo http://127.0.0.1:8099" in text


@pytest.mark.parametrize(("arguments", "tool"), [((), "bin/pip"), (("UV=uv",), "uv pip")])
def test_a_developers_environment_is_one_install(arguments: tuple[str, ...], tool: str) -> None:
    """Programs and tools come in one call, of pip or of uv: torch is resolved once."""
    lines = dry_run("install-dev", "VENV=build/none", *arguments).splitlines()
    (install,) = [line for line in lines if " install " in line]
    assert tool in install
    assert install.endswith("-e '.[cpu,dev]'")


def test_ci_runs_the_test_command_and_the_demo() -> None:
    """What CI runs is what the README says."""
    script = (ROOT / ".ci/run").read_text()
    assert " make test\n" in script
    assert "\ndemo\n" in script
    assert "\ndemo PHOTOS=" in script
