"""Organizations that strangers make: asked for, confirmed by a mailed link, made once."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from prometheus_client import Counter
from sqlalchemy import func, select, update

from tenantry.kernel.errors import (
    ClientException,
    ConflictException,
    PermissionDeniedException,
    UnavailableException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import SIGNUP, Credential, InvalidCredential
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.text import slugify
from tenantry.mail.definition import require_mail
from tenantry.platform.audit.service import record
from tenantry.platform.plans.models import Plan
from tenantry.platform.signup.mails import SIGN_UP_MAIL
from tenantry.platform.signup.models import SignUp
from tenantry.platform.tenants.creation import PROVISIONING_FAILED
from tenantry.platform.tenants.service import SLUG_TAKEN, check_slug
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import ColumnElement, CompoundSelect
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.platform.signup.schemas import SignUpCreate
    from tenantry.platform.strangers.service import Brake
    from tenantry.platform.tenants.creation import TenantCreator
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("SIGN_UP_CLOSED", "SIGN_UP_INVALID", "Made", "Signups")

SIGN_UP_CLOSED = define_problem(
    "signup-closed",
    403,
    "No sign-up here",
    "Organizations of this deployment are made by its operators (TENANTRY_SIGNUP is off).",
)
SIGN_UP_INVALID = define_problem(
    "signup-invalid",
    400,
    "Sign-up not valid",
    "The link has expired, was replaced by another one, or never was one. Sign up again.",
)
SIGN_UP_UNAVAILABLE = define_problem(
    "signup-unavailable",
    503,
    "Sign-up does not work",
    "The plan of new organizations (TENANTRY_SIGNUP_PLAN) is missing: its operators have to make it.",
)

_ACTOR = "sign-up"
_LOCK = 2_118_803_606
"""Of PostgreSQL's advisory locks."""
_SUGGESTIONS = 50
_RETRY_AFTER = 3600

_sign_ups = Counter("tenantry_sign_ups", "Organizations that strangers wanted, by what came of it.", ("outcome",))


@dataclass(frozen=True, slots=True)
class Made:
    """The organization of a sign-up that was confirmed, just now or before."""

    tenant: Tenant
    invitation: str | None


class _ConfirmedBeforeError(Exception):
    """Somebody has confirmed it: the same person a moment ago, or twice at once."""


