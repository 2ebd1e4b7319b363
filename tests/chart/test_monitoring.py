"""Monitors, alerts and the dashboard: those of the repository, and found by those for whom they are."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.chart.cases import ALL_OPTIONS, CASES, merged
from tests.chart.helm import ROOT, render
from tests.chart.rendering import Rendering, matches

ALERTS = yaml.safe_load((ROOT / "observability/prometheus/alerts.yml").read_text())


def _jobs(monitor: dict[str, Any]) -> set[str]:
    """What a monitor's series are called, by its relabelings."""
    spec = monitor["spec"]
    found = set()
    for endpoint in spec.get("endpoints") or spec["podMetricsEndpoints"]:
        (relabeling,) = (one for one in endpoint["relabelings"] if one["targetLabel"] == "job")
        if "sourceLabels" in relabeling:
            (expression,) = spec["selector"]["matchExpressions"]
            assert expression["key"] == "app.kubernetes.io/component"
            assert relabeling["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
            found |= {relabeling["replacement"].replace("$1", value) for value in expression["values"]}
        else:
            found.add(relabeling["replacement"])
    return found


def test_every_process_is_scraped_under_a_name_that_the_alerts_know(full: Rendering) -> None:
    monitors = full.of("ServiceMonitor", "PodMonitor")
    found = set().union(*map(_jobs, monitors))
    assert found == {"tenantry-api", "tenantry-worker", "tenantry-provisioner"}
    patterns = set(re.findall(r'job=~"([^"]+)"', json.dumps(ALERTS).replace('\\"', '"')))
    assert patterns
    assert all(re.fullmatch(pattern, job) for pattern in patterns for job in found)


def test_the_monitors_find_the_service_and_the_pods_by_ports_that_they_have(full: Rendering) -> None:
    (by_service,) = full.of("ServiceMonitor")
    services = [
        found for found in full.of("Service") if matches(by_service["spec"]["selector"], found["metadata"]["labels"])
    ]
    assert [service["metadata"]["name"] for service in services] == ["tenantry"]
    assert by_service["spec"]["endpoints"][0]["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
    (by_pod,) = full.of("PodMonitor")
    pods = [pod for pod in full.pods() if matches(by_pod["spec"]["selector"], pod.labels)]
    assert {pod.component for pod in pods} == {"worker", "provisioner"}
    for pod in pods:
        ports = {port["name"] for port in pod.spec["containers"][0]["ports"]}
        assert by_pod["spec"]["podMetricsEndpoints"][0]["port"] in ports


def test_prometheus_shows_the_token_that_the_processes_ask_for(full: Rendering) -> None:
    for monitor in full.of("ServiceMonitor", "PodMonitor"):
        for endpoint in monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]:
            key = {"name": "kept-metricstoken", "key": "TENANTRY_METRICS_TOKEN"}
            assert endpoint["authorization"] == {"type": "Bearer", "credentials": key}
    without = merged(CASES["minimal"], {"metrics": {"serviceMonitor": {"enabled": True}}})
    for monitor in Rendering(render(without)).of("ServiceMonitor", "PodMonitor"):
        assert "authorization" not in json.dumps(monitor)


def test_the_alerts_are_those_of_the_repository(full: Rendering) -> None:
    (rule,) = full.of("PrometheusRule")
    (theirs,), (ours,) = ALERTS["groups"], rule["spec"]["groups"]
    for one in ours["rules"]:
        assert one["annotations"].pop("runbook_url") == one["annotations"]["runbook"]
    assert ours == theirs


def test_alerts_can_be_left_out_and_know_where_the_documents_are() -> None:
    given = {"metrics": {"prometheusRule": {"disabled": ["TenantryDown"], "runbookPrefix": "https://wiki.example/"}}}
    (rule,) = Rendering(render(merged(ALL_OPTIONS, given))).of("PrometheusRule")
    (group,) = rule["spec"]["groups"]
    assert {one["alert"] for one in group["rules"]} == {one["alert"] for one in ALERTS["groups"][0]["rules"]} - {
        "TenantryDown"
    }
    for one in group["rules"]:
        (alert,) = (alert for alert in ALERTS["groups"][0]["rules"] if alert["alert"] == one["alert"])
        assert one["annotations"]["runbook_url"] == f"https://wiki.example/{alert['annotations']['runbook']}"


def test_the_dashboard_is_the_repositorys_and_found_by_grafana(full: Rendering) -> None:
    dashboard = full.named("ConfigMap", "tenantry-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    text = dashboard["data"]["tenantry.json"]
    assert json.loads(text) == json.loads((ROOT / "observability/grafana/tenantry.json").read_text())


def test_nothing_of_an_operator_that_is_not_there_is_made_unasked() -> None:
    groups = {found["apiVersion"].partition("/")[0] for found in render(CASES["minimal"])}
    assert not groups & {"monitoring.coreos.com", "keda.sh", "gateway.networking.k8s.io", "external-secrets.io"}
