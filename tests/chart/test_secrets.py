"""Who is given which secret: each process what it needs, and the owner's those alone that change schemas."""

from __future__ import annotations

from tests.chart.rendering import Pod, Rendering

OWNERS = {"provisioner", "migrate", "rollout", "backup", "backup-verify", "backup-prune"}
"""Components that act as the owner of the schemas."""

_APP = {"kept-databaseurl"}
_OWNER = _APP | {"kept-databaseownerurl"}
_BUCKET = {"kept-storageaccesskeyid", "kept-storagesecretaccesskey"}
_SERVING = _APP | {"kept-databaselistenurl", "kept-valkeypassword", "kept-mailurl", "kept-vault"}
_TOLD = {"kept-metricstoken", "kept-tracingheaders"}
_BACKUP = {"kept-backupkeys", "kept-backupaccesskeyid", "kept-backupsecretaccesskey"}

MATRIX: dict[str, set[str]] = {
    "api": _SERVING | _BUCKET | _TOLD | {"kept-databasereplicaurl", "kept-keyring"},
    "worker": _SERVING | _TOLD,
    "provisioner": _OWNER | _BUCKET | _TOLD | {"kept-databaselistenurl", "kept-valkeypassword", "kept-keyring"},
    "migrate": _OWNER,
    "rollout": _OWNER | {"kept-databaselistenurl"},
    "apply": _APP | {"kept-mailurl", "kept-vault"},
    "backup": _OWNER | _BUCKET | _BACKUP | {"kept-valkeypassword", "kept-keyring"},
    "backup-verify": _OWNER | _BUCKET | _BACKUP | {"kept-valkeypassword", "kept-keyring"},
    "backup-prune": _OWNER | _BUCKET | _BACKUP | {"kept-valkeypassword", "kept-keyring"},
    "catalog": _APP,
    "doctor": _SERVING | _BUCKET | {"kept-databasereplicaurl", "kept-keyring"},
    "test": set(),
    "test-doctor": _SERVING | _BUCKET | {"kept-databasereplicaurl", "kept-keyring"},
    "valkey": {"kept-valkeypassword"},
    "pgbouncer": {"kept-pgbouncerusers"},
}
"""What each component reads, at most and at least."""


def test_each_pod_reads_the_secrets_that_it_needs_and_no_other(full: Rendering) -> None:
    assert {pod.component: pod.secrets() for pod in full.pods()} == MATRIX


def _owners_address(pod: Pod, rendering: Rendering) -> bool:
    return "TENANTRY_DATABASE_OWNER_URL" in pod.environment(rendering)


def test_the_owners_address_is_where_schemas_are_changed_and_nowhere_else(rendering: Rendering) -> None:
    having = {pod.component for pod in rendering.pods() if _owners_address(pod, rendering)}
    assert having == OWNERS & {pod.component for pod in rendering.pods()}
    for pod in rendering.pods():
        owners = {name for name in pod.secrets() if "owner" in name}
        assert bool(owners) == (pod.component in OWNERS), pod.name
        # Nor by way of a whole Secret: each key is named.
        assert not any("secretRef" in source for one in pod.containers() for source in one.get("envFrom") or ())


def test_no_secret_is_in_a_configmap_or_in_plain_sight(rendering: Rendering) -> None:
    for found in rendering.of("ConfigMap"):
        if found["metadata"]["name"].endswith("-config"):
            assert not any(key.endswith(("SECRET", "SECRET_ACCESS_KEY", "PASSWORD", "TOKEN")) for key in found["data"])
    for pod in rendering.pods():
        for name, (source, value) in pod.environment(rendering).items():
            if name.endswith(("DATABASE_URL", "OWNER_URL", "REDIS_URL", "MAIL_URL", "SECRET_ACCESS_KEY", "PASSWORD")):
                assert source == "secret" or value.startswith("redis://:$(VALKEY_PASSWORD)@"), (pod.name, name)


def test_files_of_keys_are_mounted_for_reading_by_the_process_alone(full: Rendering) -> None:
    for pod in full.pods():
        volumes = {volume["name"]: volume["secret"] for volume in pod.spec.get("volumes") or () if "secret" in volume}
        for container in pod.containers():
            for mount in container.get("volumeMounts") or ():
                if mount["name"] in volumes:
                    assert mount["readOnly"] is True, (pod.name, mount)
                    assert volumes[mount["name"]]["defaultMode"] == 0o440, (pod.name, mount)
                    assert "subPath" not in mount, "a mounted part of a Secret is never renewed"


def test_a_process_finds_its_files_where_it_is_told_that_they_are(rendering: Rendering) -> None:
    for pod in rendering.pods():
        secrets = {volume["name"]: volume["secret"] for volume in pod.spec.get("volumes") or () if "secret" in volume}
        files = {
            f"{mount['mountPath']}/{item['path']}"
            for container in pod.containers()
            for mount in container.get("volumeMounts") or ()
            for item in (secrets.get(mount["name"]) or {}).get("items") or ()
        }
        told = {
            value
            for name, (_, value) in pod.environment(rendering).items()
            if name
            in {"TENANTRY_KEYRING", "TENANTRY_VAULT_FILE", "TENANTRY_METRICS_TOKEN_FILE", "TENANTRY_BACKUP_KEY_FILE"}
        }
        assert told == files - {"/run/tenantry/pgbouncer/userlist.txt"}, pod.name


def test_a_password_is_there_before_the_address_that_it_is_put_into(rendering: Rendering) -> None:
    """Kubernetes puts in what stands further up in the list alone, and leaves the rest as it is written."""
    for pod in rendering.pods():
        for container in pod.containers():
            above: set[str] = set()
            for variable in container.get("env") or ():
                if "$(VALKEY_PASSWORD)" in variable.get("value", ""):
                    assert "VALKEY_PASSWORD" in above, pod.name
                above.add(variable["name"])


def test_hooks_read_what_is_there_before_the_release(rendering: Rendering) -> None:
    """Of what this release makes, a hook before it has those alone that are hooks themselves, and earlier ones."""
    hooks: set[tuple[str, str]] = set()
    others: set[tuple[str, str]] = set()
    for found in rendering.objects:
        annotations = found["metadata"].get("annotations") or {}
        before = "pre-install" in annotations.get("helm.sh/hook", "") and int(annotations["helm.sh/hook-weight"]) < 0
        (hooks if before else others).add((found["kind"], found["metadata"]["name"]))
    for pod in rendering.pods():
        if "pre-upgrade" not in pod.hooks:
            continue
        assert not any(source for one in pod.containers() for source in one.get("envFrom") or ()), pod.name
        for name in pod.secrets():
            assert ("Secret", name) not in others, (pod.name, name)
            assert ("ExternalSecret", name) not in others, (pod.name, name)
        assert ("ServiceAccount", pod.spec["serviceAccountName"]) not in others, pod.name
        assert not [volume for volume in pod.spec["volumes"] if {"configMap", "persistentVolumeClaim"} & set(volume)]
