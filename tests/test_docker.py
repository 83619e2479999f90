"""The Dockerfile and the compose file agree with each other and with the programs they run."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement

from index.layout import Layout

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"
ADDS = ROOT / "docker" / "compose.adds.yml"
TARGETS = ("trainer", "index", "service")


# What the suite does of each RUN step, or why it does not.
RUN_STEPS = {
    "python -m venv /opt/venv": "run by .ci/run, in another folder",
    "pip install --constraint constraints.txt ${TORCH_INDEX:+": "the Makefile installs the same, "
    "in one call; the newest versions, which need not be the image's",
    'pip install --constraint constraints.txt ".[${EXTRA}]"': "the Makefile, editable",
    "groupadd --gid 10001": "run below, in a folder of its own",
}


class Instruction(NamedTuple):
    """One instruction of a Dockerfile: its name, and the rest of its line."""

    name: str
    value: str


def read_stages() -> dict[str, tuple[str, list[Instruction]]]:
    """Stage name -> (what it is built from, its instructions)."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    stages: dict[str, tuple[str, list[Instruction]]] = {}
    current: list[Instruction] = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            origin, _, stage = value.partition(" AS ")
            current = []
            stages[stage] = (origin, current)
        current.append(Instruction(name, value.strip()))
    return stages


def instructions_of(target: str) -> list[Instruction]:
    """All instructions that shape a target's image, its ancestors' first."""
    stages = read_stages()
    origin, own = stages[target]
    return [*(instructions_of(origin) if origin in stages else []), *own]


def last(target: str, name: str) -> str:
    return [i.value for i in instructions_of(target) if i.name == name][-1]


@functools.cache
def help_of(target: str) -> str:
    """What the program that an image starts says about itself."""
    command = json.loads(last(target, "ENTRYPOINT"))
    assert command[0] == "python"
    return subprocess.run(
        [sys.executable, *command[1:], "--help"], check=True, capture_output=True, text=True
    ).stdout


def compose_file() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def compose_services() -> dict[str, Any]:
    services: dict[str, Any] = compose_file()["services"]
    return services


@pytest.mark.parametrize("target", TARGETS)
def test_each_image_runs_as_a_user_without_privileges(target: str) -> None:
    """No target ends as root; a number, since Kubernetes cannot tell whether a name is root's."""
    user, _, group = last(target, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


@pytest.mark.parametrize("target", TARGETS)
def test_commands_are_in_exec_form(target: str) -> None:
    """A shell in between would swallow SIGTERM."""
    for name in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(word, str) for word in json.loads(last(target, name)))


@pytest.mark.parametrize("target", TARGETS)
def test_entrypoint_answers_help(target: str) -> None:
    """The module each image starts exists and explains itself."""
    assert "--" in help_of(target)


def test_every_step_of_the_build_is_accounted_for() -> None:
    """Each RUN is exercised somewhere, or the table says why not."""
    steps = [i.value for _, lines in read_stages().values() for i in lines if i.name == "RUN"]
    assert len(steps) == len(RUN_STEPS)
    for step, known in zip(steps, RUN_STEPS, strict=True):
        assert step.startswith(known)


def test_user_and_folders_are_made_as_the_image_says(tmp_path: Path) -> None:
    """The step that needs root runs as it stands, but below a folder: user, home and volumes."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("users are made by root alone, with useradd")
    (step,) = [i.value for i in read_stages()["base"][1] if i.name == "RUN"]
    step = re.sub(r"\b(groupadd|useradd) ", rf"\1 --prefix {tmp_path} ", step)
    step = re.sub(r" /(indexes|runs)\b", rf" {tmp_path}/\1", step)
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / name).touch()
    subprocess.run(["sh", "-euc", step], check=True, capture_output=True)
    user, _, group = last("service", "USER").partition(":")
    entry = (tmp_path / "etc" / "passwd").read_text().split(":")
    assert entry[2:4] == [user, group]
    for folder in (tmp_path / entry[5].lstrip("/"), tmp_path / "indexes", tmp_path / "runs"):
        assert (folder.stat().st_uid, folder.stat().st_gid) == (int(user), int(group))


def test_every_dependency_of_the_images_is_pinned() -> None:
    """The constraints name one version for each, within the range that the project takes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in project["dependencies"] + extras["cpu"] + extras["gpu"]]
    lines = (ROOT / "docker" / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins)
    assert [r.name for r in wanted if r.name not in versions] == []
    assert [r.name for r in wanted if not r.specifier.contains(versions[r.name])] == []


def test_base_image_is_pinned_to_a_release() -> None:
    """Both stages come from one image, whose tag names a whole version and a Debian release."""
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", image)
    stages = read_stages()
    assert {stages[stage][0] for stage in ("build", "base")} == {"${PYTHON_IMAGE}"}


def test_image_tells_the_commit_it_was_built_from() -> None:
    """The build argument becomes the label and the setting that GET /version answers."""
    assert 'image.revision="${GIT_HASH}"' in last("service", "LABEL")
    assert any("MULTIGRAIN_REVISION=${GIT_HASH}" in i.value for i in instructions_of("service"))
    assert "--revision" in help_of("service")
    assert compose_services()["service"]["build"]["args"]["GIT_HASH"] == "${GIT_HASH:-}"


