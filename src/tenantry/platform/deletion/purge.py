"""The operation `purge`: a tenant's data are removed, that they are gone is checked, and a certificate says so.

What is outside the database cannot be rolled back, so it is counted before anything of it is removed, and the counts
are committed on a second connection: a process may be killed at any point, and the next one would find less. In the
database there is one transaction, with the tombstone and the certificate.
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from sqlalchemy import delete, exists, func, literal, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from uuid_utils.compat import uuid7

from tenantry.jobs.models import OutboxEntry, ScheduleEntry
from tenantry.kernel.errors import ConflictException
from tenantry.platform.audit.models import AuditEntry
from tenantry.platform.audit.service import PROVISIONER, record
from tenantry.platform.deletion.catalog import (
    count_belongings,
    drop_belongings,
    find_belongings,
    leftovers,
    lock_tables,
)
from tenantry.platform.deletion.certificate import sign_certificate
from tenantry.platform.deletion.holdings import count_holdings, remove_files, remove_keys
from tenantry.platform.deletion.models import PurgeCertificate
from tenantry.platform.directory.models import account_directory
from tenantry.platform.provisioning.models import Operation
from tenantry.platform.provisioning.operations import OperationFailed
from tenantry.platform.rollouts.models import RolloutTenant
from tenantry.platform.signup.models import SignUp
from tenantry.platform.tenant_access.models import OperatorAccess
from tenantry.platform.tenants.lifecycle import require_state, transition
from tenantry.platform.tenants.service import tombstone_slug
from tenantry.platform.usage.draining import days_of, write_down

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis.asyncio import Redis
    from sqlalchemy import ColumnElement

    from tenantry.kernel.security.keyring import Keyring
    from tenantry.kernel.storage import Storage
    from tenantry.platform.provisioning.operations import Work
    from tenantry.tenancy.models import Tenant

__all__ = ("INVENTORY", "PurgeHandler", "RemainsError")

INVENTORY = "tenant.purge-inventory"
"""The act that says what there was outside the database before it was removed."""

_LOCK_SECONDS = 15
"""Longer than a request's transaction may last: five seconds a statement, ten between two."""

_log = structlog.get_logger(__name__)


class RemainsError(Exception):
    """Something of the tenant was still there afterwards: nothing is certified, and the purge is tried again."""


