"""What the containers run is what the image has: commands with these options, settings of these names and values."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import rich_click as click

from tenantry.cli import tenantry
from tenantry.kernel.settings import PREFIX, Settings, load_settings
from tests.chart.command_line import parse
from tests.chart.helm import ROOT
from tests.chart.rendering import Pod, Rendering

SECRETS = {
    "TENANTRY_DATABASE_URL": "postgresql://tenantry_app:a@db:5432/tenantry",
    "TENANTRY_DATABASE_LISTEN_URL": "postgresql://tenantry_app:a@db:5432/tenantry",
    "TENANTRY_DATABASE_REPLICA_URL": "postgresql://tenantry_app:a@replica:5432/tenantry",
    "TENANTRY_DATABASE_OWNER_URL": "postgresql://tenantry_owner:a@db:5432/tenantry",
    "TENANTRY_REDIS_URL": "rediss://:secret@redis:6379/0",
    "TENANTRY_MAIL_URL": "smtp://user:secret@mail.example.com:587",
    "TENANTRY_STORAGE_S3_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "TENANTRY_STORAGE_S3_SECRET_ACCESS_KEY": "secret",
    "TENANTRY_BACKUP_S3_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "TENANTRY_BACKUP_S3_SECRET_ACCESS_KEY": "secret",
    "VALKEY_PASSWORD": "c3VwZXJzZWNyZXQ",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer secret",
}
"""What might be in a Secret, by the variable that it is passed in."""


def _environment(pod: Pod, rendering: Rendering) -> Iterator[tuple[str, str]]:
    """The variables of a pod as its process sees them."""
    seen: dict[str, str] = {}
    for name, (source, value) in pod.environment(rendering).items():
        text = SECRETS[name] if source == "secret" else value
        for before, known in seen.items():
            text = text.replace(f"$({before})", known)
        seen[name] = text
        yield name, text


def test_every_process_would_start_with_its_settings(rendering: Rendering) -> None:
    """No name that is unknown, no value that is refused, and nothing that another setting asks for left out."""
    for pod in rendering.pods():
        if not pod.is_ours:
            continue
        ours = dict(_environment(pod, rendering))
        settings = load_settings(ours)
        if "TENANTRY_REDIS_URL" in ours:
            assert settings.redis_url == ours["TENANTRY_REDIS_URL"], pod.name
        assert set(ours) - set(_known()) <= {*SECRETS, "AWS_REGION"}, pod.name


def _known() -> set[str]:
    return {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def _command_lines(rendering: Rendering) -> Iterator[tuple[Pod, list[str]]]:
    for pod in rendering.pods():
        for container in pod.containers():
            if pod.is_ours and "command" not in container:
                yield pod, container["args"]


def test_every_command_is_one_of_the_images_with_its_options(
    rendering: Rendering, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod, arguments in _command_lines(rendering):
        assert all(isinstance(argument, str) for argument in arguments), pod.name
        parse(arguments, monkeypatch)


def test_a_command_that_is_not_there_is_noticed() -> None:
    with pytest.raises(click.UsageError, match="No such command"):
        tenantry.resolve_command(click.Context(tenantry), ["sreve"])


def test_a_command_that_may_not_ask_is_not_one_that_asks(rendering: Rendering) -> None:
    """Nobody is there to answer: what destroys is told so beforehand."""
    for pod, arguments in _command_lines(rendering):
        assert arguments[:2] not in (["tenants", "purge"], ["backup", "restore"]), pod.name


def test_the_images_entry_point_is_the_command_line() -> None:
    """The containers give arguments and no command."""
    entries = re.findall(r"^ENTRYPOINT (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert entries[-1] == '["tenantry"]'


def test_the_doctor_is_told_how_many_there_may_be(full: Rendering) -> None:
    (container,) = full.pod("doctor").spec["containers"]
    assert container["args"][:5] == ["doctor", "--api-replicas", "10", "--worker-replicas", "20"]


def test_each_process_runs_what_it_is_called_after(rendering: Rendering) -> None:
    wanted = {
        "api": ["serve"],
        "worker": ["worker"],
        "provisioner": ["provisioner"],
        "migrate": ["migrate", "shared"],
        "rollout": ["migrate", "tenants"],
        "apply": ["apply", "/etc/tenantry/tenants"],
        "backup": ["backup", "create", "--all"],
        "backup-verify": ["backup", "verify", "--latest"],
        "backup-prune": ["backup", "prune", "--yes"],
        "catalog": ["catalog", "--json"],
    }
    for pod in rendering.pods():
        if pod.component in wanted:
            begin = wanted[pod.component]
            assert pod.spec["containers"][0]["args"][: len(begin)] == begin


def test_invitations_are_mailed_where_there_is_a_mail_server_and_in_no_log_then(rendering: Rendering) -> None:
    for pod in rendering.pods():
        if pod.component == "apply":
            is_mailed = "--mail" in pod.spec["containers"][0]["args"]
            assert is_mailed == ("TENANTRY_MAIL_URL" in pod.environment(rendering))
            assert is_mailed == ("TENANTRY_VAULT_FILE" in pod.environment(rendering))
