"""The manifests under deploy/kubernetes: valid for the cluster, locked down, and in step with the daemon."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bridge import __version__
from bridge.admin.views import scale
from bridge.commands import COMMANDS
from bridge.settings import Settings, load
from bridge.snapshot import MappingView, Snapshot

ROOT = Path(__file__).parents[1] / "deploy" / "kubernetes"
MANIFESTS = sorted(file for file in ROOT.rglob("*.yaml") if file.name != "kustomization.yaml")
FOLDERS = sorted(file.parent for file in ROOT.rglob("kustomization.yaml"))
CLUSTERS = ("1.33", "1.36")
"""From the first in which containers that start before others and end after them are stable."""
OPERATORS = {
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "ScaledObject": "keda.sh/v1alpha1",
}
"""What is not the cluster's own, so that no schema is known."""


def documents(*kinds: str) -> list[tuple[Path, dict[str, Any]]]:
    every = [(file, found) for file in MANIFESTS for found in yaml.safe_load_all(file.read_text())]
    return [(file, found) for file, found in every if not kinds or found["kind"] in kinds]


def pods() -> list[dict[str, Any]]:
    """The pods' specifications, bare or in a template."""
    bare = [found["spec"] for _, found in documents("Pod")]
    return bare + [found["spec"]["template"]["spec"] for _, found in documents("Deployment", "StatefulSet")]


