"""Tenants with something of everything in them, operations that the test has carried out, and what there is then."""

from __future__ import annotations

import datetime
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from tenantry.domain.audit.chain import seal_next
from tenantry.domain.identity.sso.models import SsoIdentity, SsoLogin
from tenantry.features import DOMAIN_FEATURES, JOBS, MAILS
from tenantry.jobs.testing import JobBox
from tenantry.kernel.mail import Mailer
from tenantry.kernel.security import Vault
from tenantry.kernel.settings import Settings
from tenantry.kernel.storage import Storage
from tenantry.platform.archives.writer import TableDigest, table_digests
from tenantry.platform.provisioning.fingerprint import describe_schema, fingerprint
from tenantry.tenancy.connection import DriverConnection
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.wiring import scope_times
from tests.authenticator import Device, Phone
from tests.databases import Template
from tests.isolation.planting import plant
from tests.platform.belongings import make_due, provisioner
from tests.platform.support import as_admin, eventually, open_api, tenant_body
from tests.world import PASSWORD, Caller, World

__all__ = (
    "EMPTY",
    "SECRET",
    "Digests",
    "Inhabited",
    "as_owner",
    "ask",
    "carry_out",
    "carry_out_failing",
    "described",
    "digests",
    "files_of",
    "found",
    "of_catalog",
    "open_deployment",
    "operation_of",
    "run",
    "seal",
    "tenant_row",
    "tidy",
    "trail",
)

Digests = Mapping[str, TableDigest]

SECRET = {
    *("api_key", "user_session", "spent_refresh_token", "invitation", "password_reset", "team_invitation"),
    *("sso_connection", "sso_domain", "sso_grant", "sso_identity", "sso_login"),
    *("email_change", "email_verification", "sign_up"),
    *("webhook_endpoint", "webhook_delivery", "webhook_attempt", "idempotent_request"),
    *("known_device", "login_attempt"),
    *("totp_factor", "recovery_code", "passkey", "factor_challenge", "factor_failure"),
    "quota_lock",
    *("operator_access_grant", "operator_access_request", "operator_access_session", "operator_access_notice"),
}
"""Tables that are in no export, no clone and no import without credentials: what people and machines sign in with."""

EMPTY = {
    *("email_change", "email_verification", "sign_up", "login_attempt"),
    *("invitation", "password_reset", "team_invitation", "quota_lock"),
    *("operator_access_grant", "operator_access_request", "operator_access_session", "operator_access_notice"),
}
"""Tables in which nothing is of an organization that `found` has made."""


def open_deployment(addresses: Template, home: Path, **overrides: object) -> AbstractAsyncContextManager[World]:
    """An API that waits for nobody and notices quickly."""
    return open_api(addresses, home, **{"provision_wait": 0.01, "registry_poll_interval": 0.05, **overrides})


@dataclass(frozen=True)
class Inhabited:
    """A tenant with people, teams and tags, whose owner is signed in."""

    slug: str
    id: UUID
    owner: Caller
    people: tuple[str, ...]

    @property
    def schema(self) -> str:
        return f"t_{self.id.hex}"


