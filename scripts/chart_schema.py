"""Write the chart's values.schema.json: its shape and descriptions from values.yaml, `config` from the settings.

    python scripts/chart_schema.py [--check]

What a value takes is inferred from its default, or said in RULES below where that says too little. `--check` writes
nothing and ends with 1 where the file is not what it should be.
"""

import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le
from chart_values import CHART, read_values
from pydantic.fields import FieldInfo

from tenantry.kernel.settings import Settings
from tenantry.kernel.settings.fields import expected

Schema = dict[str, Any]

# Settings that are not `config`'s, and where in the values they are.
ELSEWHERE = {
    "home": "the image's",
    "host": "listenAddress",
    "port": "the chart's",
    "workers": "api.workers",
    "database_url": "secrets.databaseUrl",
    "database_owner_url": "secrets.databaseOwnerUrl",
    "database_listen_url": "secrets.databaseListenUrl",
    "database_replica_url": "secrets.databaseReplicaUrl",
    "redis_url": "secrets.redisUrl",
    "mail_url": "secrets.mailUrl",
    "keyring": "secrets.keyring",
    "vault_file": "secrets.vault",
    "storage_url": "storage",
    "storage_s3_endpoint": "storage.s3.endpoint",
    "storage_s3_region": "storage.s3.region",
    "storage_s3_access_key_id": "secrets.storageAccessKeyId",
    "storage_s3_secret_access_key": "secrets.storageSecretAccessKey",
    "metrics_token": "secrets.metricsToken",
    "metrics_token_file": "secrets.metricsToken",
    "metrics_host": "listenAddress",
    "metrics_port": "metrics.port",
    "backup_url": "backups.url",
    "backup_s3_endpoint": "backups.s3.endpoint",
    "backup_s3_region": "backups.s3.region",
    "backup_s3_access_key_id": "secrets.backupAccessKeyId",
    "backup_s3_secret_access_key": "secrets.backupSecretAccessKey",
    "backup_key_file": "secrets.backupKeys",
}


def _text(pattern: str | None = None, **more: Any) -> Schema:
    return {"type": "string", **({} if pattern is None else {"pattern": pattern}), **more}


def _whole(least: int, most: int | None = None) -> Schema:
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _map(of: Schema, **more: Any) -> Schema:
    return {"type": "object", "additionalProperties": of, **more}


