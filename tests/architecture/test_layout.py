"""Where things are, and that the import contracts of pyproject.toml leave no package out."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.rules import ROOT

SOURCE = ROOT / "src" / "tenantry"

ALWAYS = frozenset({"__init__.py", "schemas.py", "service.py", "controller.py", "models.py"})
SOMETIMES = frozenset({"dashboard.py", "jobs.py", "handlers.py", "mails.py", "providers.py", "queries.py"})
"""Names that mean the same in every package that has them."""

PECULIAR = {
    "domain/audit": {"chain.py"},
    "domain/identity/account_policy": {"mail_providers.py"},
    "domain/identity/api_keys": {"last_use.py", "manage_controller.py", "principal.py"},
    "domain/identity/factors": {
        *("challenges.py", "desk.py", "gate.py", "login_controller.py", "policy.py", "problems.py", "proofs.py"),
        *("recovery.py", "relying_party.py", "totp.py"),
    },
    "domain/identity/passwords": {"changing.py"},
    "domain/identity/people": {"copies.py"},
    "domain/identity/sessions": {
        *("client.py", "confirmation.py", "cookies.py", "delays.py", "devices.py", "guessing.py", "last_use.py"),
        *("manage_controller.py", "throttle.py"),
    },
    "domain/identity/sso": {"discovery.py", "flow.py", "login_controller.py", "people.py", "verification.py"},
    "domain/identity/users": {"authority.py"},
    "domain/notifications": {"listeners.py", "stream.py"},
    "domain/operator_access": {"door.py", "principal.py"},
    "domain/organization": {"owners.py"},
    "domain/roles": {"catalogue.py"},
    "domain/scim": {
        "authority.py",
        "errors.py",
        "filters.py",
        "groups.py",
        "membership.py",
        "resources.py",
        "storage.py",
        "users.py",
        "values.py",
    },
    "domain/team_invitations": {"joining.py"},
    "domain/webhooks": {"deliveries.py", "delivery_controller.py", "fanout.py", "message.py", "sending.py"},
    "platform/deletion": {"catalog.py", "certificate.py", "chore.py", "holdings.py", "purge.py"},
    "platform/lifecycle": {
        "archiving.py",
        "building.py",
        "chore.py",
        "cloning.py",
        "copying.py",
        "exporting.py",
        "files.py",
        "founding.py",
        "importing.py",
        "restoring.py",
        "snapshot.py",
    },
    "platform/provisioning": {
        "creation.py",
        "fingerprint.py",
        "operations.py",
        "reference.py",
        "schema.py",
        "warm.py",
        "worker.py",
    },
    "platform/rollouts": {
        "chore.py",
        "events.py",
        "execution.py",
        "ledger.py",
        "manifest.py",
        "migration.py",
        "online.py",
        "opening.py",
        "planning.py",
        "runner.py",
        "serving.py",
        "steering.py",
    },
    "platform/tenants": {"creation.py", "files.py", "lifecycle.py", "limits.py", "plan.py", "usage.py"},
    "platform/usage": {"draining.py", "live.py"},
}
LACKS = {
    "domain/identity/people": {"models.py"},  # they are the users'
    "domain/dashboard": {"models.py"},  # its parts are other packages'
    "domain/idempotency": {"schemas.py", "controller.py"},  # it is a header of everybody's routes
    "domain/jobs": {"models.py"},  # the outbox is the control plane's
    "domain/organization": {"models.py"},  # it is the control plane's row
    "domain/usage": {"models.py"},  # they are the control plane's rows
    "platform/jobs": {"models.py"},  # the outbox is below, where jobs are written down
    "platform/schedules": {"models.py"},  # likewise: workers go by them
    "platform/lifecycle": {"models.py"},  # it changes what others own
    "platform/strangers": {"controller.py", "schemas.py"},  # what others' public routes have in common
    "platform/tenants": {"models.py"},  # the tenant is tenancy's
}


def packages(root: Path = SOURCE) -> Iterator[Path]:
    """The leaf packages: those with a manifest."""
    for plane in ("domain", "platform"):
        for init in sorted((root / plane).rglob("__init__.py")):
            if "FEATURE" in init.read_text(encoding="utf-8"):
                yield init.parent


def misnamed(package: Path, root: Path = SOURCE) -> set[str]:
    """Files that the package has and should not, or should have and has not."""
    name = package.relative_to(root).as_posix()
    have = {path.name for path in package.iterdir() if path.suffix == ".py"}
    wanted = (ALWAYS - LACKS.get(name, set())) | PECULIAR.get(name, set())
    return have.symmetric_difference(wanted | (have & SOMETIMES))


@pytest.mark.parametrize("package", list(packages()), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_every_package_has_the_same_file_names(package: Path) -> None:
    assert misnamed(package) == set()


def test_another_file_name_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "domain" / "rockets"
    package.mkdir(parents=True)
    for name in (ALWAYS - {"schemas.py"}) | {"providers.py", "helpers.py"}:
        (package / name).write_text("FEATURE = 1", encoding="utf-8")
    assert list(packages(tmp_path)) == [package]
    assert misnamed(package, tmp_path) == {"schemas.py", "helpers.py"}


def test_every_manifest_is_in_the_one_central_list() -> None:
    listed = (SOURCE / "features.py").read_text(encoding="utf-8")
    for package in packages():
        assert f"{package.name}.FEATURE" in listed, package


def test_the_contracts_name_every_package_of_the_domain() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = " ".join(
        layer
        for contract in contracts
        if contract["name"] == "Domains know each other downwards"
        for layer in contract["layers"]
    )
    for package in packages():
        dotted = "tenantry." + package.relative_to(SOURCE).as_posix().replace("/", ".")
        if dotted.startswith("tenantry.domain."):
            assert dotted in layers.replace("|", " ").split(), dotted
