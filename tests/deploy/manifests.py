"""What is in deploy/, and what Kubernetes says of a manifest: core kinds by Kubernetes' own schemas, others by ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = ("1.27", "1.37")  # the oldest that the chart allows (its kubeVersion), and the newest with schemas here
DRAIN_MARGIN_S = 5  # what the server takes for its last answers after drain_timeout_s

_text: dict[str, Any] = {"type": "string", "minLength": 1}
_texts = {"type": "object", "additionalProperties": {"type": "string"}}
_anything: dict[str, Any] = {"type": "object"}


def _closed(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "required": list(required), "properties": properties, "additionalProperties": False,
    }  # fmt: skip


_RULE = {
    "type": "object",
    "required": ["alert", "expr"],
    "properties": {
        "alert": _text, "expr": _text, "for": {"type": "string", "pattern": r"^\d+[smhd]$"},
        "labels": _texts, "annotations": _texts,
    },
    "additionalProperties": False,
}  # fmt: skip
_COUNT = {"type": "integer", "minimum": 0}
_RAY_START = {"type": "object", "additionalProperties": {"type": "string"}}
_TEMPLATE = {"type": "object", "required": ["spec"]}
_WORKERS = _closed(
    ("groupName", "template", "replicas", "minReplicas", "maxReplicas"),
    groupName={"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    rayStartParams=_RAY_START,
    template=_TEMPLATE,
)

# The parts of custom resources that deploy/ uses, closed against misspelt fields: after the definitions of the
# Prometheus operator, KEDA and KubeRay, which no package brings along.
CUSTOM: dict[tuple[str, str], dict[str, Any]] = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _closed(
        ("selector", "endpoints"),
        selector=_closed(("matchLabels",), matchLabels=_texts),
        endpoints={
            "type": "array",
            "minItems": 1,
            "items": _closed(("port",), port=_text, path=_text, interval=_text, scrapeTimeout=_text),
        },
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _closed(
        ("groups",),
        groups={
            "type": "array",
            "minItems": 1,
            "items": _closed(("name", "rules"), name=_text, rules={"type": "array", "minItems": 1, "items": _RULE}),
        },
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): _closed(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=_closed(("name",), name=_text, kind=_text, apiVersion=_text),
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        pollingInterval=_COUNT,
        cooldownPeriod=_COUNT,
        advanced=_closed((), horizontalPodAutoscalerConfig=_closed((), behavior=_anything, name=_text)),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": _closed(
                ("type", "metadata"),
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value"]},
                metadata=_closed(
                    ("serverAddress", "query", "threshold"), serverAddress=_text, query=_text, threshold=_text
                ),
            ),
        },
    ),
    ("ray.io/v1", "RayService"): _closed(
        ("serveConfigV2", "rayClusterConfig"),
        serveConfigV2=_text,
        rayClusterConfig=_closed(
            ("headGroupSpec", "rayVersion"),
            rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
            enableInTreeAutoscaling={"type": "boolean"},
            autoscalerOptions=_closed((), idleTimeoutSeconds=_COUNT),
            headGroupSpec=_closed(("template",), rayStartParams=_RAY_START, template=_TEMPLATE),
            workerGroupSpecs={"type": "array", "minItems": 1, "items": _WORKERS},
        ),
    ),
}


def documents(text: str) -> list[dict[str, Any]]:
    """Those of a YAML stream that are not empty."""
    return [one for one in yaml.safe_load_all(text) if one is not None]


def check(manifest: dict[str, Any]) -> None:
    """Raises ValidationError of jsonschema or kubernetes_validate for what Kubernetes would refuse."""
    kind = (manifest["apiVersion"], manifest["kind"])
    if kind in CUSTOM:
        assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
        jsonschema.validate(manifest["spec"], CUSTOM[kind])
        for template in _templates(manifest):
            check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template})
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(manifest, version, strict=True)


def _templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = manifest["spec"].get("rayClusterConfig", {})
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]] if cluster else []
    return [group["template"] for group in groups]


def check_pod(spec: dict[str, Any], drain_timeout_s: float) -> None:
    """What a pod of a server must be: nobody special, probed, given time to drain, and whole in its references."""
    (container,) = spec["containers"]
    context, user = container["securityContext"], spec["securityContext"]
    assert user["runAsNonRoot"]
    assert user["runAsUser"] == user["fsGroup"] == 10001, "the image's user"
    assert context["readOnlyRootFilesystem"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not context["allowPrivilegeEscalation"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in spec["volumes"]}
    assert {"/cache", "/tmp"} <= set(mounts.values()), "the server writes there"
    ports = {port["name"] for port in container["ports"]}
    for probe, path in (("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")):
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in ports
    name, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert name == "sleep"
    assert spec["terminationGracePeriodSeconds"] >= int(seconds) + drain_timeout_s + DRAIN_MARGIN_S
