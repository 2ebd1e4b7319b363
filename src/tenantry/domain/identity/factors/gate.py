"""What stands between a right password and a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from tenantry.domain.identity.factors.challenges import begin, evidence_of
from tenantry.domain.identity.factors.models import Passkey
from tenantry.domain.identity.factors.problems import SECOND_FACTOR_REQUIRED
from tenantry.domain.identity.step_up import step_up_methods
from tenantry.domain.identity.users.models import User
from tenantry.kernel.errors import NotAuthenticatedException

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.factors.relying_party import RelyingParty
    from tenantry.tenancy.context import TenantContext

__all__ = ("FactorGate",)


class FactorGate:
    """Asks for the second factor of accounts that have one."""

    def __init__(self, party: RelyingParty, *, ttl: int) -> None:
        self._party = party
        self._ttl = ttl

    async def challenge(
        self, session: AsyncSession, tenant: TenantContext, user_id: UUID
    ) -> NotAuthenticatedException | None:
        """The refusal that asks for the account's second factor, or None where it has none.

        It is an error and no answer of another form: a client that knows nothing of second factors would take that for
        a log-in.
        """
        methods = await step_up_methods(session, user_id)
        if not {"code", "passkey"}.intersection(methods):
            return None
        password = await session.scalar(select(User.hashed_password).where(User.id == user_id))
        token, begun = await begin(
            session, tenant, kind="log_in", user_id=user_id, ttl=self._ttl, evidence=evidence_of(password)
        )
        public_key: dict[str, Any] | None = None
        if "passkey" in methods:
            known = await session.scalars(select(Passkey).where(Passkey.user_id == user_id).order_by(Passkey.id))
            public_key = self._party.authentication(challenge=begun.webauthn_challenge, known=known)
        return NotAuthenticatedException(
            "The account's second factor is needed.",
            problem=SECOND_FACTOR_REQUIRED,
            challenge=token,
            methods=methods,
            expiresIn=self._ttl,
            publicKey=public_key,
        )