class PurgeHandler:
    """Removes a tenant: schema, role, Redis keys, queue, files, and what the control plane knew of it."""

    kind: ClassVar[str] = "purge"

    def __init__(self, *, redis: Redis, storage: Storage, keyring: Keyring, issuer: str) -> None:
        """`keyring` signs the certificates, in the name of `issuer`."""
        self._redis = redis
        self._storage = storage
        self._keyring = keyring
        self._issuer = issuer

    async def run(self, work: Work) -> Mapping[str, Any]:
        # Thousands of files may have to be removed, one by one, while the transaction idles.
        await work.be_patient()
        tenant = await work.tenant()
        try:
            require_state(tenant, "purge")
        except ConflictException as error:
            raise OperationFailed(error.detail) from error
        slug, driver = tenant.slug, work.driver
        belongings = await find_belongings(driver, tenant.schema_name)
        await lock_tables(driver, belongings, seconds=_LOCK_SECONDS)
        await work.step("tables locked")

        uploads = await _uploads(work)
        held = await self._take_inventory(work, uploads)
        await work.step("inventory kept")
        async with AsyncSession(work.engine) as session, session.begin():
            # What it has used is still to be billed, and is kept: numbers, under an id that is nobody's any more.
            await write_down(session, self._redis, days_of(work.tenant_id))
        await remove_keys(self._redis, work.tenant_id)
        await work.step("keys removed")
        await remove_files(self._storage, work.tenant_id, uploads=uploads)
        await work.step("files removed")

        removed = await count_belongings(driver, belongings)
        await drop_belongings(driver, belongings)
        await work.step("schema dropped")
        control_plane = await _scrub(work, tenant)
        await work.step("control plane scrubbed")

        verified = {
            **await leftovers(driver, belongings),
            **await count_holdings(self._redis, self._storage, work.tenant_id, uploads=uploads),
            **await _unscrubbed(work),
        }
        if any(verified.values()):
            left = ", ".join(f"{number} {name}" for name, number in verified.items() if number)
            raise RemainsError(f"still there: {left}")
        certificate = {
            "version": 1,
            "issuer": self._issuer,
            "id": str(uuid7()),
            "tenantId": str(work.tenant_id),
            "slug": slug,
            "requestedBy": work.requested_by,
            "reason": work.payload.get("reason"),
            "requestedAt": work.payload["requested_at"],
            "completedAt": datetime.datetime.now(datetime.UTC).isoformat(),
            "removed": {
                **removed,
                "redis": {"keys": held["redisKeys"]},
                "queues": {"keys": held["queueKeys"]},
                "files": {"objects": held["objects"], "bytes": held["bytes"]},
                "controlPlane": control_plane,
            },
            "verified": verified,
        }
        await self._certify(work, certificate)
        await work.step("certified")
        return {"certificate": certificate["id"]}

    async def give_up(self, work: Work, error: str) -> None:
        """The tenant stays `purging`: nobody is let in, and the end of its grace time asks for the purge again."""
        record(
            work.session,
            actor=PROVISIONER,
            action="tenant.purge-failed",
            tenant_id=work.tenant_id,
            details={"operation": str(work.operation_id)},
        )

    async def _take_inventory(self, work: Work, uploads: Sequence[str]) -> dict[str, int]:
        """What there was outside the database when its removal began, in this attempt or in one before.

        An attempt that was killed half-way has left less, and what it found was written down. The larger number
        counts: next to nothing is added, since the tenant is not served.
        """
        earlier = select(AuditEntry.details).where(
            AuditEntry.tenant_id == work.tenant_id, AuditEntry.action == INVENTORY
        )
        known: dict[str, int] = {}
        for details in await work.session.scalars(earlier):
            known = _larger(known, details["found"])
        found = await count_holdings(self._redis, self._storage, work.tenant_id, uploads=uploads)
        together = _larger(known, found)
        if together != known:
            async with AsyncSession(work.engine) as session, session.begin():
                record(
                    session,
                    actor=PROVISIONER,
                    action=INVENTORY,
                    tenant_id=work.tenant_id,
                    details={"operation": str(work.operation_id), "found": found},
                )
        return together

    async def _certify(self, work: Work, certificate: dict[str, Any]) -> None:
        jws, kid = sign_certificate(certificate, self._keyring)
        work.session.add(
            PurgeCertificate(
                id=certificate["id"],
                tenant_id=work.tenant_id,
                slug=certificate["slug"],
                certificate=certificate,
                jws=jws,
            )
        )
        record(
            work.session,
            actor=PROVISIONER,
            action="tenant.purged",
            tenant_id=work.tenant_id,
            # The trail vouches for the key when the keyring has long forgotten it.
            details={"operation": str(work.operation_id), "certificate": certificate["id"], "kid": kid},
        )
        await work.session.flush()
        _log.info("tenant purged", tenant_id=str(work.tenant_id), certificate=certificate["id"])


def _larger(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {*one, *other}}


def _telling_operations(work: Work) -> ColumnElement[bool]:
    """Other operations of the tenant that still hold what they were given or what they found out."""
    return (
        (Operation.tenant_id == work.tenant_id)
        & (Operation.id != work.operation_id)
        & or_(Operation.payload != {}, func.jsonb_typeof(Operation.result) != "null", Operation.error.is_not(None))
    )


def _telling_rollouts(work: Work) -> ColumnElement[bool]:
    """Rows of rollouts with an error: PostgreSQL quotes the values of rows in its own."""
    return (RolloutTenant.tenant_id == work.tenant_id) & or_(
        RolloutTenant.error.is_not(None), RolloutTenant.statement.is_not(None)
    )


async def _uploads(work: Work) -> list[str]:
    """Keys of archives that the tenant was imported from, unless somebody else is about to be.

    They are removed some time after the import (`ExpiredFiles`), and hold what the tenant began with.
    """
    key = func.coalesce(Operation.payload["key"].astext, Operation.result["key"].astext)
    other = aliased(Operation)
    wanted = exists().where(
        other.kind == "import",
        other.status == "pending",
        other.tenant_id != work.tenant_id,
        other.payload["key"].astext == key,
    )
    found = select(key).where(
        Operation.tenant_id == work.tenant_id, Operation.kind == "import", key.startswith("imports/"), ~wanted
    )
    return sorted({upload for upload in await work.session.scalars(found) if upload is not None})


