"""API keys of one organization."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import undefer_group

from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.domain.identity.service_accounts.models import ServiceAccount
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    PermissionDeniedException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.security import API_KEY, Credential
from tenantry.kernel.service import Service, create_service_provider
from tenantry.tenancy.quotas import use_quota

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.events.definition import RecordedEvent

__all__ = (
    "API_KEY_ENDED",
    "LONGEST",
    "MOST_API_KEYS",
    "TOO_MANY_API_KEYS",
    "ApiKeyService",
    "KeyOwner",
    "check_scopes",
    "is_good",
    "provide_api_keys",
    "revoke_with_their_user",
)

LONGEST = datetime.timedelta(days=5 * 366)
"""For which a key that expires may be good."""
MOST_API_KEYS = 50
"""Good ones of one owner: a bound for lists, and for whoever makes keys in a loop."""

TOO_MANY_API_KEYS = define_problem(
    "too-many-api-keys",
    409,
    "Too many API keys",
    "A user or service account has so many API keys at most (`allowed`). Revoke one that is not needed any more.",
)
API_KEY_ENDED = define_problem(
    "api-key-ended", 409, "The API key has ended", "It was revoked or has expired, and stays so. Make another one."
)


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whose key it is: exactly one of the two is set."""

    user_id: UUID | None = None
    service_account_id: UUID | None = None

    def condition(self) -> ColumnElement[bool]:
        """Of the rows that are this owner's."""
        if self.user_id is not None:
            return ApiKey.user_id == self.user_id
        return ApiKey.service_account_id == self.service_account_id


class ApiKeyService(Service[ApiKey]):
    """Makes, rotates and revokes keys. What a key may do is asked in each request: `api_keys.principal`."""

    class Repo(SQLAlchemyAsyncRepository[ApiKey]):
        model_type = ApiKey

    repository_type = Repo

    async def issue(
        self,
        owner: KeyOwner,
        *,
        tenant_id: UUID,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime.datetime | None,
        created_by_id: UUID,
    ) -> tuple[ApiKey, str]:
        """A new key, and its text, which nobody can read again.

        Raises:
            ValidationFailedException: it expires in the past, or in more than `LONGEST`.
            ConflictException: the owner has `MOST_API_KEYS`.
            PermissionDeniedException: the plan allows no more of them.
        """
        now = datetime.datetime.now(datetime.UTC)
        if expires_at is not None and not now < expires_at <= now + LONGEST:
            raise ValidationFailedException.of("expiresAt", "Expected a moment in the future, within five years.")
        if await self.count(owner.condition(), is_good()) >= MOST_API_KEYS:
            raise ConflictException(
                f"There are {MOST_API_KEYS} good keys already.", problem=TOO_MANY_API_KEYS, allowed=MOST_API_KEYS
            )
        await use_quota(self.repository.session, "api_keys")
        text, digest = Credential.new(API_KEY, tenant_id)
        key = await self.create(
            ApiKey(
                user_id=owner.user_id,
                service_account_id=owner.service_account_id,
                name=name,
                scopes=sorted(set(scopes)),
                digest=digest,
                hint=text[-4:],
                expires_at=expires_at,
                created_by_id=created_by_id,
            )
        )
        await _record(self.repository.session, "api_key.created", key)
        return key, text

    async def owned(self, owner: KeyOwner, key_id: UUID) -> ApiKey:
        """One of the owner's keys.

        Raises:
            ResourceNotFoundException: there is none, or it is somebody else's.
        """
        return await self._one(ApiKey.id == key_id, owner.condition())

    async def rotate(
        self, owner: KeyOwner, key_id: UUID, *, tenant_id: UUID, overlap: int, lacked: frozenset[str] = frozenset()
    ) -> tuple[ApiKey, str]:
        """Give a key a new secret; the one before is good for `overlap` seconds more, the one before that no longer.

        `lacked` are permissions that whoever asks does not have, where the key is not their own: they get none of them.

        Raises:
            ResourceNotFoundException: there is no such key, or it is somebody else's.
            ConflictException: it was revoked or has expired.
            PermissionDeniedException: one of its scopes is among `lacked`.
        """
        key = await self._one(ApiKey.id == key_id, owner.condition(), lock=True)
        now = datetime.datetime.now(datetime.UTC)
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            raise ConflictException("The key was revoked or has expired.", problem=API_KEY_ENDED)
        if lacked.intersection(key.scopes):
            raise PermissionDeniedException("The key's scopes permit more than you may do yourself.")
        text, digest = Credential.new(API_KEY, tenant_id)
        key.previous_digest = key.digest if overlap else None
        key.previous_until = now + datetime.timedelta(seconds=overlap) if overlap else None
        key.digest, key.hint = digest, text[-4:]
        await self.flush()
        await _record(self.repository.session, "api_key.rotated", key)
        return key, text

    async def revoke(self, key_id: UUID, owner: KeyOwner | None = None) -> None:
        """End a key, of whomever unless `owner` is given; it is refused from the next request on. Twice is once.

        Raises:
            ResourceNotFoundException: there is no such key, or it is somebody else's.
        """
        key = await self._one(ApiKey.id == key_id, *([owner.condition()] if owner is not None else []), lock=True)
        await _revoke(self.repository.session, [key])

    async def find_account(self, account_id: UUID) -> KeyOwner:
        """A service account as the owner of keys.

        Raises:
            ResourceNotFoundException: there is none.
        """
        # Not locked, also where a key is made for it: the foreign key sees to that.
        if (
            await self.repository.session.scalar(select(ServiceAccount.id).where(ServiceAccount.id == account_id))
            is None
        ):
            raise ResourceNotFoundException("There is no such service account.")
        return KeyOwner(service_account_id=account_id)

    async def _one(self, *conditions: ColumnElement[bool], lock: bool = False) -> ApiKey:
        wanted = select(ApiKey).where(*conditions)
        if lock:
            wanted = wanted.options(undefer_group("secret")).with_for_update(key_share=True)
        found: ApiKey | None = await self.repository.session.scalar(wanted)
        if found is None:
            raise ResourceNotFoundException("There is no such API key.")
        return found


