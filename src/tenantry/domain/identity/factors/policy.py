"""What the organization asks of everybody: a second factor, by when."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from sqlalchemy import exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenantry.domain.identity.enrolment import renew_enrolment
from tenantry.domain.identity.factors.models import GRACE_DAYS, Passkey, SecurityPolicy, TotpFactor
from tenantry.domain.identity.factors.schemas import SecurityRead
from tenantry.domain.identity.users.models import User
from tenantry.events.record import record_event

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ("SecurityService", "provide_security")


class SecurityService:
    """The organization's rules, on a session in its own scope."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def read(self) -> SecurityRead:
        """What is asked for, and of how many it is still wanted."""
        policy = await self._session.scalar(select(SecurityPolicy))
        has_app = exists().where(TotpFactor.user_id == User.id, TotpFactor.confirmed_at.is_not(None))
        has_passkey = exists().where(Passkey.user_id == User.id)
        without = await self._session.scalar(
            select(func.count()).select_from(User).where(User.is_active, ~has_app, ~has_passkey)
        )
        return _read(policy or SecurityPolicy(grace_days=GRACE_DAYS, required_since=None), without or 0)

    async def change(self, changes: dict[str, Any], *, tenant_id: UUID) -> SecurityRead:
        """Change what is in `changes`. It counts with everybody's next request."""
        session = self._session
        # Of two who are the first, one waits for the other here.
        await session.execute(
            insert(SecurityPolicy)
            .values(id=uuid7(), is_only=True, grace_days=GRACE_DAYS)
            .on_conflict_do_nothing(index_elements=["is_only"])
        )
        policy = (await session.execute(select(SecurityPolicy).with_for_update())).scalar_one()
        before = (policy.required_since is not None, policy.grace_days)
        policy.grace_days = changes.get("grace_days", policy.grace_days)
        required = changes.get("second_factor_required", before[0])
        if required and policy.required_since is None:
            policy.required_since = datetime.datetime.now(datetime.UTC)
        elif not required:
            policy.required_since = None
        await session.flush()
        if (required, policy.grace_days) != before:
            await renew_enrolment(session)
            await record_event(
                session,
                "organization.security_changed",
                subject=tenant_id,
                payload={"second_factor_required": required, "grace_days": policy.grace_days},
            )
        return await self.read()


def _read(policy: SecurityPolicy, without: int) -> SecurityRead:
    return SecurityRead(
        second_factor_required=policy.required_since is not None,
        required_since=policy.required_since,
        grace_days=policy.grace_days,
        without_second_factor=without,
    )


async def _provide(db_session: NamedDependency[SkipValidation[AsyncSession]]) -> SecurityService:
    return SecurityService(db_session)


provide_security = Provide(_provide)
