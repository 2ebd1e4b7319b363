"""Setting second factors up, and taking them away. On the request's session, behind a recent authentication."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Literal

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import undefer_group
from uuid_utils.compat import uuid7

from tenantry.domain.identity.enrolment import read_standing, renew_enrolment
from tenantry.domain.identity.factors import challenges
from tenantry.domain.identity.factors.mails import FACTOR_ADDED_MAIL, FACTOR_REMOVED_MAIL, FACTORS_RESET_MAIL
from tenantry.domain.identity.factors.models import Passkey, RecoveryCode, TotpFactor
from tenantry.domain.identity.factors.problems import (
    PASSKEY_INVALID,
    SECOND_FACTOR_MISSING,
    TOO_MANY_PASSKEYS,
    TOTP_ENROLLED,
    TOTP_NOT_STARTED,
)
from tenantry.domain.identity.factors.proofs import totp_purpose
from tenantry.domain.identity.factors.recovery import new_codes, recovery_digest
from tenantry.domain.identity.factors.relying_party import InvalidPasskey
from tenantry.domain.identity.factors.totp import find_step, new_secret
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.users.models import User
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ClientException,
    ConflictException,
    ResourceNotFoundException,
    ValidationFailedException,
)
from tenantry.kernel.service import Service, create_service_provider

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.domain.identity.factors.relying_party import RelyingParty
    from tenantry.domain.identity.factors.schemas import PasskeyRegistration
    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext

__all__ = ("MOST_PASSKEYS", "FactorService", "provide_factors")

MOST_PASSKEYS = 20
"""Of an account: all of them are named to the browser at every log-in."""


class FactorService(Service[Passkey]):
    """What the people of one organization have besides passwords."""

    class Repo(SQLAlchemyAsyncRepository[Passkey]):
        model_type = Passkey

    repository_type = Repo

    async def totp_of(self, user_id: UUID) -> TotpFactor | None:
        """The user's authenticator app, confirmed or not."""
        found: TotpFactor | None = await self.repository.session.scalar(
            select(TotpFactor).where(TotpFactor.user_id == user_id).options(undefer_group("secret"))
        )
        return found

    async def counts(self, user_id: UUID) -> tuple[int, int]:
        """How many passkeys, and how many recovery codes that were not used, the user has."""
        passkeys = select(func.count()).select_from(Passkey).where(Passkey.user_id == user_id)
        codes = (
            select(func.count())
            .select_from(RecoveryCode)
            .where(RecoveryCode.user_id == user_id, RecoveryCode.used_at.is_(None))
        )
        row = (await self.repository.session.execute(select(passkeys.scalar_subquery(), codes.scalar_subquery()))).one()
        return row[0], row[1]

    async def start_totp(self, user_id: UUID, *, tenant: TenantContext, vault: Vault) -> tuple[bytes, User]:
        """A new secret for an authenticator app, which counts once it is confirmed; one before that was not is gone.

        Raises:
            ConflictException: there is a confirmed one.
        """
        session = self.repository.session
        user = await self._lock(user_id)
        factor = await self.totp_of(user_id)
        if factor is not None and factor.confirmed_at is not None:
            raise ConflictException("There is an authenticator app already.", problem=TOTP_ENROLLED)
        if factor is not None:
            await session.delete(factor)
            await session.flush()
        secret, factor_id = new_secret(), uuid7()
        sealed = vault.seal(secret, purpose=totp_purpose(tenant.id), owner=factor_id)
        session.add(TotpFactor(id=factor_id, user_id=user_id, secret=sealed))
        await session.flush()
        return secret, user

    async def confirm_totp(
        self, user_id: UUID, code: str, *, tenant: TenantContext, vault: Vault, settings: Settings, now: float
    ) -> list[str]:
        """Let the app count, since it has shown a right code; recovery codes, where there are none from before.

        Raises:
            ConflictException: there is nothing to confirm.
            ValidationFailedException: the code is wrong.
        """
        await self._lock(user_id)
        factor = await self.totp_of(user_id)
        if factor is None or factor.confirmed_at is not None:
            raise ConflictException("There is nothing to confirm.", problem=TOTP_NOT_STARTED)
        secret = vault.unseal(factor.secret, purpose=totp_purpose(tenant.id), owner=factor.id)
        step = find_step(secret, code, now=now, last=None)
        if step is None:
            raise ValidationFailedException.of(
                "code", "Expected the code that the app shows; is the device's clock right?"
            )
        factor.confirmed_at = datetime.datetime.now(datetime.UTC)
        # The code has been shown: it is not good for a log-in any more.
        factor.last_step = step
        await self.flush()
        return await self._added(user_id, "totp", settings)

    async def remove_totp(self, user_id: UUID, *, settings: Settings) -> None:
        """Take the authenticator app away.

        Raises:
            ResourceNotFoundException: there is none.
        """
        await self._lock(user_id)
        factor = await self.totp_of(user_id)
        if factor is None:
            raise ResourceNotFoundException("There is no authenticator app.")
        await self.repository.session.delete(factor)
        await self.flush()
        if factor.confirmed_at is not None:
            await self._removed(user_id, "totp", settings)

    async def registration(
        self, user_id: UUID, session_id: UUID, *, tenant: TenantContext, party: RelyingParty, ttl: int
    ) -> tuple[str, dict[str, Any]]:
        """Begin to register a passkey: the challenge's name, and what the browser is to be told.

        Raises:
            ConflictException: there are `MOST_PASSKEYS`.
        """
        session = self.repository.session
        user = await self._lock(user_id)
        known = await self._passkeys(user_id)
        token, begun = await challenges.begin(
            session, tenant, kind="register", user_id=user_id, session_id=session_id, ttl=ttl
        )
        return token, party.registration(
            tenant, user_id=user_id, email=user.email, name=user.name, challenge=begun.webauthn_challenge, known=known
        )

    async def register(
        self,
        user_id: UUID,
        session_id: UUID,
        *,
        token: str,
        name: str,
        registration: PasskeyRegistration,
        tenant: TenantContext,
        party: RelyingParty,
        settings: Settings,
    ) -> tuple[Passkey, list[str]]:
        """Keep the passkey that the browser has made; recovery codes, where there are none from before.

        Raises:
            ClientException: it does not answer the challenge, or there is no such challenge.
            ConflictException: there are `MOST_PASSKEYS`.
            advanced_alchemy.exceptions.DuplicateKeyError: it is registered already.
        """
        await self._lock(user_id)
        await self._passkeys(user_id)
        begun = await challenges.take(self.repository.session, tenant, token, kind="register", session_id=session_id)
        if begun is None or begun.user_id != user_id:
            raise ClientException("There is no such challenge.", problem=PASSKEY_INVALID)
        try:
            made = party.verify_registration(tenant, registration.as_credential(), challenge=begun.webauthn_challenge)
        except InvalidPasskey as error:
            raise ClientException("The passkey cannot be taken.", problem=PASSKEY_INVALID) from error
        passkey = await self.create(
            Passkey(
                user_id=user_id,
                credential_id=made.credential_id,
                public_key=made.public_key,
                sign_count=made.sign_count,
                is_backed_up=made.is_backed_up,
                name=name,
                transports=registration.response.transports,
            )
        )
        return passkey, await self._added(user_id, "passkey", settings)

    async def own(self, user_id: UUID, passkey_id: UUID) -> Passkey:
        """A passkey of the user's.

        Raises:
            ResourceNotFoundException: there is none, or it is somebody else's.
        """
        found: Passkey | None = await self.repository.session.scalar(
            select(Passkey).where(Passkey.id == passkey_id, Passkey.user_id == user_id)
        )
        if found is None:
            raise ResourceNotFoundException("There is no such passkey.")
        return found

    async def rename(self, user_id: UUID, passkey_id: UUID, changes: dict[str, Any]) -> Passkey:
        """Raises ResourceNotFoundException where it is not the user's."""
        passkey = await self.own(user_id, passkey_id)
        passkey.name = changes.get("name", passkey.name)
        await self.flush()
        return passkey

    async def remove_passkey(self, user_id: UUID, passkey_id: UUID, *, settings: Settings) -> None:
        """Raises ResourceNotFoundException where it is not the user's."""
        await self._lock(user_id)
        await self.repository.session.delete(await self.own(user_id, passkey_id))
        await self.flush()
        await self._removed(user_id, "passkey", settings)

    async def renew_recovery_codes(self, user_id: UUID) -> list[str]:
        """Ten new codes; those before are worth nothing from now on.

        Raises:
            ConflictException: there is no second factor that they could stand in for.
        """
        session = self.repository.session
        await self._lock(user_id)
        has_factor, _ = await read_standing(session, user_id)
        if not has_factor:
            raise ConflictException("There is no second factor.", problem=SECOND_FACTOR_MISSING)
        await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
        codes = await self._make_codes(user_id)
        await record_event(session, "second_factor.recovery_codes_made", subject=user_id)
        return codes

    async def reset(self, user_id: UUID, *, settings: Settings) -> None:
        """Take all of a person's factors away, who has lost them, and end their sessions; nothing, if there are none.

        Whether the caller may, the caller has seen to.
        """
        session = self.repository.session
        await self._lock(user_id)
        has_factor, _ = await read_standing(session, user_id)
        for model in (TotpFactor, Passkey, RecoveryCode):
            await session.execute(delete(model).where(model.user_id == user_id))
        if not has_factor:
            return
        # Whoever has lost a phone may have lost it to somebody.
        await session.execute(
            update(UserSession)
            .where(UserSession.user_id == user_id, UserSession.revoked_at.is_(None))
            .values(revoked_at=func.now())
        )
        await record_event(session, "second_factor.reset", subject=user_id)
        if settings.mail_url is not None:
            await FACTORS_RESET_MAIL.send(session, about=user_id)

    async def _added(self, user_id: UUID, kind: Literal["totp", "passkey"], settings: Settings) -> list[str]:
        session = self.repository.session
        await renew_enrolment(session, user_id)
        await record_event(session, "second_factor.added", subject=user_id, payload={"kind": kind})
        if settings.mail_url is not None:
            await FACTOR_ADDED_MAIL.send(session, about=user_id)
        _, left = await self.counts(user_id)
        return [] if left else await self._make_codes(user_id)

    async def _removed(self, user_id: UUID, kind: Literal["totp", "passkey"], settings: Settings) -> None:
        session = self.repository.session
        has_factor, _ = await read_standing(session, user_id)
        if not has_factor:
            # They stand in for a factor, and are none.
            await session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))
            await renew_enrolment(session, user_id)
        await record_event(session, "second_factor.removed", subject=user_id, payload={"kind": kind})
        if settings.mail_url is not None:
            await FACTOR_REMOVED_MAIL.send(session, about=user_id)

    async def _make_codes(self, user_id: UUID) -> list[str]:
        session = self.repository.session
        codes = new_codes()
        session.add_all(RecoveryCode(user_id=user_id, digest=recovery_digest(user_id, code)) for code in codes)
        await session.flush()
        return codes

    async def _passkeys(self, user_id: UUID) -> list[Passkey]:
        known = list(
            await self.repository.session.scalars(
                select(Passkey).where(Passkey.user_id == user_id).order_by(Passkey.id)
            )
        )
        if len(known) >= MOST_PASSKEYS:
            raise ConflictException(
                f"There are {MOST_PASSKEYS} passkeys already.", problem=TOO_MANY_PASSKEYS, allowed=MOST_PASSKEYS
            )
        return known

    async def _lock(self, user_id: UUID) -> User:
        # The account's row is the lock of all that it has: what two ask for at once is done one after the other.
        user: User | None = await self.repository.session.scalar(
            select(User).where(User.id == user_id).with_for_update(key_share=True)
        )
        if user is None:
            raise ResourceNotFoundException("There is no such user.")
        return user


provide_factors = create_service_provider(
    FactorService,
    error_messages={
        "duplicate_key": "This passkey is registered already.",
        "integrity": "The passkey cannot be taken.",
        "not_found": "There is no such passkey.",
    },
)