def check_scopes(scopes: Sequence[str], *, known: frozenset[str], held: frozenset[str]) -> None:
    """Nobody gives a machine more than they have themselves.

    Raises:
        ValidationFailedException: there is no such permission.
        PermissionDeniedException: whoever makes the key does not hold it.
    """
    for index, scope in enumerate(scopes):
        if scope not in known:
            raise ValidationFailedException.of(
                f"scopes[{index}]", "There is no such permission; GET /api/permissions lists them."
            )
    if missing := sorted(set(scopes) - held):
        raise PermissionDeniedException(
            f"You do not have the permission {missing[0]!r} yourself.", permission=missing[0]
        )


async def revoke_with_their_user(session: AsyncSession, event: RecordedEvent) -> None:
    """Revoke the keys of a user who was shut out: refused they are meanwhile, and stay so if the user comes back."""
    if event.name != "user.deactivated":
        return
    theirs = (
        select(ApiKey)
        .where(ApiKey.user_id == event.subject, ApiKey.revoked_at.is_(None))
        .order_by(ApiKey.id)
        .with_for_update(key_share=True)
    )
    await _revoke(session, list(await session.scalars(theirs)))


async def _revoke(session: AsyncSession, keys: Sequence[ApiKey]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    fresh = [key for key in keys if key.revoked_at is None]
    for key in fresh:
        key.revoked_at, key.previous_until = now, None
    await session.flush()
    for key in fresh:
        await _record(session, "api_key.revoked", key)


async def _record(session: AsyncSession, name: str, key: ApiKey) -> None:
    owner = {"user_id": key.user_id, "service_account_id": key.service_account_id}
    await record_event(session, name, subject=key.id, payload=owner)


def is_good() -> ColumnElement[bool]:
    """Of keys that are neither revoked nor expired."""
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))


provide_api_keys = create_service_provider(ApiKeyService)
