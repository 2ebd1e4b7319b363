"""How an operator comes into an organization: one transaction that begins in the control plane and ends in its schema.

What the control plane lists and its trail says, what the organization lists and its trail says, and the mails to its
owners are committed together, or nothing is; the token is made after that.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, select
from uuid_utils.compat import uuid7

from tenantry.kernel.errors import (
    ConflictException,
    NotAuthenticatedException,
    PermissionDeniedException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.security import AUDIENCE_OPERATOR_ACCESS, Tokens
from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.access import OPERATOR_PERMISSIONS
from tenantry.platform.audit.service import record
from tenantry.platform.operators.models import Operator
from tenantry.platform.tenant_access.models import OperatorAccess
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.operators import Visit, Visitor
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.revisions import revisions

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import ScopeTimes
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.models import Tenant
    from tenantry.tenancy.operators import Admitted, Asked, Door
    from tenantry.tenancy.scope import Scope

__all__ = (
    "BREAK_GLASS",
    "OPEN",
    "TENANT_NOT_SERVED",
    "Opened",
    "OperatorAccessService",
    "TenantAccess",
    "provide_operator_access",
)

OPEN = "access:open"
BREAK_GLASS = "access:break-glass"

_SHELL_SECONDS = 86_400
"""For which a shell whose end nobody could write down is shown as open."""
_LISTED_SINCE = "0016"
"""The tenants' revision with the tables of operators' access."""

TENANT_NOT_SERVED = define_problem(
    "tenant-not-served",
    409,
    "The organization is not served",
    "Operators come into an organization by its own routes, and this one's answer nobody now: `tenantStatus` says why. "
    "Resume it or migrate it first.",
)


class OperatorAccessService(Service[OperatorAccess]):
    """The control plane's list."""

    class Repo(SQLAlchemyAsyncRepository[OperatorAccess]):
        model_type = OperatorAccess

    repository_type = Repo


@dataclass(frozen=True, slots=True)
class Opened:
    """Being in, with the token for it."""

    id: UUID
    tenant: Tenant
    token: str
    seconds: int
    expires_at: datetime.datetime


