"""The chart, rendered by Helm's own engine: every choice of its values gives manifests that Kubernetes takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from lemni.cli.settings import load_settings

from .manifests import DEPLOY, check, check_pod, documents

CHART = DEPLOY / "helm" / "lemni"
EVERYTHING: dict[str, Any] = {
    "models": [
        "sentence-transformers/all-MiniLM-L6-v2", {"model": "BAAI/bge-m3", "served_name": "m3", "dtype": "int8"},
    ],
    "settings": {"drain_timeout_s": 90.5, "max_items": 64, "cors_origins": ["https://example.org"]},
    "image": {"repository": "registry.example.org/lemni", "tag": "1"},
    "imagePullSecrets": [{"name": "registry"}],
    "apiKey": {"existingSecret": "keys"},
    "hubToken": {"existingSecret": "hub"},
    "extraEnv": [{"name": "LEMNI_LOG_LEVEL", "value": "debug"}],
    "cache": {"existingClaim": "models"},
    "autoscaling": {"enabled": True, "maxReplicas": 1000, "queuedTokens": 2000000, "utilization": 0.57},
    "service": {"annotations": {"example.org/a": "b"}},
    "ingress": {
        "enabled": True, "className": "nginx", "tlsSecret": "tls", "annotations": {"a.b/c": "d"},
        "paths": ["/v1", "/x"],
    },
    "monitoring": {"serviceMonitor": True, "prometheusRule": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"enabled": True},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "search"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]}}},
    "priorityClassName": "high",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "keda": {"autoscaling": {"enabled": True, "kind": "keda"}, "podDisruptionBudget": {"enabled": False}},
    "gpu": {"gpu": {"enabled": True, "count": 2, "runtimeClassName": "nvidia"}, "resources": {"limits": {"cpu": None}}},
    "own threads": {"settings": {"threads": 3}},
}
KINDS = {
    "defaults": {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"},
    "everything": {
        "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress",
        "ServiceMonitor", "PrometheusRule", "NetworkPolicy",
    },
    "keda": {"ConfigMap", "Deployment", "Service", "ScaledObject"},
}  # fmt: skip


@pytest.fixture(scope="module")
def chart() -> Iterator[helm_python.Chart]:
    with helm_python.Chart.load(CHART) as chart:
        yield chart


def rendered(chart: helm_python.Chart, values: dict[str, Any], name: str = "demo") -> dict[str, dict[str, Any]]:
    """Manifests by kind. The values are checked against the chart's schema, as `helm install` does."""
    chart.validate_schema(values)
    texts = chart.render(values, name=name, namespace="prod")
    manifests = [one for file, text in texts.items() if file.endswith(".yaml") for one in documents(text)]
    found = {manifest["kind"]: manifest for manifest in manifests}
    assert len(found) == len(manifests)
    return found