def test_linter_finds_nothing_in_the_dockerfile() -> None:
    """hadolint, where it is installed."""
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(DOCKERFILE)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_healthcheck_answers_help() -> None:
    """The service's image asks for its health with a command that exists, in exec form."""
    command = json.loads(last("service", "HEALTHCHECK").partition("CMD")[2])
    assert command[:2] == ["python", "-m"]
    subprocess.run([sys.executable, *command[1:], "--help"], check=True, capture_output=True)


def test_copied_files_exist_and_are_sent_to_the_engine() -> None:
    """Every path the build stage copies is in the repository, and not ignored; nothing else is."""
    ignored = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = set()
    for instruction in read_stages()["build"][1]:
        if instruction.name == "COPY":
            *sources, _ = instruction.value.split()
            assert all((ROOT / source).exists() for source in sources), instruction
            copied.update(sources)
    assert sent == copied


def test_compose_builds_targets_of_the_dockerfile() -> None:
    """Each service names a stage that the Dockerfile has."""
    ours = [service for service in compose_services().values() if "build" in service]
    assert {service["build"]["target"] for service in ours} == set(TARGETS)
    assert all(ROOT / service["build"]["dockerfile"] == DOCKERFILE for service in ours)


def test_compose_serves_after_the_index_is_built() -> None:
    """The one-shot index build succeeds before the service starts."""
    service = compose_services()["service"]
    assert service["depends_on"] == {"index": {"condition": "service_completed_successfully"}}
    assert service["stop_grace_period"] == "30s"


def test_compose_publishes_on_loopback_and_mounts_read_only() -> None:
    """Nothing is reachable from outside by default, and the service can write nothing."""
    services = compose_services()
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    for name in ("service", "service-gpu"):
        assert all(volume.endswith(":ro") for volume in services[name]["volumes"])
    assert all(service["read_only"] and service["init"] for service in services.values())


def test_compose_writes_only_to_volumes_of_the_images_user() -> None:
    """Docker makes a missing folder of the host root's; a named volume takes its owner from here.

    The image has the folder, given to its user before it stops being root.
    """
    entries = compose_services().values()
    mounts = [(mount, "build" in entry) for entry in entries for mount in entry["volumes"]]
    named = [(*mount.split(":"), ours) for mount, ours in mounts if not mount.endswith(":ro")]
    assert {name for name, _, _ in named} == set(compose_file()["volumes"])
    writable = [(name, folder) for name, folder, ours in named if ours]
    assert {name for name, _ in writable} == {"indexes", "runs"}
    base = read_stages()["base"][1]
    before_user = base[: [i.name for i in base].index("USER")]
    (made,) = [i.value for i in before_user if i.name == "RUN" and "install --directory" in i.value]
    user, _, group = last("base", "USER").partition(":")
    assert f"--owner={user} --group={group}" in made
    assert all(folder in made.split() for _, folder in writable)


def test_compose_with_adds_opens_two_folders_of_the_index() -> None:
    """The overlay changes the service alone; what it may write is what adds write."""
    ((name, service),) = yaml.safe_load(ADDS.read_text())["services"].items()
    base = compose_services()[name]
    assert service["command"] == [*base["command"], "--adds"]
    assert "--adds" in help_of(base["build"]["target"])
    layout = Layout(Path("/indexes"))
    opened = {mount["target"]: mount["volume"]["subpath"] for mount in service["volumes"]}
    assert opened == {str(path): path.name for path in (layout.adds, layout.uploads)}
    assert "indexes:/indexes:ro" in base["volumes"]
    assert {mount["source"] for mount in service["volumes"]} == {"indexes"}


def test_compose_starts_only_what_a_laptop_can_run() -> None:
    """`docker compose up` needs neither training nor a GPU: those have profiles."""
    profiles = {name: entry.get("profiles") for name, entry in compose_services().items()}
    always = {name for name, named in profiles.items() if named is None}
    assert always == {"index", "service"}
    assert (profiles["train"], profiles["service-gpu"]) == (["train"], ["gpu"])


def test_compose_reserves_a_gpu_only_in_its_profile() -> None:
    """The GPU's service is built for one, reserves one and takes another port."""
    services = compose_services()
    gpu = services["service-gpu"]
    assert gpu["build"]["args"]["EXTRA"] == "gpu"
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert gpu["ports"] != services["service"]["ports"]
    assert [name for name, entry in services.items() if "deploy" in entry] == ["service-gpu"]


@pytest.mark.parametrize("service", ["index", "service", "service-gpu", "train"])
def test_compose_flags_are_known_to_the_program(service: str) -> None:
    """Every flag in the compose file is one the program lists in its help."""
    entry = compose_services()[service]
    known = help_of(entry["build"]["target"])
    flags = [word.partition("=")[0] for word in entry["command"] if word.startswith("--")]
    assert [flag for flag in flags if flag not in known] == []
