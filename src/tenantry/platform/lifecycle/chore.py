"""Files that nobody needs any more: expired exports, archives that were restored, uploads that were imported."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import structlog
from sqlalchemy import DateTime, and_, cast, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tenantry.platform.deletion.holdings import tenant_folder
from tenantry.platform.lifecycle.files import IMPORTS, archive_key, export_key
from tenantry.platform.provisioning.models import Operation
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.kernel.storage import Storage

__all__ = ("ExpiredFiles",)

_log = structlog.get_logger(__name__)


class ExpiredFiles:
    """Removes what operations have left in the storage, each once its operation has committed."""

    name: ClassVar[str] = "files that have expired"

    def __init__(self, *, storage: Storage, upload_ttl: int, interval: float = 30.0) -> None:
        """Uploads that nobody has imported are kept for `upload_ttl` seconds."""
        self.interval = interval
        self._storage = storage
        self._upload_ttl = datetime.timedelta(seconds=upload_ttl)

    async def run(self, engine: AsyncEngine) -> bool:
        """Remove one file, if one is due; several provisioners pass by each other's."""
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            operation = await session.scalar(_due())
            if operation is not None:
                key = _file_of(operation)
                await self._remove(session, operation, key)
                # Assigned anew: a change inside would not be noticed.
                operation.result = {**(operation.result or {}), "removed": True}
                return True
            waiting = set(
                await session.scalars(
                    select(Operation.payload["key"].astext).where(
                        Operation.kind == "import", Operation.status == "pending"
                    )
                )
            )
        await self._sweep_uploads(waiting)
        return False

    async def _remove(self, session: AsyncSession, operation: Operation, key: str | None) -> None:
        if key is None or not key.startswith((f"{tenant_folder(operation.tenant_id)}/", f"{IMPORTS}/")):
            return
        if await session.scalar(select(exists().where(Tenant.archive_key == key))):
            # It cannot be: an archive has the name of the operation that made it. But it is all that they have.
            _log.error("an archive that is in use was about to be removed", key=key)
            return
        # Before the commit: killed in between, it is removed again.
        await self._storage.delete(key)

    async def _sweep_uploads(self, waiting: set[str]) -> None:
        """Remove uploads that are too old, whatever became of who uploaded them."""
        oldest = datetime.datetime.now(datetime.UTC) - self._upload_ttl
        keys = [info.key async for info in self._storage.list(IMPORTS) if info.modified < oldest]
        for key in keys:
            if key not in waiting:
                await self._storage.delete(key)


def _due() -> Any:
    """The next operation whose file is not needed any more."""
    result = Operation.result
    expired: ColumnElement[bool] = and_(
        Operation.kind == "export",
        Operation.status == "done",
        cast(result["expiresAt"].astext, DateTime(timezone=True)) <= func.now(),
    )
    # An upload may be imported twice, as two tenants: it is needed until the last one has it.
    other = aliased(Operation)
    wanted = exists().where(
        other.kind == "import", other.status == "pending", other.payload["key"].astext == result["key"].astext
    )
    used = and_(
        Operation.status == "done",
        or_(
            and_(Operation.kind == "restore", result["archive"].astext.is_not(None)),
            and_(Operation.kind == "import", result["key"].astext.is_not(None), ~wanted),
        ),
    )
    # Its own attempt at removing it may have found the storage away.
    failed = and_(Operation.kind.in_(("archive", "export")), Operation.status == "failed")
    alive = exists().where(Tenant.id == Operation.tenant_id, Tenant.status != "purged")
    return (
        select(Operation)
        .where(or_(expired, used, failed), result["removed"].astext.is_(None), alive)
        .order_by(Operation.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def _file_of(operation: Operation) -> str | None:
    result = operation.result or {}
    match operation.kind:
        case "restore":
            key: str | None = result.get("archive")
        case "import":
            key = result.get("key")
        case "archive":
            key = archive_key(operation.tenant_id, operation.id)
        case _:
            key = export_key(operation.tenant_id, operation.id)
    return key
