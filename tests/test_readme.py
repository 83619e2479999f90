"""Every command of the README is run: here, or where the table below says."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Commands that a test of this file cannot run, whole, and who runs them.
RUN_ELSEWHERE = {
    "make demo": ".ci/run: makes, serves, asks and stops it",
    "make demo PHOTOS=~/Pictures": ".ci/run, with a checkpoint; test_makefile.py reads the rest",
    "make demo PHOTOS=~/Pictures CHECKPOINT=models/my.safetensors": ".ci/run, with other names",
    "make demo DETACH=1 PORT=8080": ".ci/run, on another port",
    "make demo-stop PORT=8080": ".ci/run, on another port",
    "make test": ".ci/run",
    "pip install '.[cpu]'": "make install-dev, of which this environment comes",
    "pip install '.[gpu]'": "not run: its wheels need CUDA",
    "docker compose up": "no engine here; tests/test_docker.py parses the files",
}
SMALL = {
    "MULTIGRAIN_NUM_CLASSES": "2",
    "MULTIGRAIN_INSTANCES_PER_CLASS": "4",
    "MULTIGRAIN_PHOTOS_PER_INSTANCE": "3",
    "MULTIGRAIN_DURATION": "2step",
    "MULTIGRAIN_BATCH_SIZE": "12",
    "MULTIGRAIN_NUM_WORKERS": "0",
    "MULTIGRAIN_DRAIN_GRACE_S": "0",
}
TIMEOUT_SECONDS = 900


def commands() -> list[str]:
    """The lines of the README's shell blocks, without comments."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [re.sub(r"\s+#\s.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def is_run_elsewhere(command: str) -> bool:
    return command in RUN_ELSEWHERE


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def argv_of(command: str, port: int) -> list[str]:
    """The command with this interpreter, this port and no download.

    Instead of downloaded weights random ones, of a trunk that tells photos apart with them.
    """
    command = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    command = command.replace(
        "--backbone mobilenet_v2 --weights DEFAULT", "--backbone squeezenet1_1 --weights none"
    )
    words = shlex.split(command)
    if words[0] == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    return [sys.executable if words[0] == "python" else words[0], *words[1:]]


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return os.environ | SMALL | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def walkthrough(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Run the README from top to bottom in an empty folder; give what each command printed."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "trainer").symlink_to(ROOT / "trainer")
    port = free_port()
    environment = environment | {"MULTIGRAIN_PORT": str(port)}
    printed: dict[str, str] = {}
    server: subprocess.Popen[bytes] | None = None
    try:
        for command in (line for line in commands() if not is_run_elsewhere(line)):
            argv = argv_of(command, port)
            if command.startswith("python -m service "):
                server = subprocess.Popen(argv, cwd=folder, env=environment)
                wait_until_healthy(port)
                printed[command] = ""
                continue
            done = subprocess.run(
                argv,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            printed[command] = done.stdout
        yield printed
    finally:
        if server is not None:
            server.terminate()
            # uvicorn ends by the signal it was sent, once everything is answered.
            assert server.wait(timeout=120) in (0, -signal.SIGTERM)


def wait_until_healthy(port: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    pytest.fail("the service of the README did not become healthy")


def test_every_command_of_the_readme_is_run(walkthrough: dict[str, str]) -> None:
    """No command is left out, and no entry of the table names one that is gone."""
    assert set(walkthrough) == {line for line in commands() if not is_run_elsewhere(line)}
    assert set(RUN_ELSEWHERE) <= set(commands())


def test_the_search_of_the_readme_finds_the_photo_itself(walkthrough: dict[str, str]) -> None:
    """The shell prints the photo first; the two ways of curl agree with it."""
    shell = next(out for line, out in walkthrough.items() if "index.search" in line)
    assert "house-000-view-00.jpg" in shell.splitlines()[0]
    answers = [json.loads(out) for line, out in walkthrough.items() if "/search" in line]
    assert [answer["count"] for answer in answers] == [10, 3]
    for answer in answers:
        assert answer["results"][0]["uri"].endswith("00-house/house-000-view-00.jpg")
        assert answer["results"][0]["score"] == pytest.approx(1, abs=1e-3)


def test_files_named_in_the_readme_exist() -> None:
    """Links of the tour and of the documents lead somewhere."""
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(links) > 6
    assert [link for link in links if not (ROOT / link).exists()] == []
