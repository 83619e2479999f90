"""Prometheus, its alerts and Grafana's dashboard: valid, and about numbers that there are."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from service_running import Service
from test_docker import compose_services
from test_kubernetes import name_of, of_kind

pytest_plugins = ["service_fixtures"]

DOCKER = Path(__file__).parents[1] / "docker"
ALERT_TESTS = Path(__file__).parent / "alerts_test.yml"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
# Told only where the model runs on a GPU.
ON_A_GPU = {"multigrain_gpu_memory_bytes": {"kind"}}
# Labels and numbers that Prometheus itself adds.
ADDED_LABELS = {"instance", "job", "le"}
ADDED_NAMES = {"up": set[str]()}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DOCKER / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    path = DOCKER / "grafana" / "dashboards" / "multigrain.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def expressions() -> list[str]:
    """Every expression of PromQL in the files."""
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return shown + [rule["expr"] for rule in alerts()]


@pytest.fixture(scope="module")
def known(service: Service) -> dict[str, set[str]]:
    """Name of each number that the service tells -> its labels."""
    found = ON_A_GPU | ADDED_NAMES
    text = service.client.get("/metrics").text
    for family in text_string_to_metric_families(text):
        labels = {label for one in family.samples for label in one.labels}
        for suffix in SUFFIXES.get(family.type, ("",)):
            found[family.name + suffix] = labels
    # What has not happened yet has no samples to read labels from.
    for collector in service.server.runtime.metrics.registry._collector_to_names:
        for name in service.server.runtime.metrics.registry._collector_to_names[collector]:
            if name in found:
                found[name] = found[name] | set(getattr(collector, "_labelnames", ()))
    return found


@pytest.mark.parametrize("expression", expressions())
def test_expression_asks_for_what_the_service_tells(
    expression: str, known: dict[str, set[str]]
) -> None:
    """Each name is one of /metrics, and each label one that its number has."""
    names = re.findall(r"\b(?:multigrain_|process_)\w+|\bup\b", expression)
    assert names
    assert [name for name in names if name not in known] == []
    labels = set().union(*(known[name] for name in names)) | ADDED_LABELS
    grouped = ",".join(re.findall(r"\bby \(([^)]*)\)", expression))
    used = re.findall(r"(\w+)(?:=~|!=|=)\"", expression) + re.findall(r"\w+", grouped)
    assert [label for label in used if label not in labels] == []


def test_alerts_say_how_urgent_and_what() -> None:
    """Each has a severity and a sentence, and a name of its own."""
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert {rule["labels"]["severity"] for rule in rules} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"] for rule in rules)


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own checker."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed")
    return found


def test_promtool_finds_nothing_wrong(promtool: str, tmp_path: Path) -> None:
    """Prometheus' own checks of the configuration and the rules."""
    config = (DOCKER / "prometheus.yml").read_text()
    local = tmp_path / "prometheus.yml"
    local.write_text(config.replace("/etc/prometheus/", f"{DOCKER}/"))
    done = subprocess.run(
        [promtool, "check", "config", local], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def test_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    """Prometheus evaluates each on series that set it off and on others: tests/alerts_test.yml."""
    done = subprocess.run(
        [promtool, "test", "rules", ALERT_TESTS], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_and_silent() -> None:
    """No alert is left out of those series, in either sense."""
    cases = [
        (case["alertname"], bool(case.get("exp_alerts")))
        for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert set(cases) == {(rule["alert"], fires) for rule in alerts() for fires in (True, False)}


def test_prometheus_asks_the_service_of_the_compose_file() -> None:
    """The target is a service's name and the port it listens on in its container."""
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    ((target,),) = [each["targets"] for each in job["static_configs"]]
    host, port = target.split(":")
    assert compose_services()[host]["ports"][0].endswith(f":{port}")
    assert all(f'job="{job["job_name"]}"' in expr for expr in expressions() if "up{" in expr)


def test_monitoring_finds_its_files_where_compose_mounts_them() -> None:
    """Each mounted file is in the repository; configuration and provider name its place."""
    services = compose_services()
    mounts = [
        mount.split(":")
        for name in ("prometheus", "grafana")
        for mount in services[name]["volumes"]
        if mount.startswith("./")
    ]
    assert all((DOCKER.parent / source).exists() for source, _, mode in mounts if mode == "ro")
    places = {place for _, place, _ in mounts}
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    assert set(config["rule_files"]) <= places
    provisioning = DOCKER / "grafana" / "provisioning"
    providers = yaml.safe_load((provisioning / "dashboards" / "multigrain.yml").read_text())
    assert providers["providers"][0]["options"]["path"] in places
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        assert re.search(r":v?\d+\.\d+\.\d+$", services[name]["image"])


def test_dashboard_reads_the_provisioned_source_and_has_no_overlaps() -> None:
    """Panels use the source that is set up, have ids of their own and stand apart."""
    sources = DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    panels = dashboard()["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] for panel in panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not any(overlap(one, other) for one, other in combinations(places, 2))


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_autoscaler_follows_a_number_that_there_is(known: dict[str, set[str]]) -> None:
    """It scales the deployment, never below what a rollout needs, on the queue's depth."""
    (scaler,) = of_kind("HorizontalPodAutoscaler")
    (deployment,) = of_kind("Deployment")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", name_of(deployment))
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in known
    assert scaler["spec"]["minReplicas"] >= 2