class TenantAccess:
    """Its transactions are its own: a request that calls it holds none. `tokens` is asked for when one is issued."""

    def __init__(
        self,
        *,
        database: Database,
        read_scope: Scope,
        write_scope: Scope,
        times: ScopeTimes,
        settings: Settings,
        tokens: Callable[[], Tokens],
        door: Door,
    ) -> None:
        self._database = database
        self._read_scope = read_scope
        self._write_scope = write_scope
        self._times = times
        self._settings = settings
        self._tokens = tokens
        self._door = door

    async def open(
        self,
        slug: str,
        *,
        operator_id: UUID,
        actor: str,
        reason: str,
        can_write: bool = False,
        break_glass: bool = False,
        minutes: int | None = None,
    ) -> Opened:
        """Let an operator into an organization whose owners have granted it, or break the glass.

        Raises:
            ResourceNotFoundException: there is no such tenant, or no such operator.
            ValidationFailedException: for longer than the deployment allows.
            PermissionDeniedException: the operator's role does not permit it, or no owner has granted it.
            ConflictException: the organization is not served.
        """
        seconds = self._seconds(minutes, break_glass=break_glass)
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenant, context = await self._served(session, slug)
            operator = await _operator(session, operator_id, BREAK_GLASS if break_glass else OPEN)
            made = OperatorAccess(
                id=uuid7(),
                tenant_id=tenant.id,
                operator_id=operator.id,
                operator_role=operator.role,
                can_write=can_write,
                is_break_glass=break_glass,
                reason=reason,
                expires_at=await _now(session) + datetime.timedelta(seconds=seconds),
            )
            session.add(made)
            record(
                session,
                actor=actor,
                action="access.break_glass" if break_glass else "access.open",
                tenant_id=tenant.id,
                target=str(made.id),
                reason=reason,
                details={"operatorId": str(operator.id), "access": made.access, "seconds": seconds},
            )
            visit = Visit(
                id=made.id,
                visitor=_visitor(operator),
                reason=reason,
                seconds=seconds,
                can_write=can_write,
                break_glass=break_glass,
            )
            await transaction.descend(context.write_scope)
            admitted = await self._door.open(transaction.session, visit)
        left = self._left(admitted, seconds)
        token, _ = self._tokens().issue(
            audience=AUDIENCE_OPERATOR_ACCESS,
            sub=operator_id,
            tid=tenant.id,
            sid=visit.id,
            ttl=left,
            opr="write" if can_write else "read",
        )
        return Opened(visit.id, tenant, token, left, admitted.expires_at)

    async def close(self, slug: str, access_id: UUID, *, actor: str, operator_id: UUID | None) -> None:
        """End it, on both sides; nothing happens where it is over.

        Args:
            slug: the tenant's.
            access_id: which.
            actor: for the control plane's trail.
            operator_id: who ends it, for the organization's; None at the command line.

        Raises:
            ResourceNotFoundException: there is no such tenant, or nobody is or was in it under this id.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenant = await TenantService(session=session).by_slug(slug)
            found = await session.scalar(
                select(OperatorAccess)
                .where(OperatorAccess.id == access_id, OperatorAccess.tenant_id == tenant.id)
                .with_for_update()
            )
            if found is None:
                raise ResourceNotFoundException("Nobody was let into this organization under this id.")
            if not found.is_open:
                return
            found.closed_at = await _now(session)
            record(session, actor=actor, action="access.close", tenant_id=tenant.id, target=str(access_id))
            if tenant.revision is None:
                return  # archived meanwhile: there is nothing to be in
            await transaction.descend(self._context(tenant).write_scope)
            await self._door.close(transaction.session, access_id, Visitor(name="", id=operator_id))

    async def enter_shell(
        self, slug: str, *, actor: str, reason: str, can_write: bool, break_glass: bool
    ) -> tuple[TenantContext, UUID | None]:
        """Write down, on both sides, that somebody at the command line goes into an organization's schema.

        They hold the application's address and could do so without us: this is for those who do it properly. By a
        grant to any operator, or with the glass broken; to read, unless they say otherwise.

        Returns:
            The tenant's scopes, and the id under which the organization lists it: None where its schema is older than
            the table, so that the control plane's trail alone has it.

        Raises:
            ResourceNotFoundException: there is no such tenant.
            PermissionDeniedException: no owner has granted it to any operator, and it is no break-glass.
            ConflictException: there is no schema to go into.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenant = await TenantService(session=session).by_slug(slug)
            if tenant.revision is None:
                raise ConflictException(
                    "The organization has no schema.", problem=TENANT_NOT_SERVED, tenantStatus=tenant.status
                )
            visit = Visit(
                id=uuid7(),
                visitor=Visitor(name=actor),
                reason=reason,
                seconds=_SHELL_SECONDS,
                can_write=can_write,
                break_glass=break_glass,
                way="shell",
            )
            record(
                session,
                actor=actor,
                action="access.shell",
                tenant_id=tenant.id,
                target=str(visit.id),
                reason=reason,
                details={"access": "write" if can_write else "read", "breakGlass": break_glass},
            )
            context = self._context(tenant)
            if not _has_list(tenant.revision):
                if not break_glass:
                    raise PermissionDeniedException(
                        f"At revision {tenant.revision} its owners cannot grant it, or be told: break the glass."
                    )
                return context, None
            await transaction.descend(context.write_scope)
            await self._door.open(transaction.session, visit)
        return context, visit.id

    async def leave_shell(self, slug: str, visit_id: UUID, *, actor: str) -> None:
        """Write down that they have left.

        Raises:
            ResourceNotFoundException: there is no such tenant any more.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenant = await TenantService(session=session).by_slug(slug)
            record(session, actor=actor, action="access.close", tenant_id=tenant.id, target=str(visit_id))
            if tenant.revision is None:
                return
            await transaction.descend(self._context(tenant).write_scope)
            await self._door.close(transaction.session, visit_id, Visitor(name=actor))

    async def ask(
        self, slug: str, *, operator_id: UUID, actor: str, reason: str, can_write: bool = False, hours: int = 24
    ) -> UUID:
        """Ask the organization's owners for access; the request's id.

        Raises:
            ResourceNotFoundException: there is no such tenant, or no such operator.
            PermissionDeniedException: the operator's role does not permit it.
            ConflictException: the organization is not served, or was asked and has not answered.
        """
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            tenant, context = await self._served(session, slug)
            operator = await _operator(session, operator_id, OPEN)
            record(
                session,
                actor=actor,
                action="access.ask",
                tenant_id=tenant.id,
                target=str(operator.id),
                reason=reason,
                details={"access": "write" if can_write else "read", "hours": hours},
            )
            visitor = _visitor(operator)
            await transaction.descend(context.write_scope)
            return await self._door.ask(transaction.session, visitor, reason=reason, can_write=can_write, hours=hours)

    async def asked(self, slug: str) -> list[Asked]:
        """What the organization's owners were asked last, and have answered.

        Raises:
            ResourceNotFoundException: there is no such tenant.
            ConflictException: the organization is not served.
        """
        async with self._database.transaction(self._read_scope) as transaction:
            _, context = await self._served(transaction.session, slug)
        async with self._database.transaction(context.read_scope.with_times_of(self._read_scope)) as transaction:
            return await self._door.asked(transaction.session)

    async def _served(self, session: AsyncSession, slug: str) -> tuple[Tenant, TenantContext]:
        tenant = await TenantService(session=session).by_slug(slug)
        if tenant.status != "active":
            raise ConflictException(
                f"The organization is {tenant.status}.", problem=TENANT_NOT_SERVED, tenantStatus=tenant.status
            )
        return tenant, self._context(tenant)

    def _context(self, tenant: Tenant) -> TenantContext:
        return TenantContext.build(
            tenant_id=tenant.id,
            slug=tenant.slug,
            name=tenant.name,
            status=tenant.status,
            plan=PlanLimits(slug=tenant.plan),
            times=self._times,
            revision=tenant.revision,
        )

    def _seconds(self, minutes: int | None, *, break_glass: bool) -> int:
        most = self._settings.break_glass_ttl if break_glass else self._settings.operator_access_ttl
        if minutes is None:
            return most
        if minutes * 60 > most:
            raise ValidationFailedException.of("minutes", f"At most {most // 60} in this deployment.")
        return minutes * 60

    @staticmethod
    def _left(admitted: Admitted, seconds: int) -> int:
        until = (admitted.expires_at - datetime.datetime.now(datetime.UTC)).total_seconds()
        return max(1, min(seconds, int(until)))


async def _operator(session: AsyncSession, operator_id: UUID, permission: str) -> Operator:
    """The operator, who stays what they are until the transaction is over."""
    found = await session.scalar(
        select(Operator).where(Operator.id == operator_id, Operator.is_active).with_for_update(read=True)
    )
    if found is None:
        raise NotAuthenticatedException("There is no such operator any more.")
    if permission not in OPERATOR_PERMISSIONS[found.role]:
        raise PermissionDeniedException(f"The permission {permission!r} is needed.", permission=permission)
    return found


def _has_list(revision: str) -> bool:
    line = [each.id for each in revisions("tenant")]
    return revision in line[line.index(_LISTED_SINCE) :]


def _visitor(operator: Operator) -> Visitor:
    """As the organization is to know them: by name, and never by address."""
    return Visitor(name=operator.name or "An operator", id=operator.id, email=operator.email)


async def _now(session: AsyncSession) -> datetime.datetime:
    moment: datetime.datetime = (await session.execute(select(func.now()))).scalar_one()
    return moment


provide_operator_access = create_service_provider(OperatorAccessService)