def bridge_of(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = [container for container in pod["containers"] if container["name"] == "bridge"]
    return dict(container)


def one(kind: str) -> dict[str, Any]:
    ((_, found),) = documents(kind)
    return found


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_cluster_takes_it(file: Path, cluster: str) -> None:
    for found in yaml.safe_load_all(file.read_text()):
        if found["kind"] in OPERATORS:
            assert found["apiVersion"] == OPERATORS[found["kind"]]
            continue
        kubernetes_validate.validate(found, cluster, strict=True)


def test_plain_documents() -> None:
    for file in ROOT.rglob("*.yaml"):
        text = re.sub(r"(?m)^ *#.*$", "", file.read_text())
        assert not re.search(r"(?m)[:-] [&*]\w", text), f"{file}: no aliases"
        for found in yaml.safe_load_all(text):
            if found["kind"] not in ("Kustomization", "Namespace"):
                assert found["metadata"]["namespace"] == "bridge"
                assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "bridge"


def test_each_manifest_is_in_one_kustomization() -> None:
    listed = []
    for folder in FOLDERS:
        read = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert (read["kind"], read["apiVersion"]) == ("Kustomization", "kustomize.config.k8s.io/v1beta1")
        listed += [folder / name for name in read["resources"]]
        for image in read.get("images", []):
            assert image["newTag"] == __version__
    assert sorted(listed) == MANIFESTS


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod["terminationGracePeriodSeconds"])
def test_pods_keep_to_the_restricted_profile(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(container["resources"])
    allowed = {"configMap", "emptyDir"}
    assert {key for volume in pod["volumes"] for key in volume if key != "name"} <= allowed


def test_the_user_is_the_images() -> None:
    image = (ROOT.parents[1] / "Dockerfile").read_text()
    (user,) = re.findall(r"(?m)^USER (\d+):\d+$", image)
    assert {pod["securityContext"]["runAsUser"] for pod in pods()} == {int(user)}


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod["terminationGracePeriodSeconds"])
def test_probes_are_about_the_process_and_about_its_mappings(pod: dict[str, Any]) -> None:
    bridge = bridge_of(pod)
    assert bridge["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert bridge["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
    assert bridge["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
    command, option, _ = bridge["args"]
    assert (command in COMMANDS, option) == (True, "-c")


def test_configurations_are_valid_and_fit_the_pods(tmp_path: Path) -> None:
    configurations = {found["metadata"]["name"]: found["data"] for _, found in documents("ConfigMap")}
    assert len(configurations) == len(pods())
    for pod in pods():
        (volume,) = [volume["configMap"] for volume in pod["volumes"] if "configMap" in volume]
        data = configurations[volume["name"]]
        folder = tmp_path / volume["name"]
        for item in volume.get("items", [{"key": key, "path": key} for key in data]):
            (folder / item["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / item["path"]).write_text(data[item["key"]])
        settings = load(folder / "bridge.yaml", environ={"HOME": "/nowhere"})
        assert not [line for line in settings.warnings if "admin" not in line and "Runtime" not in line]
        assert pod["terminationGracePeriodSeconds"] > settings.shutdown_grace + 5
        (port,) = bridge_of(pod)["ports"]
        assert (settings.admin_host, settings.admin_port) == ("0.0.0.0", port["containerPort"])
        assert port["name"] == "admin"
        for function in settings.functions.values():
            assert not function.handler or (function.code / f"{function.handler.partition('.')[0]}.py").is_file()


def test_a_handler_beside_it_starts_before_and_ends_after() -> None:
    (pod,) = [pod for pod in pods() if pod.get("initContainers")]
    (worker,) = pod["initContainers"]
    assert worker["restartPolicy"] == "Always"
    assert worker["startupProbe"]


def test_positions_are_on_a_volume_and_belong_to_one() -> None:
    stateful = one("StatefulSet")["spec"]
    assert stateful["replicas"] == 1
    (claim,) = stateful["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mounts = {mount["name"]: mount["mountPath"] for mount in bridge_of(stateful["template"]["spec"])["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/var/lib/bridge"
    assert "STATE_DIRECTORY=/var/lib/bridge" in (ROOT.parents[1] / "Dockerfile").read_text()


def test_what_selects_finds_its_pods() -> None:
    labels = [found["spec"]["template"]["metadata"]["labels"] for _, found in documents("Deployment", "StatefulSet")]
    labels += [found["metadata"]["labels"] for _, found in documents("Pod")]
    selectors = {
        "Service": one("Service")["spec"]["selector"],
        "PodDisruptionBudget": one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    }
    found = {kind: sum(selector.items() <= its.items() for its in labels) for kind, selector in selectors.items()}
    assert found == {"Service": len(labels), "PodDisruptionBudget": 1, "NetworkPolicy": len(labels)}


def test_a_pod_that_is_not_ready_never_keeps_a_node() -> None:
    budget = one("PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert one("Deployment")["spec"]["replicas"] > budget["maxUnavailable"]


def test_metrics_are_scraped_by_the_services_port() -> None:
    service, monitor = one("Service"), one("ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,), (port,) = monitor["endpoints"], service["spec"]["ports"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")


def test_the_alerts_are_those_of_prometheus() -> None:
    rules = yaml.safe_load((ROOT.parent / "prometheus" / "alerts.yaml").read_text())
    assert one("PrometheusRule")["spec"] == rules
    assert one("Service")["metadata"]["name"] == "bridge", "the job that the alerts ask for is called after it"


def test_it_scales_by_figures_that_scale_gives() -> None:
    scaled = one("ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == one("Deployment")["metadata"]["name"]
    assert scaled["minReplicaCount"] >= 1  # nobody would be there to be asked
    service = one("Service")
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    orders = MappingView(
        name="orders", uuid="u", function="f", source_arn="a", source="sqs", state="Enabled", ready=True
    )
    snapshot = Snapshot(
        version=__version__, pid=1, started_at=0, at=0, draining=False, buffered_bytes=0, max_buffered_bytes=1,
        mappings=(orders,),
    )  # fmt: skip
    answer = json.loads(json.dumps(scale(snapshot, {"orders": 3})))
    for trigger in scaled["triggers"]:
        assert trigger["type"] == "metrics-api"
        assert trigger["metadata"]["url"] == f"http://{host}:{service['spec']['ports'][0]['port']}/scale"
        figure = answer
        for key in trigger["metadata"]["valueLocation"].split("."):
            figure = figure[key]
        assert isinstance(figure, int | float)
        assert float(trigger["metadata"]["targetValue"]) > 0
    assert scaled["cooldownPeriod"] > max(function_timeouts())


def function_timeouts() -> list[float]:
    for _, found in documents("ConfigMap"):
        if found["metadata"]["name"] == "bridge":
            options = yaml.safe_load(found["data"]["bridge.yaml"])
            return [float(function["Timeout"]) for function in options["functions"].values()]
    raise AssertionError("the queues' configuration is missing")


def test_grace_is_above_the_default_too() -> None:
    assert all(pod["terminationGracePeriodSeconds"] > Settings(file="").shutdown_grace + 5 for pod in pods())
