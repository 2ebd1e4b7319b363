"""The organization and its exports. Both are the control plane's, which lets a tenant ask for its own by functions.

The functions take the tenant from the transaction's role, never from an argument (migrations/shared, 0001 and 0002).
"""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import structlog
from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from sqlalchemy import BigInteger, Boolean, Text, Uuid, cast, column, func, select, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.organization.schemas import (
    OrganizationExport,
    OrganizationPlan,
    OrganizationRead,
    TenantPlan,
    TenantSelf,
)
from tenantry.events.record import record_event
from tenantry.kernel.errors import ConflictException, ResourceNotFoundException, define_problem
from tenantry.kernel.schema import Page
from tenantry.tenancy.entitled import read_features, read_limits, read_quotas
from tenantry.tenancy.quotas import read_use, use_quota

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import RowMapping, Select

    from tenantry.kernel.service import ListQuery
    from tenantry.kernel.storage import Storage
    from tenantry.tenancy.context import TenantContext

__all__ = ("EXPORT_PENDING", "EXPORT_UNAVAILABLE", "OrganizationService", "find_file", "provide_organization")

EXPORT_PENDING = define_problem(
    "export-pending",
    409,
    "One at a time",
    "Something that was asked for this organization before, an export most likely, is not finished yet.",
)
EXPORT_UNAVAILABLE = define_problem(
    "export-unavailable",
    409,
    "No file to fetch",
    "The export is still being made, has failed, or has expired; `exportStatus` says which.",
)

_OWN_PLAN = text("SELECT slug, name FROM platform.own_plan()")
_DESCRIBED_PLAN = text("SELECT slug, name, description FROM platform.own_described_plan()")
_REQUEST = text("SELECT platform.request_export(:user_id)")
# Not `render_derived`: a list of column names in the alias would rename the function's columns by their places.
_exports = func.platform.own_exports().table_valued(
    column("id", Uuid),
    column("status", Text),
    column("result", JSONB),
    column("created_at", TIMESTAMP(timezone=True)),
    column("finished_at", TIMESTAMP(timezone=True)),
    name="export",
)
_held = _exports.c.result
STORED = select(func.coalesce(func.sum(cast(_held["bytes"].astext, BigInteger)), 0)).where(
    _exports.c.status == "done",
    ~func.coalesce(cast(_held["removed"].astext, Boolean), False),
    cast(_held["expiresAt"].astext, TIMESTAMP(timezone=True)) > func.now(),
)
"""The bytes of the exports that can be fetched."""
_log = structlog.get_logger(__name__)