def _closed(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


NAME = r"^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
HOST = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
POSTGRES = _text(r"^$|^postgres(ql)?://[^ ]+$")
BUCKET = r"^$|^s3://[^/ ]+"
HTTP = r"^$|^https?://[^ ]+$"
PORT = _whole(1, 65_535)
SECONDS = _whole(1)
OBJECT: Schema = {"type": "object"}
TEXTS = _map(_text())
QUANTITY: Schema = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i|[MGTPE])?$"}
QUANTITIES = _map(QUANTITY)
NETWORK = _text(r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")
SCHEDULE = _text(r"^(@(hourly|daily|weekly|monthly|yearly)|[^ ]+( [^ ]+){4})$")
DURATION = _text(r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$")
PULL = _text(enum=["IfNotPresent", "Always", "Never"])
SOME = {"minItems": 1}

# The first that fits counts.
RULES: tuple[tuple[str, Schema], ...] = (
    ("nameOverride", _text(NAME, maxLength=40)),
    ("fullnameOverride", _text(NAME, maxLength=40)),
    ("*image.repository", _text(r"^[a-z0-9][-a-z0-9._:/]*[a-z0-9]$")),
    ("*image.tag", _text(r"^$|^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")),
    ("*image.digest", _text(r"^$|^sha256:[0-9a-f]{64}$")),
    ("*image.pullPolicy", PULL),
    ("image.pullSecrets", _list(_text(NAME, minLength=1))),
    ("secrets.external.storeKind", _text(enum=["SecretStore", "ClusterSecretStore"])),
    ("secrets.external.refreshInterval", DURATION),
    ("secrets.*.existingSecret", _text(NAME)),
    ("secrets.*.key", _text(r"^[-._a-zA-Z0-9]+$")),
    ("secrets.*.remoteRef", {**OBJECT, "dependentRequired": {"property": ["key"], "version": ["key"]}}),
    ("secrets.database*.value", POSTGRES),
    ("secrets.redisUrl.value", _text(r"^$|^rediss?://[^ ]+$")),
    ("secrets.mailUrl.value", _text(r"^$|^smtp://[^ ]+$")),
    ("secrets.metricsToken.value", _text(r"^$|^[!-~]{16,}$")),
    ("secrets.keyring.value", _text(r"^$|^\s*\{")),
    ("secrets.vault.value", _text(r"^$|^\s*\{")),
    ("storage.url", _text(BUCKET)),
    ("backups.url", _text(r"^$|^s3://[^/ ]+|^file:///")),
    ("*.s3.endpoint", _text(HTTP)),
    ("*.existingClaim", _text(NAME)),
    ("*.size", QUANTITY),
    ("*.sizeLimit", QUANTITY),
    (
        "*.accessModes",
        _list(_text(enum=["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]), **SOME),
    ),
    ("*.resources", _closed(requests=QUANTITIES, limits=QUANTITIES)),
    ("*.requests", QUANTITIES),
    ("*.runAsUser", {"type": ["integer", "null"], "minimum": 1}),
    ("*.fsGroup", {"type": ["integer", "null"], "minimum": 1}),
    ("*.topologySpreadConstraints", _list(OBJECT)),
    ("*.tolerations", _list(OBJECT)),
    ("*.affinity", OBJECT),
    ("*.behavior", OBJECT),
    ("*.extraEnv", _list({**OBJECT, "required": ["name"]})),
    ("*.extraVolumes", _list({**OBJECT, "required": ["name"]})),
    ("*.extraVolumeMounts", _list({**OBJECT, "required": ["name", "mountPath"]})),
    ("*.nodeSelector", TEXTS),
    ("*podLabels", TEXTS),
    ("*odAnnotations", TEXTS),
    ("*abels", TEXTS),
    ("*nnotations", TEXTS),
    ("*.args", _list(_text())),
    ("*.schedule", SCHEDULE),
    ("*.interval", DURATION),
    ("*.scrapeTimeout", DURATION),
    ("*.minReplicas", _whole(1)),
    ("*.maxReplicas", _whole(1)),
    ("*.replicas", _whole(1)),
    ("api.workers", _whole(1, 256)),
    ("api.drainSeconds", _whole(0, 300)),
    ("*.targetCPUUtilizationPercentage", _whole(1, 100)),
    ("*.jobsPerPod", _whole(1)),
    ("*.maxUnavailable", {"type": ["integer", "string"], "minimum": 1, "pattern": "^[1-9][0-9]?%$"}),
    ("*.startupSeconds", _whole(2)),
    ("*Seconds", SECONDS),
    ("*.canary", _whole(0)),
    ("*.haltAfter", _whole(1)),
    ("migrations.tenants.concurrency", {"type": ["integer", "null"], "minimum": 1, "maximum": 64}),
    (
        "tenants.files",
        {"type": "object", "patternProperties": {r"^[a-z][a-z0-9-]*\.toml$": _text()}, "additionalProperties": False},
    ),
    ("service.type", _text(enum=["ClusterIP", "NodePort", "LoadBalancer"])),
    ("*.port", PORT),
    ("*.ports", _list(PORT, **SOME)),
    ("*.hosts", _list(_text(HOST))),
    ("*.hostnames", _list(_text(HOST))),
    ("*.paths", _list(_text("^/"), **SOME)),
    ("ingress.tls", _list(_closed(secretName=_text(NAME), hosts=_list(_text(HOST))))),
    ("*.parentRefs", _list({**OBJECT, "required": ["name"]})),
    ("*.to", _list(OBJECT)),
    ("networkPolicy.*From", _list(OBJECT)),
    ("networkPolicy.internet.except*", _list(NETWORK)),
    ("networkPolicy.extraEgress", _list(OBJECT)),
    ("metrics.prometheusRule.disabled", _list(_text("^Tenantry[A-Za-z]+$"))),
    ("*.prometheusAddress", _text(HTTP)),
    ("cronJobs.history", _closed(successful=_whole(0), failed=_whole(0))),
    ("pgbouncer.database.tls", _text(enum=["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])),
    ("pgbouncer.poolSize", _whole(1)),
    ("pgbouncer.max*", _whole(1)),
    ("valkey.maxMemory", _whole(16)),
)


def config_schema() -> Schema:
    """What `config` takes: the settings of all processes, by their variables without the prefix."""
    properties: dict[str, Schema] = {}
    for name, field in Settings.model_fields.items():
        # An operator who looks for it here is told where it is.
        here = {"const": f"(nothing: this one is {ELSEWHERE[name]})"} if name in ELSEWHERE else _setting(field)
        properties[name.upper()] = {**here, "description": f"{field.description} Takes {expected(field)}."}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _setting(field: FieldInfo) -> Schema:
    kinds = _kinds(field.annotation)
    if bool in kinds:
        return {"type": "boolean"}
    if int in kinds or float in kinds:
        return {"type": "integer" if int in kinds else "number", **dict(_bounds(field))}
    if get_origin(field.annotation) is Literal:
        return {"type": "string", "enum": list(get_args(field.annotation))}
    if any(get_origin(kind) is tuple for kind in kinds):
        # With commas between them, or as a list.
        return {"type": ["string", "array"], "items": {"type": "string"}}
    return {"type": "string", "minLength": 1}


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)


def _bounds(field: FieldInfo) -> Iterator[tuple[str, Any]]:
    for bound in field.metadata:
        if isinstance(bound, Ge):
            yield "minimum", bound.ge
        elif isinstance(bound, Gt):
            yield "exclusiveMinimum", bound.gt
        elif isinstance(bound, Le):
            yield "maximum", bound.le


def values_schema(text: str) -> Schema:
    """The schema of a values.yaml.

    Raises:
        ValueError: What a value takes neither its default says nor a rule.
    """
    described = {value.path: value.description for value in read_values(text)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart tenantry; written by scripts/chart_schema.py",
        **_of(yaml.safe_load(text), "", described),
    }


def _of(value: Any, path: str, described: dict[str, str]) -> Schema:
    about = {"description": described[path]} if path in described else {}
    if path == "config":
        return {**config_schema(), **about}
    for pattern, rule in RULES:
        if path and fnmatchcase(path, pattern):
            return {**rule, **about}
    if isinstance(value, dict) and value and not about:
        properties = {name: _of(part, f"{path}.{name}" if path else name, described) for name, part in value.items()}
        if not path:
            # What a chart that this one is a part of says to all of its parts.
            properties["global"] = {"type": "object"}
        return {**_closed(**properties), **about}
    kinds: dict[type, Schema] = {bool: {"type": "boolean"}, int: _whole(0), str: _text()}
    if type(value) not in kinds:
        raise ValueError(f"{path}: say in RULES what it takes")
    return {**kinds[type(value)], **about}


def main() -> int:
    path = CHART / "values.schema.json"
    schema = values_schema((CHART / "values.yaml").read_text(encoding="utf-8"))
    wanted = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == wanted:
        return 0
    if "--check" in sys.argv[1:]:
        sys.stderr.write("helm/tenantry/values.schema.json is not what it should be: python scripts/chart_schema.py\n")
        return 1
    path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
