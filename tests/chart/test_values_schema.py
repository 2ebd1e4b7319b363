"""What the chart takes, and what it says to whoever gives it something else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tenantry.kernel.settings import Settings, describe
from tests.chart.cases import MINIMAL, merged
from tests.chart.helm import CHART, ROOT, RefusedError, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def said(**values: Any) -> str:
    """What helm answers to the least that it takes with these values above it."""
    with pytest.raises(RefusedError) as refused:
        render(merged(MINIMAL, values))
    return str(refused.value)


def test_the_schema_is_what_the_values_and_the_settings_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "chart_schema.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_schema_is_one_and_the_defaults_are_as_it_wants() -> None:
    jsonschema_rs.meta.validate(SCHEMA)
    assert [error.message for error in jsonschema_rs.Draft202012Validator(SCHEMA).iter_errors(DEFAULTS)] == []


def test_every_setting_is_known_and_takes_its_own_default() -> None:
    properties = SCHEMA["properties"]["config"]["properties"]
    docs = {doc.variable.removeprefix("TENANTRY_"): doc for doc in describe(Settings())}
    assert properties.keys() == docs.keys()
    for name, doc in docs.items():
        if doc.default and "const" not in properties[name]:
            default = doc.default if properties[name]["type"] == "string" else yaml.safe_load(doc.default)
            jsonschema_rs.validate(properties[name], default)


def test_no_setting_that_holds_a_secret_can_be_config() -> None:
    properties = SCHEMA["properties"]["config"]["properties"]
    secret = {name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    addresses = {name for name in properties if name.startswith("DATABASE_") and name.endswith("_URL")}
    for name in secret | addresses | {"REDIS_URL", "MAIL_URL", "KEYRING", "VAULT_FILE"}:
        assert "const" in properties[name], name


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"config": {"WORKRES": 2}}, "at '/config': additional properties 'WORKRES' not allowed"),
        ({"config": {"REFRESH_TOKEN_TTL": 0}}, "at '/config/REFRESH_TOKEN_TTL': minimum: got 0, want 1"),
        ({"config": {"LOG_LEVEL": "LOUD"}}, "at '/config/LOG_LEVEL': value must be one of 'DEBUG', 'INFO'"),
        ({"config": {"SIGNUP": "perhaps"}}, "at '/config/SIGNUP': got string, want boolean"),
        ({"config": {"DATABASE_URL": "postgresql://a:b@c/d"}}, "this one is secrets.databaseUrl"),
        ({"secrets": {"vault": {"exitingSecret": "x"}}}, "additional properties 'exitingSecret' not allowed"),
        ({"api": {"replicas": 0}}, "at '/api/replicas': minimum: got 0, want 1"),
        ({"api": {"resources": {"limits": {"memory": "1GB"}}}}, "at '/api/resources/limits/memory': '1GB' does not"),
        ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
        ({"ingress": {"hosts": ["https://x.example"]}}, "at '/ingress/hosts/0': 'https://x.example' does not match"),
        ({"tenants": {"files": {"Acme.txt": ""}}}, "at '/tenants/files': additional properties 'Acme.txt' not allowed"),
        ({"service": {"type": "ExternalName"}}, "at '/service/type': value must be one of 'ClusterIP'"),
        ({"storage": {"url": "https://bucket"}}, "at '/storage/url': 'https://bucket' does not match pattern"),
        ({"migration": {}}, "additional properties 'migration' not allowed"),
    ],
)
def test_what_is_wrong_with_one_value_is_said_with_its_place(values: dict[str, Any], expected: str) -> None:
    assert expected in said(**values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"secrets": {"vault": {"existingSecret": ""}}}, "secrets.vault: expected the file of the keys that seal"),
        (
            {"secrets": {"redisUrl": {"value": "redis://x"}}},
            "secrets.redisUrl: is given 2 times, as existingSecret and value; expected one",
        ),
        (
            {"secrets": {"mailUrl": {"existingSecret": "mail"}}},
            "config.APP_URL: is needed with secrets.mailUrl",
        ),
        ({"secrets": {"storageAccessKeyId": {"existingSecret": "s3"}}}, "together, or neither"),
        ({"config": {"SIGNUP": True}}, "config.SIGNUP: needs mail, thus secrets.mailUrl"),
        ({"storage": {"url": ""}}, "storage.url: expected s3://bucket/prefix, or storage.volume.enabled"),
        ({"storage": {"volume": {"enabled": True}}}, "storage: expected either url or volume.enabled"),
        (
            {"worker": {"autoscaling": {"enabled": True}, "keda": {"enabled": True, "prometheusAddress": "http://p"}}},
            "worker: expected either autoscaling.enabled or keda.enabled",
        ),
        ({"worker": {"keda": {"enabled": True}}}, "worker.keda.prometheusAddress: expected"),
        ({"api": {"autoscaling": {"enabled": True, "maxReplicas": 1}}}, "minReplicas is more than maxReplicas"),
        ({"ingress": {"enabled": True}}, "ingress.hosts: expected a host, or config.BASE_DOMAIN"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: expected the Gateway"),
        (
            {"tenants": {"files": {"acme.toml": ""}, "existingConfigMap": "t"}},
            "tenants: expected either files or existingConfigMap",
        ),
    ],
)
def test_values_that_do_not_go_together_are_said(values: dict[str, Any], expected: str) -> None:
    assert expected in said(**values)


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(RefusedError) as refused:
        render({})
    text = str(refused.value)
    for name in ("databaseUrl", "databaseOwnerUrl", "redisUrl", "keyring", "vault"):
        assert f"secrets.{name}: expected" in text
    assert "storage.url: expected" in text