class OrganizationService:
    """What an organization may know of itself, on a session in its own scope."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def read(self, tenant: TenantContext) -> OrganizationRead:
        """The organization, its plan read anew: the one that decides."""
        plan = (await self._session.execute(_OWN_PLAN)).one()
        return OrganizationRead(
            id=tenant.id,
            slug=tenant.slug,
            name=tenant.name,
            plan=OrganizationPlan(slug=plan.slug, name=plan.name),
        )

    async def entitlements(self, tenant: TenantContext) -> TenantSelf:
        """What its plan and its own limits grant, as they apply in this process, and how much of it is used."""
        plan = (await self._session.execute(_DESCRIBED_PLAN)).one()
        return TenantSelf(
            id=tenant.id,
            slug=tenant.slug,
            name=tenant.name,
            plan=TenantPlan(slug=plan.slug, name=plan.name, description=plan.description),
            limits=read_limits(tenant.plan),
            features=read_features(tenant.plan),
            quotas=read_quotas(tenant.plan, await read_use(self._session)),
        )

    async def request_export(self, user_id: UUID) -> OrganizationExport:
        """Ask for a copy of all data, without what people sign in with.

        Raises:
            ConflictException: something else that was asked for is not finished yet.
            PermissionDeniedException: the plan has no room for it.
        """
        # How large it will be, nobody knows: there has to be some room left, and one too large is the last.
        await use_quota(self._session, "storage")
        try:
            made: UUID = (await self._session.execute(_REQUEST, {"user_id": user_id})).scalar_one()
        except IntegrityError as error:
            if "uq_operation_tenant_id_pending" not in str(error.orig):
                raise
            raise ConflictException("What was asked for before is not finished yet.", problem=EXPORT_PENDING) from error
        await record_event(self._session, "organization.export_requested", subject=made)
        return await self.export(made)

    async def export(self, export_id: UUID) -> OrganizationExport:
        """One of the organization's own exports.

        Raises:
            ResourceNotFoundException: there is none, or it is another organization's.
        """
        return _read(await self._row(export_id))

    async def export_key(self, tenant: TenantContext, export_id: UUID) -> str:
        """Where the file of a finished export lies in the storage.

        Raises:
            ResourceNotFoundException: there is no such export.
            ConflictException: it has no file.
        """
        row = await self._row(export_id)
        found = _read(row)
        # What the control plane says is checked against what only this tenant's file can be called: the storage knows
        # no tenants, and would give out whatever it is asked for.
        own = f"tenants/{tenant.id}/exports/{export_id}.zip"
        key = (row["result"] or {}).get("key")
        if found.status != "done":
            raise ConflictException("There is no file to fetch.", problem=EXPORT_UNAVAILABLE, exportStatus=found.status)
        if key != own:
            _log.error("an export names a file that is not the organization's own", export=str(export_id))
            raise ResourceNotFoundException("There is no such export.")
        return own

    async def exports(self, listing: ListQuery) -> Page[OrganizationExport]:
        """The exports that the organization's own people have asked for."""
        wanted: Select[Any] = select(_exports)
        if listing.search:
            wanted = wanted.where(_exports.c.status.icontains(listing.search, autoescape=True))
        total = await self._session.scalar(select(func.count()).select_from(wanted.subquery()))
        order = [_exports.c[listing.order_by], _exports.c.id]
        page = (
            wanted.order_by(*(one.desc() if listing.sort_order == "desc" else one.asc() for one in order))
            .limit(listing.page_size)
            .offset((listing.page - 1) * listing.page_size)
        )
        rows = (await self._session.execute(page)).mappings()
        return Page(
            items=[_read(row) for row in rows], total=total or 0, page=listing.page, page_size=listing.page_size
        )

    async def _row(self, export_id: UUID) -> RowMapping:
        row = (await self._session.execute(select(_exports).where(_exports.c.id == export_id))).mappings().one_or_none()
        if row is None:
            raise ResourceNotFoundException("There is no such export.")
        return row


async def find_file(storage: Storage, key: str) -> int:
    """The size in bytes of an export's file. Asks the storage: the caller holds no connection meanwhile.

    Raises:
        ConflictException: it was removed a moment ago.
        StorageUnavailableError: the storage is away.
    """
    info = await storage.head(key)
    if info is None:
        raise ConflictException("There is no file to fetch.", problem=EXPORT_UNAVAILABLE, exportStatus="expired")
    return info.size


def _read(row: RowMapping) -> OrganizationExport:
    result = row["result"] or {}
    expires_at = datetime.datetime.fromisoformat(result["expiresAt"]) if "expiresAt" in result else None
    gone = bool(result.get("removed")) or (expires_at is not None and expires_at <= datetime.datetime.now(datetime.UTC))
    # Why one has failed is for the operators: it may name what lies behind.
    return OrganizationExport(
        id=row["id"],
        status="expired" if gone else row["status"],
        bytes=result.get("bytes"),
        sha256=result.get("sha256"),
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        expires_at=expires_at,
    )


async def _provide(db_session: NamedDependency[SkipValidation[AsyncSession]]) -> OrganizationService:
    return OrganizationService(db_session)


provide_organization = Provide(_provide)
