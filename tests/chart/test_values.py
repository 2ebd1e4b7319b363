"""The values: each is described, the README says the same, and nonsense is refused by its name."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.cases import ALL_OPTIONS, MINIMAL, merged
from tests.chart.helm import CHART, ROOT, RefusedError, render
from tests.chart.rendering import Rendering

NONSENSE: list[tuple[str, dict[str, Any], str]] = [
    # What is wrong, the values, and what is said of it.
    ("a misspelt key", {"apii": {"replicas": 3}}, r"'apii'"),
    ("a misspelt key within", {"api": {"replica": 3}}, r"/api.*'replica'"),
    ("a misspelt setting", {"config": {"BASE_DOMIAN": "a.example"}}, r"/config.*'BASE_DOMIAN'"),
    ("a setting that is out of its bounds", {"config": {"DATABASE_CONNECTIONS": 0}}, r"/config/DATABASE_CONNECTIONS"),
    ("a setting of another type", {"config": {"WORKER_GRACE": "soon"}}, r"/config/WORKER_GRACE"),
    ("a secret among the settings", {"config": {"DATABASE_OWNER_URL": "postgresql://x@y/z"}}, r"DATABASE_OWNER_URL"),
    ("a setting of the chart's", {"config": {"METRICS_PORT": 9000}}, r"METRICS_PORT"),
    ("no pods", {"api": {"replicas": 0}}, r"/api/replicas"),
    ("half a pod", {"worker": {"replicas": 1.5}}, r"/worker/replicas"),
    ("a number as text", {"provisioner": {"replicas": "2"}}, r"/provisioner/replicas"),
    ("yes for true", {"ingress": {"enabled": "yes"}}, r"/ingress/enabled"),
    ("a port that there is not", {"metrics": {"port": 99999}}, r"/metrics/port"),
    ("another pull policy", {"image": {"pullPolicy": "Sometimes"}}, r"/image/pullPolicy"),
    ("a digest that is none", {"image": {"digest": "sha256:123"}}, r"/image/digest"),
    ("memory without a unit that there is", {"api": {"resources": {"limits": {"memory": "1GB"}}}}, r"/limits/memory"),
    ("an address without a scheme", {"secrets": {"databaseUrl": {"value": "db:5432"}}}, r"/secrets/databaseUrl/value"),
    ("a place that is none", {"storage": {"url": "bucket"}}, r"/storage/url"),
    ("root", {"security": {"runAsUser": 0}}, r"/security/runAsUser"),
    ("a schedule that is none", {"cronJobs": {"doctor": {"schedule": "at night"}}}, r"/cronJobs/doctor/schedule"),
    ("TLS of another kind", {"pgbouncer": {"database": {"tls": "yes"}}}, r"/pgbouncer/database/tls"),
    ("no memory", {"valkey": {"maxMemory": 0}}, r"/valkey/maxMemory"),
    (
        "a time that is none",
        {"metrics": {"serviceMonitor": {"interval": "often"}}},
        r"/metrics/serviceMonitor/interval",
    ),
    (
        "an address of a network that is none",
        {"networkPolicy": {"internet": {"except": ["10.0.0.0"]}}},
        r"/internet/except",
    ),
]

CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("no database", {"secrets": {"databaseUrl": {"existingSecret": ""}}}, "secrets.databaseUrl: expected"),
    ("a secret from two places", {"secrets": {"vault": {"value": "{}"}}}, "secrets.vault: is given 2 times"),
    ("no storage", {"storage": {"url": ""}}, "storage.url: expected"),
    ("two storages", {"storage": {"volume": {"enabled": True}}}, "storage: expected either"),
    (
        "an external secret without a store",
        {"secrets": {"mailUrl": {"remoteRef": {"key": "a"}}}},
        "secrets.external.store",
    ),
    ("mail without an address to send from", {"secrets": {"mailUrl": {"existingSecret": "a"}}}, "config.MAIL_FROM"),
    (
        "half an access key",
        {"secrets": {"storageAccessKeyId": {"existingSecret": "a"}}},
        "storageSecretAccessKey together",
    ),
    (
        "two who scale",
        {"worker": {"autoscaling": {"enabled": True}, "keda": {"enabled": True, "prometheusAddress": "http://p"}}},
        "worker: expected either",
    ),
    ("KEDA that asks nobody", {"worker": {"keda": {"enabled": True}}}, "worker.keda.prometheusAddress"),
    (
        "fewer than the least",
        {"api": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
        "api.autoscaling",
    ),
    ("an Ingress for nobody", {"ingress": {"enabled": True}}, "ingress.hosts"),
    ("a route of no gateway", {"httpRoute": {"enabled": True, "hostnames": ["a.example"]}}, "httpRoute.parentRefs"),
    ("Valkey without a password", {"valkey": {"enabled": True}}, "secrets.valkeyPassword: expected"),
    ("Valkey and another Redis", {"valkey": {"enabled": True}}, "either secrets.redisUrl or valkey.enabled"),
    (
        "a password that breaks an address",
        {"valkey": {"enabled": True}, "secrets": {"valkeyPassword": {"value": "a/b@c"}}},
        "letters and digits alone",
    ),
    ("PgBouncer without users", {"pgbouncer": {"enabled": True}}, "secrets.pgbouncerUsers: expected"),
    ("PgBouncer without PostgreSQL", {"pgbouncer": {"enabled": True}}, "pgbouncer.database.host: expected"),
    ("PgBouncer and no address past it", {"pgbouncer": {"enabled": True}}, "secrets.databaseListenUrl: expected"),
    (
        "PgBouncer that is gone round",
        {
            "pgbouncer": {"enabled": True, "database": {"host": "db"}},
            "secrets": {"databaseUrl": {"existingSecret": "", "value": "postgresql://a:b@db/tenantry"}},
        },
        "secrets.databaseUrl: expected PgBouncer's address",
    ),
    (
        "the owner by way of PgBouncer",
        {
            "pgbouncer": {"enabled": True, "database": {"host": "db"}},
            "secrets": {
                "databaseOwnerUrl": {"existingSecret": "", "value": "postgresql://a:b@tenantry-pgbouncer:6432/tenantry"}
            },
        },
        "secrets.databaseOwnerUrl: expected PostgreSQL's own",
    ),
    (
        "a certificate that nobody signed",
        {"pgbouncer": {"enabled": True, "database": {"host": "db", "tls": "verify-full"}}},
        "pgbouncer.database.caConfigMap",
    ),
    ("backups to nowhere", {"cronJobs": {"backup": {"enabled": True}}}, "backups.url: expected"),
    ("backups that nobody can read", {"cronJobs": {"backup": {"enabled": True}}}, "secrets.backupKeys: expected"),
]


@pytest.mark.parametrize(("values", "said"), [row[1:] for row in NONSENSE], ids=[row[0] for row in NONSENSE])
def test_nonsense_is_refused_by_its_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match="values don't meet the specifications") as refused:
        render(merged(MINIMAL, values))
    (line, *others) = [line for line in str(refused.value).splitlines() if line.startswith("- ")]
    assert not others, "one mistake is one line"
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("values", "said"), [row[1:] for row in CONTRADICTIONS], ids=[row[0] for row in CONTRADICTIONS]
)
def test_what_does_not_go_together_is_refused_by_its_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match="do not describe a deployment") as refused:
        render(merged(MINIMAL, values))
    assert any(said in line for line in str(refused.value).splitlines() if line.startswith("  - ")), str(refused.value)


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(RefusedError) as refused:
        render()
    lines = [line for line in str(refused.value).splitlines() if line.startswith("  - ")]
    for name in ("databaseUrl", "databaseOwnerUrl", "redisUrl", "keyring", "vault"):
        assert any(f"secrets.{name}" in line for line in lines)
    assert any("storage.url" in line for line in lines)


def _leaves(values: object, path: str = "") -> list[str]:
    if not isinstance(values, dict) or not values:
        return [path]
    return [leaf for name, value in values.items() for leaf in _leaves(value, f"{path}.{name}" if path else name)]


def _script(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    script = folder / "scripts/chart_values.py"
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)


def test_the_readmes_tables_say_what_the_values_say() -> None:
    done = _script("--check")
    assert done.returncode == 0, done.stderr


def test_every_value_is_described() -> None:
    described = {
        line.split("`")[1] for line in (CHART / "README.md").read_text().splitlines() if line.startswith("| `")
    }
    for leaf in _leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        parts = leaf.split(".")
        assert any(".".join(parts[:length]) in described for length in range(1, len(parts) + 1)), leaf


def test_the_readmes_links_lead_somewhere_and_its_example_is_a_whole_one() -> None:
    readme = (CHART / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (CHART / link).exists(), link
    (example,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert render(yaml.safe_load(example))


def test_a_job_of_backups_can_be_given_another_command(full: Rendering) -> None:
    """docs/kubernetes.md has a restore done so, by the place of the arguments in a Job."""
    text = (ROOT / "docs/kubernetes.md").read_text()
    ((operation,),) = (json.loads(found) for found in re.findall(r"'(\[\{\"op\".*?\}\])'", text))
    value: Any = {"spec": full.named("CronJob", "tenantry-backup")["spec"]["jobTemplate"]["spec"]}
    for step in operation["path"].strip("/").split("/"):
        value = value[int(step)] if isinstance(value, list) else value[step]
    assert value == ["backup", "create", "--all"]


def test_a_table_that_is_out_of_date_is_noticed_and_renewed(tmp_path: Path) -> None:
    chart = tmp_path / "helm/tenantry"
    chart.mkdir(parents=True)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/chart_values.py").write_text((ROOT / "scripts/chart_values.py").read_text())
    readme = (CHART / "README.md").read_text()
    (chart / "README.md").write_text(readme)
    (chart / "values.yaml").write_text(
        "a:\n  # -- The first,\n  # and its second line\n  b: [1]\n# -- The other\nc: null\n"
    )
    assert _script("--check", folder=tmp_path).returncode == 1
    assert _script(folder=tmp_path).returncode == 0
    written = (chart / "README.md").read_text()
    assert "| `a.b` | `[1]` | The first, and its second line |" in written
    assert "| `c` | `null` | The other |" in written
    assert "`valkey.enabled`" not in written
    assert _script("--check", folder=tmp_path).returncode == 0
    (chart / "values.yaml").write_text("a: 1\n")
    assert "a has no description" in _script(folder=tmp_path).stderr


def test_a_key_of_everybodys_is_not_written_twice_into_a_pod() -> None:
    labels = {"example.com/team": "one"}
    values = merged(MINIMAL, {"labels": labels, "api": {"podLabels": {"example.com/team": "two"}}})
    assert Rendering(render(values)).pod("api").labels["example.com/team"] in {"one", "two"}


def test_what_is_of_others_may_be_in_a_values_file_of_many_charts() -> None:
    assert render(merged(MINIMAL, {"global": {"anything": {"goes": True}}})) == render(MINIMAL)


def test_whole_numbers_stay_whole() -> None:
    """YAML's numbers come to templates as floats: 2592000 became 2.592e+06, which no process takes."""
    rendering = Rendering(render(ALL_OPTIONS))
    assert rendering.named("ConfigMap", "tenantry-config")["data"]["TENANTRY_DELETION_GRACE"] == "2592000"
    for pod in rendering.pods():
        for name, (_, value) in pod.environment(rendering).items():
            assert "e+" not in value, (pod.name, name)