class Signups:
    """Mails links, and trades them for organizations."""

    def __init__(
        self,
        *,
        database: Database,
        read_scope: Scope,
        write_scope: Scope,
        settings: Settings,
        vault: Vault,
        creator: TenantCreator,
        brake: Brake,
    ) -> None:
        self._database = database
        self._read_scope = read_scope
        self._write_scope = write_scope
        self._settings = settings
        self._vault = vault
        self._creator = creator
        self._brake = brake

    async def request(self, wish: SignUpCreate, *, client: str | None) -> SignUp:
        """Write down what somebody wants, and mail them a link that confirms it.

        Nothing is asked about the address: whether it has accounts here, or another sign-up, cannot be told by the
        answer. Slugs are public, so whether one is free can.

        Args:
            client: who asks, for the brake.

        Raises:
            PermissionDeniedException: this deployment has no sign-up.
            UnavailableException: it has no mail, or no plan for it.
            ValidationFailedException: the address is none, the slug reserved, or none can be made of the name.
            ConflictException: the slug is taken, or kept for somebody else.
            TooManyRequestsException: enough was asked for.
        """
        self._require_open()
        require_mail(self._settings)
        email = normalize_email(wish.email)
        if wish.slug is not None:
            check_slug(wish.slug)
        await self._brake.check(email, client)
        async with self._database.transaction(self._write_scope) as transaction:
            session = transaction.session
            await self._brake.note(session, email, client)
            await self._require_plan(session)
            # One after the other from here on: two who want one slug at the same moment do not both get it.
            await session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            earlier = await self._replace(session, wish.replaces)
            slug = await self._free_slug(session, wish, earlier)
            made = await self._write(session, wish, slug, email, earlier)
        _sign_ups.labels("requested").inc()
        return made

    async def _write(
        self, session: AsyncSession, wish: SignUpCreate, slug: str, email: str, earlier: SignUp | None
    ) -> SignUp:
        sign_up_id = uuid4()
        token, digest = Credential.new(SIGNUP, sign_up_id)
        now = datetime.datetime.now(datetime.UTC)
        if earlier is not None and earlier.slug == slug:
            held_until = earlier.held_until
        elif await self._was_held(session, slug):
            held_until = None
        else:
            held_until = now + datetime.timedelta(seconds=self._settings.signup_hold)
        made = SignUp(
            id=sign_up_id,
            organization=wish.organization,
            slug=slug,
            email=email,
            name=wish.name,
            digest=digest,
            expires_at=now + datetime.timedelta(seconds=self._settings.signup_ttl),
            held_until=held_until,
        )
        if earlier is not None and earlier.held_until is not None:
            # The row stays for a day, so that it is known to have had the slug kept.
            earlier.held_until = min(earlier.held_until, now)
        session.add(made)
        record(session, actor=_ACTOR, action="sign-up.request", target=str(sign_up_id))
        await session.flush()
        await SIGN_UP_MAIL.send(session, about=sign_up_id, secret=token, vault=self._vault)
        return made

    @staticmethod
    async def _replace(session: AsyncSession, sign_up_id: UUID | None) -> SignUp | None:
        """An earlier wish of the same person, who alone was told its id; its link is good no more."""
        if sign_up_id is None:
            return None
        earlier: SignUp | None = await session.scalar(
            select(SignUp)
            .where(SignUp.id == sign_up_id, SignUp.confirmed_at.is_(None), SignUp.expires_at > func.now())
            .with_for_update()
        )
        if earlier is not None:
            earlier.expires_at = datetime.datetime.now(datetime.UTC)
        return earlier

    @staticmethod
    async def _free_slug(session: AsyncSession, wish: SignUpCreate, earlier: SignUp | None) -> str:
        wanted = wish.slug or slugify(wish.organization)
        if not wanted:
            raise ValidationFailedException.of("slug", "Expected a slug, since none can be made of the name.")
        own = None if earlier is None else earlier.id
        if wish.slug is not None:
            if await session.scalar(_taken([wanted], own)) is not None:
                raise ConflictException(f"The slug {wanted!r} is taken.", problem=SLUG_TAKEN)
            return wanted
        # `acme`, `acme-2`, …: reserved ones are as good as taken.
        stem = wanted[:60].rstrip("-")
        offered = [wanted, *(f"{stem}-{number}" for number in range(2, _SUGGESTIONS))]
        taken = set(await session.scalars(_taken(offered, own)))
        for slug in offered:
            if slug not in taken and _is_allowed(slug):
                return slug
        raise ValidationFailedException.of("slug", "Expected a slug: those that follow from the name are taken.")

    async def _was_held(self, session: AsyncSession, slug: str) -> bool:
        """Whether somebody has had the slug kept for them, and has not confirmed.

        A slug is kept once in the life of a link: whoever asks again and again does not keep it from others.
        """
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=self._settings.signup_ttl)
        found = await session.scalar(
            select(SignUp.id)
            .where(SignUp.slug == slug, SignUp.held_until.is_not(None), SignUp.created_at > since)
            .limit(1)
        )
        return found is not None

    async def confirm(self, token: str, *, password: str | None, slug: str | None) -> Made:
        """Make the organization of a link, with its owner, once: a second time it answers the same one.

        Raises:
            PermissionDeniedException: this deployment has no sign-up.
            ClientException: the token is not valid.
            ConflictException: somebody else has the slug meanwhile. The link stays good, for another one.
            ValidationFailedException: the slug is reserved, or the password too weak; likewise.
            UnavailableException: there is no plan for it, or the provisioner tried and failed.
        """
        self._require_open()
        sign_up = await self._find(token)
        if sign_up.tenant_id is not None:
            return await self._made(sign_up.tenant_id)
        if slug is not None and slug != sign_up.slug:
            check_slug(slug)
        wanted = slug or sign_up.slug
        if password is not None:
            check_new_password(
                self._settings,
                password,
                email=sign_up.email,
                organization=(sign_up.organization, wanted),
                name=sign_up.name,
            )

        async def take(session: AsyncSession, tenant_id: UUID) -> None:
            # The row's lock: whoever comes second waits here for the first, and then finds nothing to take.
            taken = await session.scalar(
                update(SignUp)
                .where(SignUp.id == sign_up.id, SignUp.digest == sign_up.digest, SignUp.confirmed_at.is_(None))
                .values(confirmed_at=func.now(), tenant_id=tenant_id, slug=wanted, updated_at=func.now())
                .returning(SignUp.id)
                .execution_options(synchronize_session=False)
            )
            if taken is None:
                raise _ConfirmedBeforeError
            if (
                await session.scalar(select(SignUp.id).where(SignUp.slug == wanted, _held(sign_up.id)).limit(1))
                is not None
            ):
                raise ConflictException(f"The slug {wanted!r} is taken.", problem=SLUG_TAKEN)

        try:
            created = await self._creator.create(
                slug=wanted,
                name=sign_up.organization,
                plan=self._settings.signup_plan,
                owner_email=sign_up.email,
                owner_name=sign_up.name,
                owner_password=password,
                requested_by=f"{_ACTOR}:{sign_up.id}",
                verified=True,
                before=take,
            )
        except _ConfirmedBeforeError:
            again = await self._find(token)
            if again.tenant_id is None:
                raise ClientException(problem=SIGN_UP_INVALID) from None
            return await self._made(again.tenant_id)
        except ConflictException:
            _sign_ups.labels("slug taken").inc()
            raise
        except ValidationFailedException as error:
            if any(each.field == "plan" for each in error.errors):
                raise UnavailableException(problem=SIGN_UP_UNAVAILABLE, retry_after=_RETRY_AFTER) from error
            raise
        _sign_ups.labels("confirmed").inc()
        return Made(created.tenant, created.invitation)

    async def _find(self, token: str) -> SignUp:
        try:
            digest = Credential.parse(token, SIGNUP).digest
        except InvalidCredential as error:
            raise ClientException(problem=SIGN_UP_INVALID) from error
        async with self._database.transaction(self._read_scope) as transaction:
            found = await transaction.session.scalar(
                select(SignUp).where(SignUp.digest == digest, SignUp.expires_at > func.now())
            )
        if found is None:
            raise ClientException(problem=SIGN_UP_INVALID)
        return found

    async def _made(self, tenant_id: UUID) -> Made:
        async with self._database.transaction(self._read_scope) as transaction:
            tenant = await transaction.session.get(Tenant, tenant_id)
        if tenant is None or tenant.status == "purged":
            raise ClientException(problem=SIGN_UP_INVALID)
        if tenant.status == "failed":
            raise UnavailableException(problem=PROVISIONING_FAILED)
        return Made(tenant, None)

    def _require_open(self) -> None:
        if not self._settings.signup:
            raise PermissionDeniedException(problem=SIGN_UP_CLOSED)

    async def _require_plan(self, session: AsyncSession) -> None:
        if await session.scalar(select(Plan.id).where(Plan.slug == self._settings.signup_plan)) is None:
            raise UnavailableException(problem=SIGN_UP_UNAVAILABLE, retry_after=_RETRY_AFTER)


def _held(*others_than: UUID) -> ColumnElement[bool]:
    """Sign-ups that somebody has the slug kept for."""
    return (
        SignUp.confirmed_at.is_(None)
        & (SignUp.held_until > func.now())
        & (SignUp.expires_at > func.now())
        & SignUp.id.not_in(others_than)
    )


def _taken(slugs: list[str], own: UUID | None) -> CompoundSelect[str]:
    """Those of the slugs that an organization has, or that are kept for anybody but `own`."""
    held = select(SignUp.slug).where(SignUp.slug.in_(slugs), _held(*([] if own is None else [own])))
    return select(Tenant.slug).where(Tenant.slug.in_(slugs)).union_all(held)


def _is_allowed(slug: str) -> bool:
    try:
        check_slug(slug)
    except ValidationFailedException:
        return False
    return True
