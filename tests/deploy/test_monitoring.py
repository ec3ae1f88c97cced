"""Every query of the dashboard, the alerts and the autoscalers parses, and asks only for metrics that a server has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lemni.errors import Overloaded
from lemni.server.app import create_app
from lemni.server.dialects import load_dialects
from tests.engine.toy import ToyModel, engine_of
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

from .manifests import CUSTOM, DEPLOY, documents

ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
# Labels that Prometheus itself adds where it scrapes pods.
OF_TARGETS = {"job", "instance", "namespace", "pod"}


@pytest.fixture
async def served() -> dict[str, set[str]]:
    """The labels of each sample that a server gives once something has succeeded and something has failed."""
    with engine_of(toy := ToyModel()) as engine:
        toy.nans = {7}
        async with client_of(create_app(loaded(engine), server_settings())) as client:
            for text in ("1 2", "7"):
                await client.post("/v1/embeddings", json={"input": text})
            text = (await client.get("/metrics")).text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "lemni.json").read_text("utf-8"))
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Where a query is, and the query, with Grafana's and the adapter's own words replaced."""
    board = dashboard()
    for panel in board["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m")
            yield f"dashboard: {panel['title']}", re.sub(r"\$\w+", ".*", query)
    for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield f"alert: {rule['alert']}", rule["expr"]
    for rule in yaml.safe_load((DEPLOY / "prometheus" / "adapter-values.yaml").read_text("utf-8"))["rules"]["custom"]:
        yield "adapter", rule["seriesQuery"]
        series = rule["seriesQuery"].partition("{")[0]
        query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
        yield f"adapter: {rule['name']['as']}", query.replace("<<.LabelMatchers>>", 'namespace="a",pod=~"b|c"')
    with helm_python.Chart.load(DEPLOY / "helm" / "lemni") as chart:
        texts = chart.render({"autoscaling": {"enabled": True, "kind": "keda"}}, name="demo", namespace="prod")
    (scaled,) = documents(texts["lemni/templates/scaledobject.yaml"])
    for trigger in scaled["spec"]["triggers"]:
        yield "keda", trigger["metadata"]["query"]


def selectors(query: str) -> list[promql_parser.VectorSelector]:
    """Those of a query; ValueError if it is none."""
    found: list[promql_parser.VectorSelector] = []

    def walk(node: object) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
            if (child := getattr(node, name, None)) is not None:
                walk(child)
        for child in getattr(node, "args", None) or ():
            walk(child)

    walk(promql_parser.parse(query))
    return found


async def test_queries(served: dict[str, set[str]]) -> None:
    seen = 0
    for where, query in queries():
        asked = selectors(query)
        assert asked, (where, query)
        for selector in asked:
            assert selector.name in served, (where, selector.name)
            labels = {matcher.name for matcher in selector.matchers.matchers}
            assert labels <= served[selector.name] | OF_TARGETS, (where, selector.prettify())
            seen += 1
        grouped = {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
        assert grouped <= set().union(*(served[one.name] for one in asked)) | OF_TARGETS, (where, query)
    assert seen >= 50


def test_alerts_name_codes_and_routes_that_there_are() -> None:
    text = ALERTS.read_text("utf-8")
    assert set(re.findall(r'code="(\w+)"', text)) == {Overloaded.code}
    routes = {path for dialect in load_dialects() for one in dialect.operations for path in one.paths}
    for listed in re.findall(r'handler!~"([^"]+)"', text):
        assert set(listed.split("|")) <= routes | {"/ready", "/health", "/metrics"}


def test_alert_rules_have_the_form_of_rules() -> None:
    import jsonschema

    rules = yaml.safe_load(ALERTS.read_text("utf-8"))
    jsonschema.validate(rules, CUSTOM["monitoring.coreos.com/v1", "PrometheusRule"])
    for rule in rules["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        kept = re.findall(r"by \(([^)]*)\)", rule["expr"])
        assert not kept or named <= {label for by in kept for label in by.split(", ")}, rule["alert"]


def test_autoscalers_ask_for_what_the_adapter_gives() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "adapter-values.yaml").read_text("utf-8"))["rules"]["custom"]
    given = {rule["name"]["as"] for rule in rules}
    hpa = yaml.safe_load((DEPLOY / "kubernetes" / "hpa.yaml").read_text("utf-8"))
    asked = {one["pods"]["metric"]["name"] for one in hpa["spec"]["metrics"]}
    assert asked == {"lemni_queued_tokens", "lemni_utilization"}
    assert asked <= given


def test_dashboard() -> None:
    board = dashboard()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in panels]
    for number, (x, y, w, h) in enumerate(places):
        assert x + w <= 24
        for x2, y2, w2, h2 in places[:number]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y, "panels overlap"
    variables = {one["name"] for one in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"}
    assert used == variables
