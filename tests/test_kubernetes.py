"""The Kubernetes example: valid, hardened, probed by the right routes, and whole."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_docker import help_of, last

from service.app import create_app
from service.serving.runtime import Runtime
from service.settings import Settings

FOLDER = Path(__file__).parents[1] / "docker" / "kubernetes"
KUBERNETES_VERSION = "1.34"
# Longer than drain_grace_s and the server's own limit on finishing requests.
DRAIN_SECONDS = 30
PROBES = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def manifests() -> list[dict[str, Any]]:
    """Every object that `kubectl apply -k` makes."""
    names = kustomization()["resources"]
    assert sorted([*names, "kustomization.yaml"]) == sorted(p.name for p in FOLDER.iterdir())
    return [each for name in names for each in yaml.safe_load_all((FOLDER / name).read_text())]


def kustomization() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    return document


def name_of(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["name"])


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    found = [each for each in manifests() if each["kind"] in kinds]
    assert found
    return found


def pods() -> list[dict[str, Any]]:
    """The pod specifications of all workloads."""
    return [each["spec"]["template"]["spec"] for each in of_kind("Deployment", "Job")]


def service_container() -> dict[str, Any]:
    (deployment,) = of_kind("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize(
    "manifest", manifests(), ids=lambda m: f"{m['kind']}-{m['metadata']['name']}"
)
def test_manifest_follows_the_schema(manifest: dict[str, Any]) -> None:
    """Kubernetes' own schema takes it, with no field it does not know."""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    validator.validate(manifest, KUBERNETES_VERSION, strict=True)


def test_pods_have_no_rights() -> None:
    """Not root, nothing writable but volumes, no capabilities, no token of the cluster."""
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
        assert user == last("service", "USER")
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_mounts_are_volumes_of_the_pod_and_claims_exist() -> None:
    """What a container mounts its pod has, and what a pod claims is claimed."""
    claims = {name_of(each) for each in of_kind("PersistentVolumeClaim")}
    for pod in pods():
        volumes = {each["name"]: each for each in pod["volumes"]}
        for container in pod["containers"]:
            assert {each["name"] for each in container["volumeMounts"]} == set(volumes)
        claimed = [
            each["persistentVolumeClaim"] for each in volumes.values() if "emptyDir" not in each
        ]
        assert {each["claimName"] for each in claimed} <= claims


def test_service_reads_the_index_and_writes_only_to_tmp() -> None:
    """Its volumes are read-only but for a scratch folder, where converted models go."""
    container = service_container()
    writable = [each for each in container["volumeMounts"] if not each.get("readOnly")]
    assert [each["mountPath"] for each in writable] == ["/tmp"]  # noqa: S108 - in the container
    assert {"name": "XDG_CACHE_HOME", "value": writable[0]["mountPath"]} in container["env"]


def test_probes_ask_routes_that_exist() -> None:
    """Ready: /readyz, with a start of minutes; alive: /livez, patient; never the same."""
    container = service_container()
    settings = Settings(index=Path("unused"))
    routes = set(create_app(Runtime(settings), on_failure=print).openapi()["paths"])
    paths = {kind: container[kind]["httpGet"]["path"] for kind in PROBES}
    assert paths == PROBES
    assert set(paths.values()) <= routes
    start = container["startupProbe"]
    assert start["failureThreshold"] * start["periodSeconds"] >= 300
    assert container["readinessProbe"]["failureThreshold"] == 2


def test_pod_is_given_the_time_it_drains() -> None:
    """SIGKILL comes after the service has finished; nothing but the service delays SIGTERM."""
    (deployment,) = of_kind("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    assert "lifecycle" not in service_container()


def test_names_of_the_parts_agree() -> None:
    """Selectors choose the pods there are, ports have their name, images have a tag."""
    (deployment,) = of_kind("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (service,) = of_kind("Service")
    (budget,) = of_kind("PodDisruptionBudget")
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    ports = [each["name"] for each in service_container()["ports"]]
    assert [each["targetPort"] for each in service["spec"]["ports"]] == ports
    images = {container["image"] for pod in pods() for container in pod["containers"]}
    assert images == {each["name"] for each in kustomization()["images"]}
    assert all(each["newTag"] != "latest" for each in kustomization()["images"])


@pytest.mark.parametrize("target", ["service", "index"])
def test_arguments_are_known_to_the_program(target: str) -> None:
    """Every flag is one that the image's program lists in its help."""
    containers = [container for pod in pods() for container in pod["containers"]]
    (args,) = [each["args"] for each in containers if each["image"] == f"multigrain-{target}"]
    assert [flag for flag in args if flag.partition("=")[0] not in help_of(target)] == []
