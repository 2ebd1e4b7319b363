"""The dashboard and the alerts: readable, of metrics that there are, and that each alert fires when it should."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import REGISTRY

from tests.architecture.rules import ROOT
from tests.docs.metrics_table import documented, series, table
from tests.docs.promql import NOW, Figures, evaluate, metrics_of

FOLDER = ROOT / "observability"
ALERTS = FOLDER / "prometheus" / "alerts.yml"
GUIDE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana" / "tenantry.json").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
OTHERS = {"up", *(sample.name for family in REGISTRY.collect() for sample in family.samples)}
"""Prometheus' own, and those of its library."""

TENANT = {"tenant": "acme"}
HEALTHY: Figures = {
    "up": [({"job": "tenantry-api", "instance": "a"}, 1), ({"job": "other", "instance": "b"}, 0)],
    "process_start_time_seconds": [({"job": "tenantry-worker", "instance": "a"}, 0)],
    "tenantry_http_requests_total": [({"status": "200"}, 100), ({"status": "404"}, 50), ({"status": "503"}, 0.1)],
    "tenantry_plan_request_duration_seconds_bucket": [
        *(({"plan": plan, "le": "0.1"}, 99.5) for plan in ("free", "team")),
        *(({"plan": plan, "le": "2.5"}, 100) for plan in ("free", "team")),
        *(({"plan": plan, "le": "+Inf"}, 100) for plan in ("free", "team")),
    ],
    "tenantry_problems_total": [({"type": "unavailable"}, 0), ({"type": "not-found"}, 9)],
    "tenantry_registry_age_seconds": [({"instance": "a"}, 0.4)],
    "tenantry_database_waiting": [({"instance": "a", "pool": "tenantry-api"}, 0)],
    "tenantry_database_wait_seconds_bucket": [
        ({"pool": "tenantry-api", "le": "0.001"}, 999),
        ({"pool": "tenantry-api", "le": "0.5"}, 1000),
        ({"pool": "tenantry-api", "le": "+Inf"}, 1000),
    ],
    "tenantry_database_connections_closed_total": [
        ({"pool": "tenantry-api", "reason": "surplus"}, 5),
        ({"pool": "tenantry-api", "reason": "invalid"}, 0.1),
    ],
    "tenantry_slow_statements_total": [({"plan": "free"}, 0.01)],
    "tenantry_redis_seconds_count": [({"outcome": "ok"}, 1000), ({"outcome": "error"}, 0)],
    "tenantry_tenant_requests_per_second": [(TENANT, 30), ({"tenant": "globex"}, 20), ({"tenant": "_other"}, 200)],
    "tenantry_deployment_sampled_timestamp_seconds": [({"instance": "old"}, 5), ({"instance": "new"}, NOW - 15)],
    "tenantry_outbox_lag_seconds": [({"instance": "a"}, 0.5)],
    "tenantry_outbox_oldest_relayed_seconds": [({"instance": "a"}, 20)],
    "tenantry_jobs_total": [
        ({"job": "send_mail", "plan": "free", "outcome": "done"}, 10),
        ({"job": "send_mail", "plan": "team", "outcome": "failed"}, 1),
    ],
    "tenantry_outbox_jobs": [({"status": "dead"}, 0), ({"status": "later"}, 100)],
    "tenantry_operations_oldest_pending_seconds": [({"instance": "a"}, 2)],
    "tenantry_warm_schemas": [({"instance": "a"}, 4)],
    "tenantry_warm_schemas_wanted": [({"instance": "a"}, 5)],
    "tenantry_rollout_state": [({"status": "halted"}, 0), ({"status": "running"}, 1)],
    "tenantry_tenants_behind": [({"instance": "a"}, 70)],
    "tenantry_catalog_relations": [({"instance": "a"}, 90_000)],
    "tenantry_backup_last_timestamp_seconds": [({"instance": "old"}, 0), ({"instance": "new"}, NOW - 80_000)],
}
ILL: dict[str, Figures] = {
    "TenantryDown": {"up": [({"job": "tenantry-worker", "instance": "a"}, 0)]},
    "TenantryRestarts": {"process_start_time_seconds": [({"job": "tenantry-worker", "instance": "a"}, 4)]},
    "TenantryErrors": {"tenantry_http_requests_total": [({"status": "200"}, 100), ({"status": "500"}, 2)]},
    "TenantrySlow": {
        "tenantry_plan_request_duration_seconds_bucket": [
            ({"plan": "free", "le": "0.1"}, 90),
            ({"plan": "free", "le": "2.5"}, 100),
            ({"plan": "free", "le": "+Inf"}, 100),
        ]
    },
    "TenantryUnavailable": {"tenantry_problems_total": [({"type": "unavailable"}, 3)]},
    "TenantryRegistryStale": {"tenantry_registry_age_seconds": [({"instance": "a"}, 0.4), ({"instance": "b"}, 4)]},
    "TenantryPoolExhausted": {"tenantry_database_waiting": [({"instance": "a", "pool": "tenantry-api"}, 3)]},
    "TenantryPoolWaits": {
        "tenantry_database_wait_seconds_bucket": [
            ({"pool": "tenantry-api", "le": "0.001"}, 500),
            ({"pool": "tenantry-api", "le": "0.5"}, 1000),
            ({"pool": "tenantry-api", "le": "+Inf"}, 1000),
        ]
    },
    "TenantryConnectionsLost": {
        "tenantry_database_connections_closed_total": [({"pool": "tenantry-api", "reason": "invalid"}, 1)]
    },
    "TenantrySlowStatements": {"tenantry_slow_statements_total": [({"plan": "free"}, 1)]},
    "TenantryRedisErrors": {"tenantry_redis_seconds_count": [({"outcome": "ok"}, 10), ({"outcome": "error"}, 5)]},
    "TenantryBusyTenant": {
        "tenantry_tenant_requests_per_second": [(TENANT, 90), ({"tenant": "globex"}, 9), ({"tenant": "_other"}, 50)]
    },
    "TenantryProvisionerAway": {"tenantry_deployment_sampled_timestamp_seconds": [({"instance": "a"}, NOW - 300)]},
    "TenantryOutboxLag": {"tenantry_outbox_lag_seconds": [({"instance": "a"}, 100)]},
    "TenantryJobsWait": {"tenantry_outbox_oldest_relayed_seconds": [({"instance": "a"}, 4000)]},
    "TenantryJobsFail": {
        "tenantry_jobs_total": [
            ({"job": "send_mail", "plan": "free", "outcome": "done"}, 1),
            ({"job": "send_mail", "plan": "team", "outcome": "failed"}, 3),
        ]
    },
    "TenantryJobsDead": {"tenantry_outbox_jobs": [({"status": "dead"}, 1)]},
    "TenantryOperationsWait": {"tenantry_operations_oldest_pending_seconds": [({"instance": "a"}, 400)]},
    "TenantryWarmPoolEmpty": {"tenantry_warm_schemas": [({"instance": "a"}, 0)]},
    "TenantryRolloutHalted": {"tenantry_rollout_state": [({"status": "halted"}, 1), ({"status": "running"}, 0)]},
    "TenantryTenantsBehind": {"tenantry_rollout_state": [({"status": "halted"}, 0), ({"status": "running"}, 0)]},
    "TenantryBackupOld": {"tenantry_backup_last_timestamp_seconds": [({"instance": "a"}, NOW - 130_000)]},
    "TenantryCatalogLarge": {"tenantry_catalog_relations": [({"instance": "a"}, 2_000_000)]},
}