async def found(api: World, slug: str, *, teams: int = 2) -> Inhabited:
    """Make a tenant, and move people in: every table of it has rows."""
    made = await api.operator.post("/platform/tenants", json=tenant_body(slug))
    assert made.status_code == 202, made.text
    await carry_out(api)
    owner = await api.log_in(slug, f"owner@{slug}.example")
    people = [f"owner@{slug}.example"]
    for name in ("ann", "bob"):
        email = f"{name}@{slug}.example"
        body = {"email": email, "password": PASSWORD, "name": f"{name.title()} of {slug}", "roles": ["member"]}
        answer = await owner.post("/api/users", json=body)
        assert answer.status_code == 201, answer.text
        people.append(email)
        for number in range(teams):
            if name == "ann":
                team = await owner.post(
                    "/api/teams",
                    json={"name": f"Team {number} of {slug}", "tags": [f"of {slug}"]},
                    headers={"Idempotency-Key": f"{slug}-{number}"},
                )
                assert team.status_code == 201, team.text
                member = {"userId": answer.json()["id"], "role": "member"}
                added = await owner.post(f"/api/teams/{team.json()['id']}/members", json=member)
                assert added.status_code == 201, added.text
    account = await owner.post("/api/service-accounts", json={"name": f"Deployer of {slug}", "roles": ["viewer"]})
    assert account.status_code == 201, account.text
    address = f"/api/service-accounts/{account.json()['id']}/api-keys"
    key = await owner.post(address, json={"name": "Report", "scopes": ["roles:read"]})
    assert key.status_code == 201, key.text
    # A directory knows the owner, and a team.
    known = {"Operations": [{"op": "add", "value": {"externalId": f"of-{slug}", "name": {"familyName": f"of {slug}"}}}]}
    me = (await owner.get("/api/users/me")).json()["id"]
    assert (await owner.patch(f"/api/scim/v2/Users/{me}", json=known)).status_code == 204
    for one in (await owner.get("/api/teams")).json()["items"][:1]:
        assert (await owner.patch(f"/api/scim/v2/Groups/{one['id']}", json=known)).status_code == 204
    # A refresh leaves a spent token behind.
    again = await api.http.post("/api/auth/refresh", json={"refreshToken": owner.refresh_token})
    assert again.status_code == 200, again.text
    wanted = {"items": [{"kind": "user.created", "inApp": True}]}
    chosen = await owner.request("PUT", "/api/notifications/preferences", json=wanted)
    assert chosen.status_code == 200, chosen.text
    policy = await owner.patch("/api/organization/account-policy", json={"domains": [f"{slug}.example"]})
    assert policy.status_code == 200, policy.text
    await _give_factors(api, slug, f"bob@{slug}.example")
    asked = await owner.patch("/api/organization/security", json={"secondFactorRequired": True, "graceDays": 90})
    assert asked.status_code == 200, asked.text
    # Nobody listens there: a ping is tried once.
    hook = await owner.post("/api/webhooks", json={"url": "http://127.0.0.1:9/", "events": ["webhook.pinged"]})
    assert hook.status_code == 201, hook.text
    assert (await owner.post(f"/api/webhooks/{hook.json()['id']}/ping")).status_code == 202
    directory = {"name": "Directory", "issuer": "http://127.0.0.1:9/", "clientId": slug, "clientSecret": "a secret"}
    connection = await owner.post("/api/sso/connections", json={**directory, "domains": [f"{slug}.example"]})
    assert connection.status_code == 201, connection.text
    await _come_by(api, UUID(made.json()["id"]), UUID(connection.json()["id"]), UUID(answer.json()["id"]))
    # Who was put into a team is told.
    resources = {
        Settings: api.settings,
        Vault: api.app.state.vault,
        Mailer: Mailer(api.settings, MAILS.folders),
    }
    box = JobBox(api.database, control_scope(scope_times(api.settings), read_only=False), JOBS, resources)
    await box.drain(api.app.state.registry.by_id(UUID(made.json()["id"])))
    await seal(api, UUID(made.json()["id"]))
    await _fill(api, UUID(made.json()["id"]))
    return Inhabited(slug, UUID(made.json()["id"]), Caller(api.http, again.json()["accessToken"]), tuple(people))


async def _fill(api: World, tenant_id: UUID) -> None:
    """A row of whatever has none yet: of features that have come since this was written."""
    empty = {name for name, digest in (await digests(api, tenant_id)).items() if not digest.rows} - EMPTY
    tenant = api.app.state.registry.by_id(tenant_id)
    for model in (model for feature in DOMAIN_FEATURES for model in feature.models):
        if model.__table__.name in empty:
            async with api.database.transaction(tenant.write_scope) as transaction:
                await plant(transaction.session, model)


async def _come_by(api: World, tenant_id: UUID, connection_id: UUID, user_id: UUID) -> None:
    """As if the user had come by that connection's provider."""
    tenant = api.app.state.registry.by_id(tenant_id)
    async with api.database.transaction(tenant.write_scope) as transaction:
        transaction.session.add(SsoIdentity(connection_id=connection_id, user_id=user_id, subject="subject"))
        transaction.session.add(
            SsoLogin(
                connection_id=connection_id,
                state_digest=connection_id.bytes,
                expires_at=datetime.datetime.now(datetime.UTC),
            )
        )
        await transaction.session.flush()


async def _give_factors(api: World, slug: str, email: str) -> None:
    """An authenticator app, recovery codes, a passkey; a log-in that was begun, and a wrong code."""
    person = await api.log_in(slug, email)
    started = await person.post("/api/second-factor/totp")
    code = Phone(started.json()["secret"], time.time()).code()
    assert (await person.post("/api/second-factor/totp/confirm", json={"code": code})).status_code == 200
    options = (await person.post("/api/second-factor/passkeys/options")).json()
    passkey = Device(f"https://{slug}.app.example.com").create(options["publicKey"])
    made = {"challenge": options["challenge"], "name": f"Laptop of {slug}", "passkey": passkey}
    assert (await person.post("/api/second-factor/passkeys", json=made)).status_code == 201
    begun = await api.http.post("/api/auth/login", json={"tenant": slug, "email": email, "password": PASSWORD})
    wrong = {"challenge": begun.json()["challenge"], "recoveryCode": "aaaa-" * 5 + "aaaa"}
    assert (await api.http.post("/api/auth/login/second-factor", json=wrong)).status_code == 401


