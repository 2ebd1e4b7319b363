"""The ways to use the chart that are rendered and looked at, each as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tests.chart.helm import CHART, Object, render

__all__ = ("ALL_OPTIONS", "CASES", "MINIMAL", "merged", "rendered")

Values = dict[str, Any]


def merged(*layers: Mapping[str, Any]) -> Values:
    """Values one above the other, as helm lays files over each other."""
    together: Values = {}
    for layer in layers:
        for key, value in layer.items():
            below = together.get(key)
            together[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return together


def _kept(*names: str) -> Values:
    """Secrets that are there already; one for each, so that who may read which can be told."""
    return {"secrets": {name: {"existingSecret": f"kept-{name.lower()}"} for name in names}}


MINIMAL: Values = merged(
    _kept("databaseUrl", "databaseOwnerUrl", "redisUrl", "keyring", "vault"),
    {"storage": {"url": "s3://bucket/prefix"}},
)
"""Whatever has no default."""

_CRON: Values = {
    "backups": {"url": "s3://backups/prefix", "s3": {"region": "eu-central-1"}},
    "cronJobs": {
        name: {"enabled": True} for name in ("backup", "backupVerify", "backupPrune", "catalogReport", "doctor")
    },
}
_OBSERVED: Values = {
    "metrics": {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")},
}
_PLACED: Values = {
    "nodeSelector": {"pool": "tenantry"},
    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "tenantry", "effect": "NoSchedule"}],
    "podAnnotations": {"example.com/note": "yes"},
}
_SERVED: Values = _PLACED | {
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["amd64"]}]}]
            }
        }
    },
    "priorityClassName": "important",
    "podLabels": {"example.com/team": "platform"},
    "extraEnv": [{"name": "AWS_REGION", "value": "eu-central-1"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
}

ALL_OPTIONS: Values = merged(
    _kept(
        *("databaseUrl", "databaseOwnerUrl", "databaseListenUrl", "databaseReplicaUrl", "mailUrl", "keyring", "vault"),
        *("storageAccessKeyId", "storageSecretAccessKey", "metricsToken", "tracingHeaders", "valkeyPassword"),
        *("pgbouncerUsers", "backupKeys", "backupAccessKeyId", "backupSecretAccessKey"),
    ),
    _CRON,
    _OBSERVED,
    {
        "labels": {"example.com/owner": "platform"},
        "annotations": {"example.com/contact": "platform@example.com"},
        "image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": ["registry"]},
        "config": {
            "BASE_DOMAIN": "app.example.com",
            "APP_URL": "https://{slug}.app.example.com",
            "MAIL_FROM": "Tenantry <no-reply@example.com>",
            "TRACING_URL": "http://otel.monitoring:4318",
            "DELETION_GRACE": 2592000,
            "WORKER_GRACE": 60,
        },
        "storage": {"url": "s3://bucket/prefix", "s3": {"endpoint": "https://minio.example.com", "region": "eu"}},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/tenantry"}},
        "api": merged(_SERVED, {"autoscaling": {"enabled": True}, "workers": 2}),
        "worker": merged(_SERVED, {"keda": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}}),
        "provisioner": merged(_SERVED, {"replicas": 2}),
        "migrations": _PLACED | {"tenants": {"concurrency": 8, "allowIrreversible": True}},
        "tenants": {"files": {"plans.toml": "", "acme.toml": 'name = "Acme"\n'}},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["*.app.example.com"],
            "tls": [{"secretName": "wildcard", "hosts": ["*.app.example.com"]}],
        },
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway", "namespace": "infra"}]},
        "networkPolicy": {
            "ingressFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "postgresql": {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}]},
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}],
        },
        "cronJobs": _PLACED,
        "pgbouncer": _PLACED
        | {"enabled": True, "database": {"host": "db.internal", "tls": "verify-full", "caConfigMap": "authority"}},
        "valkey": _PLACED | {"enabled": True, "storage": {"storageClass": "fast"}},
    },
)

_OWN: dict[str, Values] = {
    "minimal": MINIMAL,
    "external-services": merged(
        MINIMAL,
        _CRON,
        _kept("databaseListenUrl", "mailUrl", "backupKeys"),
        {"config": {"APP_URL": "https://{slug}.app.example.com", "MAIL_FROM": "no-reply@example.com"}},
    ),
    "values": {
        "secrets": {
            "databaseUrl": {"value": "postgresql://tenantry_app:a@db:5432/tenantry"},
            "databaseOwnerUrl": {"value": "postgresql://tenantry_owner:b@db:5432/tenantry"},
            "keyring": {"value": "{}"},
            "vault": {"value": "{}"},
            "valkeyPassword": {"value": "c3VwZXJzZWNyZXQ"},
        },
        "storage": {"volume": {"enabled": True}},
        "valkey": {"enabled": True, "runAsUser": None},
        "api": {"replicas": 1},
        "worker": {"replicas": 1, "autoscaling": {"enabled": True}},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "security": {"runAsUser": None, "fsGroup": None},
        "tests": {"enabled": False},
    },
    "external-secrets": {
        "secrets": {"external": {"store": "vault"}}
        | {
            name: {"remoteRef": {"key": "tenantry", "property": name}}
            for name in ("databaseUrl", "databaseOwnerUrl", "redisUrl", "keyring", "vault", "metricsToken")
        },
        "storage": {"url": "s3://bucket/prefix"},
        "migrations": {"tenants": {"enabled": False}},
    },
    "by-hand": merged(MINIMAL, {"migrations": {"enabled": False}, "tests": {"enabled": False}}),
    "all-options": ALL_OPTIONS,
}
_EXAMPLES = {
    f"examples/{path.stem}": yaml.safe_load(path.read_text()) for path in sorted((CHART / "examples").glob("*.yaml"))
}

CASES: dict[str, Values] = _OWN | _EXAMPLES
"""By name; the examples that come with the chart are among them."""


def rendered(case: str) -> list[Object]:
    """The objects of a case, rendered once in each process."""
    return render(CASES[case])