def firing(figures: Figures) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {rule["alert"]: found for rule in RULES if (found := evaluate(rule["expr"], figures))}


def panels() -> Iterator[dict[str, Any]]:
    yield from (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def query_of(expression: str) -> str:
    """As Prometheus gets it: Grafana puts values in the place of its variables."""
    return expression.replace("$__rate_interval", "5m").replace("$plan", "free")


def test_where_nothing_is_wrong_no_alert_fires() -> None:
    assert firing(HEALTHY) == {}


@pytest.mark.parametrize("name", [rule["alert"] for rule in RULES])
def test_an_alert_fires_at_what_it_is_about_and_no_other_does(name: str) -> None:
    fired = firing({**HEALTHY, **ILL[name]})
    assert fired.keys() == {name}
    labels = {label for found, _ in fired[name] for label in found}
    [rule] = [rule for rule in RULES if rule["alert"] == name]
    shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert shown <= labels, "the text names what the query keeps"


def test_a_provisioner_that_was_never_there_is_missed() -> None:
    figures = copy.copy(HEALTHY)
    del figures["tenantry_deployment_sampled_timestamp_seconds"]
    assert firing(figures).keys() == {"TenantryProvisionerAway"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_whole(rule: dict[str, Any]) -> None:
    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Tenantry[A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smh]", rule["for"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "runbook"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on this machine")
def test_promtool_takes_the_files() -> None:
    for command, name in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        subprocess.run(["promtool", "check", command, str(FOLDER / "prometheus" / name)], check=True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_about_metrics_that_there_are(rule: dict[str, Any]) -> None:
    assert metrics_of(rule["expr"]) - series() - OTHERS == set()


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_a_panel_is_about_metrics_that_there_are(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        assert metrics_of(query_of(target["expr"])) - series() == set()
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), f"the query loses the label {label}"


def test_every_metric_is_shown_or_said_not_to_be() -> None:
    shown = set[str]().union(*(metrics_of(query_of(t["expr"])) for panel in panels() for t in panel["targets"]))
    unseen = {metric.name for metric in documented() if not metric.series & shown}
    assert unseen == {"tenantry_account_directory_repaired_total"}


def test_grafana_reads_the_dashboard_as_it_is_written() -> None:
    """Its own library drops what it does not know: a misspelt field would be missing afterwards."""
    read = json.loads(json.dumps(Dashboard.from_json(copy.deepcopy(DASHBOARD)), cls=JSONEncoder))
    assert _missing(DASHBOARD, read) == []
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_do_not_lie_on_one_another() -> None:
    cells = [
        (column, line)
        for panel in DASHBOARD["panels"]
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) == 23


def _missing(written: Any, read: Any, path: str = "") -> list[str]:
    if isinstance(written, dict):
        if not isinstance(read, dict):
            return [path]
        return [
            lost
            for key, value in written.items()
            for lost in (_missing(value, read[key], f"{path}.{key}") if key in read else [f"{path}.{key}"])
        ]
    if isinstance(written, list):
        if not isinstance(read, list) or len(read) != len(written):
            return [path]
        return [
            lost
            for number, (one, other) in enumerate(zip(written, read, strict=True))
            for lost in _missing(one, other, f"{path}[{number}]")
        ]
    return [] if written == read else [f"{path}: {written!r} is {read!r}"]


def test_the_guide_lists_every_metric_as_the_code_has_it() -> None:
    found = re.search(r"^\| metric \| type .*?(?=\n\n)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[0] == table(), "python -m tests.docs.metrics_table prints it"


def test_labels_are_bounded_by_what_is_written_down() -> None:
    """Who the tenant is, is a label of the busiest alone; nothing is by a user, an address or a path."""
    labels = {label for metric in documented() for label in metric.labels}
    assert {metric.name for metric in documented() if "tenant" in metric.labels} == {
        "tenantry_tenant_requests_per_second",
        "tenantry_tenant_requests_at_once",
    }
    assert not labels & {"user", "user_id", "slug", "path", "address", "ip", "email", "tenant_id", "key"}


@pytest.mark.parametrize("query", ["sum(", "rate(x)", "sum by (a) x", "x{a=b}"])
def test_what_is_no_query_is_noticed(query: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        metrics_of(query)