async def seal(api: World, tenant_id: UUID) -> int:
    """Seal the organization's audit trail, as a worker does; how many events that were."""
    tenant = api.app.state.registry.by_id(tenant_id)
    async with api.database.transaction(tenant.write_scope) as transaction:
        return await seal_next(transaction.session)


async def ask(caller: Caller, path: str, body: Mapping[str, Any] | None = None) -> str:
    """Ask for something that a provisioner has to carry out; the operation's id."""
    answer = await caller.post(path, **({} if body is None else {"json": body}))
    assert answer.status_code == 202, answer.text
    assert int(answer.headers["Retry-After"]) >= 0
    location = answer.headers["Location"]
    assert location.startswith(("/platform/operations/", "/api/organization/exports/"))
    return str(location.rpartition("/")[2])


async def carry_out(api: World, **replaced: Any) -> None:
    """Have what is pending done, now; `replaced` are settings of the provisioner."""
    await make_due(api)
    async with provisioner(api, **replaced) as worker:
        assert await worker.work_off() == 1


async def carry_out_failing(api: World, operation: str, **replaced: Any) -> dict[str, Any]:
    """Have it tried until it is given up; the operation."""
    async with provisioner(api, **replaced) as worker:
        while (now := await operation_of(api, operation))["status"] == "pending":
            await make_due(api)
            await worker.work_off()
    assert now["status"] == "failed"
    return now


async def run(api: World, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask for it and have it done; the operation."""
    operation = await ask(api.operator, path, body)
    await carry_out(api)
    done = await operation_of(api, operation)
    assert done["status"] == "done", done["error"]
    # The process serves by its registry, which hears of it a moment later.
    await api.app.state.registry.refresh()
    return done


async def operation_of(api: World, operation: str) -> dict[str, Any]:
    answer = await api.operator.get(f"/platform/operations/{operation}")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


@asynccontextmanager
async def as_owner(addresses: Template) -> AsyncIterator[DriverConnection]:
    connection: DriverConnection = await asyncpg.connect(addresses.owner_url, connection_class=DriverConnection)
    try:
        yield connection
    finally:
        await connection.close()


async def digests(api: World, tenant_id: UUID) -> Digests:
    """What each table of a tenant holds, to the byte."""
    async with as_owner(api.addresses) as connection, connection.transaction():
        return await table_digests(connection, f"t_{tenant_id.hex}")


async def described(api: World, tenant_id: UUID) -> str:
    """What a tenant's schema is: tables, constraints, rights, revision."""
    async with as_owner(api.addresses) as connection, connection.transaction():
        return fingerprint(await describe_schema(connection, f"t_{tenant_id.hex}"))


async def of_catalog(api: World, tenant_id: UUID) -> list[str]:
    """Of a tenant's role and schema, those that exist."""
    async with as_admin(api.addresses) as admin:
        rows = await admin.fetch(
            "SELECT 'role' AS kind FROM pg_roles WHERE rolname = $1"
            " UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = $1",
            f"t_{tenant_id.hex}",
        )
    return [row["kind"] for row in rows]


async def tenant_row(api: World, tenant_id: UUID) -> dict[str, Any]:
    async with as_admin(api.addresses) as admin:
        row = await admin.fetchrow("SELECT * FROM platform.tenant WHERE id = $1", tenant_id)
    assert row is not None
    return dict(row)


async def trail(api: World, tenant_id: UUID) -> list[str]:
    """What was written down about a tenant, the oldest first."""
    async with as_admin(api.addresses) as admin:
        rows = await admin.fetch("SELECT action FROM platform.audit_entry WHERE tenant_id = $1 ORDER BY id", tenant_id)
    return [row["action"] for row in rows]


async def files_of(api: World, prefix: str = "") -> list[str]:
    """The keys in the storage, below a folder."""
    return sorted([info.key async for info in Storage.open(api.settings).list(prefix)])


async def refused_with(api: World, caller: Caller, status: int) -> httpx.Response:
    """Wait until a caller's requests are answered with this status; a second, where the machine does nothing else."""

    async def asked() -> httpx.Response | None:
        answer = await caller.get("/api/teams")
        return answer if answer.status_code == status else None

    found = await eventually(asked, 10)
    assert found is not None
    return found


async def tidy(api: World) -> int:
    """Let the provisioner's chore remove the files that nobody needs any more; how many those were."""
    removed = 0
    async with provisioner(api) as worker:
        [chore] = [one for one in worker._chores if one.name == "files that have expired"]
        while await chore.run(worker._engine):
            removed += 1
    return removed
