"""The directory of accounts: who may ask it what, and putting it right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter
from sqlalchemy import func, select

from tenantry.kernel.schema import normalize_email
from tenantry.mail.definition import require_mail
from tenantry.platform.directory.mails import ORGANIZATIONS_MAIL
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.platform.strangers.service import Brake
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("Organizations", "repair")

_BATCH = 20
"""Tenants that are put right in one transaction."""

_log = structlog.get_logger(__name__)

_repaired = Counter(
    "tenantry_account_directory_repaired", "Entries of the directory of accounts that were missing or left over."
)


class Organizations:
    """Mails people the list of their organizations."""

    def __init__(
        self, *, database: Database, write_scope: Scope, settings: Settings, vault: Vault, brake: Brake
    ) -> None:
        self._database = database
        self._write_scope = write_scope
        self._settings = settings
        self._vault = vault
        self._brake = brake

    async def request(self, email: str, *, client: str | None) -> None:
        """Have somebody mailed where they have accounts, if they have any. Who asks is not told.

        Whether there are any is looked up when the mail is sent: until then the same is done for every address. The
        address waits sealed, as the secrets of other mails do, and nowhere else.

        Args:
            client: who asks, for the brake.

        Raises:
            ValidationFailedException: it is no address at all.
            UnavailableException: no mail is sent here.
            TooManyRequestsException: enough was asked for.
        """
        require_mail(self._settings)
        email = normalize_email(email)
        await self._brake.check(email, client)
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            request_id = await self._brake.note(session, email, client)
            await ORGANIZATIONS_MAIL.send(session, about=request_id, secret=email, vault=self._vault)


async def repair(
    begin: Callable[[], AbstractAsyncContextManager[AsyncSession]],
    *,
    slugs: Iterable[str] = (),
    told: Callable[[int, int], Awaitable[None]] | None = None,
) -> int:
    """Make the entries of tenants those of their accounts; how many were missing or left over.

    Args:
        begin: a transaction in the control plane's scope, committed at the end of its block.
        slugs: of those tenants alone; all by default.
        told: is called with how many tenants are done, and of how many.
    """
    wanted = tuple(slugs)
    async with begin() as session:
        tenants = select(Tenant.id).order_by(Tenant.id)
        ids = list(await session.scalars(tenants.where(Tenant.slug.in_(wanted)) if wanted else tenants))
    changed = 0
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        async with begin() as session:
            changed += await _repair_some(session, batch)
        if told is not None:
            await told(start + len(batch), len(ids))
    return changed


async def _repair_some(session: AsyncSession, tenant_ids: list[UUID]) -> int:
    changed = 0
    for tenant_id in tenant_ids:
        count: int = await session.scalar(select(func.platform.repair_account_directory(tenant_id))) or 0
        if count:
            _log.warning("the directory of accounts was put right", tenant_id=str(tenant_id), entries=count)
        changed += count
    _repaired.inc(changed)
    return changed
