"""The manifests of deploy/kubernetes and deploy/kuberay: by schema, and as a whole that fits together."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import lemni
from lemni.cli.settings import load_settings
from lemni.errors import ConfigError

from .manifests import DEPLOY, check, check_pod, documents

FILES = [*sorted((DEPLOY / "kubernetes").glob("*.yaml")), DEPLOY / "kuberay" / "rayservice.yaml"]
MANIFESTS = [path for path in FILES if path.name != "kustomization.yaml"]


def read(name: str) -> dict[str, Any]:
    (manifest,) = documents((DEPLOY / "kubernetes" / name).read_text("utf-8"))
    return manifest


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifest(path: Path) -> None:
    for manifest in documents(path.read_text("utf-8")):
        check(manifest)


def test_the_check_sees_mistakes() -> None:
    deployment = read("deployment.yaml")
    misspelt = copy.deepcopy(deployment)
    misspelt["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        check(misspelt)
    monitor = read("servicemonitor.yaml")
    monitor["spec"]["endpoints"][0]["ports"] = "http"
    with pytest.raises(jsonschema.ValidationError, match="ports"):
        check(monitor)
    (_, service) = documents((DEPLOY / "kuberay" / "rayservice.yaml").read_text("utf-8"))
    pod = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    pod["containers"][0]["image"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check(service)


def test_they_fit_together(tmp_path: Path) -> None:
    pod = read("deployment.yaml")["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    selectors = [
        read("service.yaml")["spec"]["selector"],
        *(
            read(name)["spec"][key]["matchLabels"]
            for name, key in (
                ("deployment.yaml", "selector"),
                ("pdb.yaml", "selector"),
                ("networkpolicy.yaml", "podSelector"),
            )
        ),
        *(spread["labelSelector"]["matchLabels"] for spread in pod["spec"]["topologySpreadConstraints"]),
    ]
    assert all(selector.items() <= labels for selector in selectors)
    monitor = read("servicemonitor.yaml")["spec"]
    service = read("service.yaml")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
    assert read("hpa.yaml")["spec"]["scaleTargetRef"]["name"] == read("deployment.yaml")["metadata"]["name"]
    config = tmp_path / "lemni.yaml"
    config.write_text(read("configmap.yaml")["data"]["lemni.yaml"], "utf-8")
    check_pod(pod["spec"], load_settings({}, {}, yaml=config).server.drain_timeout_s)


def test_kustomization_takes_all() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text("utf-8"))
    assert sorted(kustomization["resources"]) == sorted(
        path.name for path in MANIFESTS if path.parent.name != "kuberay"
    )
    if shutil.which("kubectl"):
        built = subprocess.run(
            ["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True
        )
        images = [
            container["image"]
            for manifest in documents(built.stdout)
            if manifest["kind"] == "Deployment"
            for container in manifest["spec"]["template"]["spec"]["containers"]
        ]
        assert images == [f"lemni:{metadata.version('lemni')}"]


def test_ray_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve.schema import ServeDeploySchema

    config, service = documents((DEPLOY / "kuberay" / "rayservice.yaml").read_text("utf-8"))
    serve = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = serve.applications
    assert application.import_path == "lemni:ray_app"
    cluster = service["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == metadata.version("ray")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert serve.http_options.port in {port["containerPort"] for port in container["ports"]}
        assert config["metadata"]["name"] in {volume.get("configMap", {}).get("name") for volume in spec["volumes"]}
        assert spec["securityContext"]["runAsNonRoot"]
    file = tmp_path / "lemni.yaml"
    file.write_text(config["data"]["lemni.yaml"], "utf-8")
    for variable in [name for name in os.environ if name.startswith("LEMNI_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("LEMNI_CONFIG", str(file))
    assert lemni.ray_app(application.args) is not None, "made of the file and the arguments, with no cluster yet"
    with pytest.raises(ConfigError):
        lemni.ray_app(application.args | {"target_queue": 1})
    (workers,) = cluster["workerGroupSpecs"]
    cpus = float(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert application.args["cpus"] == application.args["threads"] < cpus, "a front must fit beside a replica"
    assert application.args["replicas"] == f"1:{workers['maxReplicas']}"