@pytest.mark.parametrize("case", CASES)
def test_what_it_gives(chart: helm_python.Chart, case: str, tmp_path: Path) -> None:
    found = rendered(chart, CASES[case])
    for manifest in found.values():
        check(manifest)
        assert manifest["metadata"]["name"] == "demo-lemni"
    assert set(found) == KINDS.get(case, KINDS["defaults"])
    config = tmp_path / "lemni.yaml"
    config.write_text(found["ConfigMap"]["data"]["lemni.yaml"], "utf-8")
    settings = load_settings({}, {}, yaml=config)
    given = CASES[case].get("settings", {})
    assert settings.server.drain_timeout_s == given.get("drain_timeout_s", 30)
    pod = found["Deployment"]["spec"]["template"]
    check_pod(pod["spec"], settings.server.drain_timeout_s)
    for kind in ("Deployment", "PodDisruptionBudget", "ServiceMonitor"):
        if kind in found:
            assert found[kind]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def test_everything_arrives(chart: helm_python.Chart, tmp_path: Path) -> None:
    found = rendered(chart, EVERYTHING)
    config = tmp_path / "lemni.yaml"
    config.write_text(found["ConfigMap"]["data"]["lemni.yaml"], "utf-8")
    settings = load_settings({}, {}, yaml=config)
    assert [(one.model, one.served_name, one.dtype) for one in settings.models] == [
        ("sentence-transformers/all-MiniLM-L6-v2", None, "auto"),
        ("BAAI/bge-m3", "m3", "int8"),
    ]
    assert (settings.server.max_items, settings.server.cors_origins) == (64, ("https://example.org",))
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {one["name"]: one.get("value") or one["valueFrom"] for one in container["env"]}
    assert env["LEMNI_API_KEY"] == {"secretKeyRef": {"name": "keys", "key": "api-key"}}
    assert env["LEMNI_HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert env["LEMNI_LOG_LEVEL"] == "debug"
    assert env["LEMNI_THREADS"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
    assert container["image"] == "registry.example.org/lemni:1"
    assert pod["terminationGracePeriodSeconds"] == 10 + 91 + 20
    assert "replicas" not in found["Deployment"]["spec"], "the autoscaler's"
    metrics = {one["pods"]["metric"]["name"]: one["pods"]["target"] for one in
               found["HorizontalPodAutoscaler"]["spec"]["metrics"]}  # fmt: skip
    assert metrics["lemni_queued_tokens"]["averageValue"] == "2000000"
    assert metrics["lemni_utilization"]["averageValue"] == "570m"
    paths = found["Ingress"]["spec"]["rules"][0]["http"]["paths"]
    assert [one["path"] for one in paths] == ["/v1", "/x"]
    assert found["ServiceMonitor"]["metadata"]["labels"]["release"] == "prometheus"


def test_gpus_and_threads(chart: helm_python.Chart) -> None:
    def env_and_limits(case: str) -> tuple[dict[str, Any], dict[str, Any]]:
        (container,) = rendered(chart, CASES[case])["Deployment"]["spec"]["template"]["spec"]["containers"]
        return {one["name"]: one.get("value") for one in container["env"]}, container["resources"]["limits"]

    env, limits = env_and_limits("gpu")
    assert (env["LEMNI_DEVICE"], limits["nvidia.com/gpu"]) == ("cuda", 2)
    assert "LEMNI_THREADS" not in env
    assert "LEMNI_THREADS" not in env_and_limits("own threads")[0], "it would win over the file"


def test_new_settings_replace_pods(chart: helm_python.Chart) -> None:
    sums = [
        rendered(chart, values)["Deployment"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for values in ({}, {"settings": {"max_items": 5}})
    ]
    assert sums[0] != sums[1]


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"models": []},
        {"models": [{"served_name": "no model"}]},
        {"settings": {"port": 80}},
        {"settings": {"max-items": 80}},
        {"autoscaling": {"kind": "vpa"}},
        {"autoscaling": {"utilization": 70}},
        {"apiKey": "secret"},
    ],
    ids=str,
)
def test_wrong_values_are_refused(chart: helm_python.Chart, values: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmError):
        chart.validate_schema(values)


def test_lint_and_notes(chart: helm_python.Chart) -> None:
    found = helm_python.lint(CHART)
    assert found["errors"] == []
    assert [one["error"] for one in found["messages"]] == ["icon is recommended"]
    notes = chart.render(EVERYTHING, name="demo", namespace="prod")["lemni/templates/NOTES.txt"]
    assert notes.startswith("Lemni serves sentence-transformers/all-MiniLM-L6-v2 m3.")
    assert "Everybody" not in notes
    assert "namespaces/prod/pods/*/lemni_queued_tokens" in notes


def test_every_value_is_used_and_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    assert set(values) == set(schema["properties"]) - {"global"}
    used = "\n".join(path.read_text("utf-8") for path in (CHART / "templates").iterdir())
    for name in values:
        assert re.search(rf"\.Values\.{name}\b", used), name