async def _scrub(work: Work, tenant: Tenant) -> dict[str, int]:
    """Empty what the control plane holds of the tenant, ids and states apart; its row becomes a tombstone."""
    operations = await work.session.scalars(
        update(Operation)
        .where(_telling_operations(work))
        # None would be JSON's null, and that is a result.
        .values(payload={}, result=null(), error=None)
        .returning(Operation.id)
    )
    rollouts = await work.session.scalars(
        update(RolloutTenant)
        .where(_telling_rollouts(work))
        .values(error=None, statement=None)
        .returning(RolloutTenant.id)
    )
    jobs = await work.session.scalars(
        delete(OutboxEntry).where(OutboxEntry.tenant_id == work.tenant_id).returning(OutboxEntry.id)
    )
    schedules = await work.session.scalars(
        delete(ScheduleEntry).where(ScheduleEntry.tenant_id == work.tenant_id).returning(ScheduleEntry.id)
    )
    accounts = await work.session.execute(
        delete(account_directory).where(account_directory.c.tenant_id == work.tenant_id).returning(literal(1))
    )
    sign_ups = await work.session.scalars(delete(SignUp).where(SignUp.tenant_id == work.tenant_id).returning(SignUp.id))
    accesses = await work.session.scalars(
        delete(OperatorAccess).where(OperatorAccess.tenant_id == work.tenant_id).returning(OperatorAccess.id)
    )
    emptied = {
        "operations": len(operations.all()),
        "rolloutTenants": len(rollouts.all()),
        "jobs": len(jobs.all()),
        "schedules": len(schedules.all()),
        "directoryEntries": len(accounts.all()),
        "signUps": len(sign_ups.all()),
        "operatorAccesses": len(accesses.all()),
    }
    transition(tenant, "purge")
    changes = {
        "slug": tombstone_slug(tenant.id),
        "name": "(purged)",
        "owner_email": "",
        "revision": None,
        "archive_key": None,
        "purge_after": None,
    }
    for name, value in changes.items():
        setattr(tenant, name, value)
    await work.session.flush()
    return {**emptied, "tenantFields": len(changes)}


async def _unscrubbed(work: Work) -> dict[str, int]:
    """What the control plane still holds, read back from the database."""
    operations = select(Operation.id).where(_telling_operations(work))
    rollouts = select(RolloutTenant.id).where(_telling_rollouts(work))
    row = await work.driver.fetchrow(
        "SELECT num_nonnulls(revision, archive_key, purge_after, status_before, status_reason)"
        " + (owner_email <> '')::int + (name <> '(purged)')::int + (slug !~ '^purged-[0-9a-f]{32}$')::int AS fields"
        " FROM platform.tenant WHERE id = $1",
        work.tenant_id,
    )
    jobs = select(OutboxEntry.id).where(OutboxEntry.tenant_id == work.tenant_id)
    schedules = select(ScheduleEntry.id).where(ScheduleEntry.tenant_id == work.tenant_id)
    accounts = select(literal(1)).where(account_directory.c.tenant_id == work.tenant_id)
    sign_ups = select(SignUp.id).where(SignUp.tenant_id == work.tenant_id)
    accesses = select(OperatorAccess.id).where(OperatorAccess.tenant_id == work.tenant_id)
    return {
        "jobs": len((await work.session.scalars(jobs)).all()),
        "schedules": len((await work.session.scalars(schedules)).all()),
        "directoryEntries": len((await work.session.scalars(accounts)).all()),
        "signUps": len((await work.session.scalars(sign_ups)).all()),
        "operatorAccesses": len((await work.session.scalars(accesses)).all()),
        "operations": len((await work.session.scalars(operations)).all()),
        "rolloutTenants": len((await work.session.scalars(rollouts)).all()),
        "tenantFields": row["fields"] if row is not None else 0,
    }
