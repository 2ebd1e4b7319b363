"""Tenants: finding them, changing them, suspending them."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError

from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.audit.service import record
from tenantry.platform.plans.models import Plan
from tenantry.platform.tenants.lifecycle import Event, require_living, transition
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from sqlalchemy import ColumnElement

__all__ = (
    "RESERVED_SLUGS",
    "SLUG_TAKEN",
    "TenantService",
    "check_plan",
    "check_slug",
    "in_state",
    "provide_tenants",
    "tombstone_slug",
)

RESERVED_SLUGS = frozenset({"admin", "api", "app", "auth", "health", "metrics", "platform", "schema", "static", "www"})
"""Names that hosts and paths need for themselves."""

_TOMBSTONE = re.compile(r"purged-[0-9a-f]{32}")

_COMPARED = 500
"""Slugs that an unknown one is compared with."""

SLUG_TAKEN = define_problem("slug-taken", 409, "Slug taken", "Another organization has this slug. Choose another.")


class TenantService(Service[Tenant]):
    """Tenants in the control plane."""

    class Repo(SQLAlchemyAsyncRepository[Tenant]):
        model_type = Tenant

    repository_type = Repo
    match_fields = ["slug"]

    async def by_slug(self, slug: str, *, lock: bool = False, key_share: bool = False) -> Tenant:
        """The tenant of that slug; with `lock` as it is to stay until the transaction ends.

        With `key_share` as well, others may go on to write rows that refer to it meanwhile: a worker that holds such
        rows would else wait for us, and we for it.

        Raises:
            ResourceNotFoundException: there is none; `nearest` lists those spelled like it. For operators alone.
        """
        statement = select(Tenant).where(Tenant.slug == slug)
        if lock:
            statement = statement.with_for_update(key_share=key_share)
        found: Tenant | None = await self.repository.session.scalar(statement)
        if found is None:
            raise await self._unknown(slug)
        return found

    async def _unknown(self, slug: str) -> ResourceNotFoundException:
        """That there is no such tenant, and which slugs are spelled like it."""
        # Those that may be meant, as far as an index-free look can tell: comparing with all of ten thousand would keep
        # the event loop for a tenth of a second.
        begins = max(1, len(slug) - 2)
        alike = (
            select(Tenant.slug)
            .where(
                in_state(None),
                func.abs(func.char_length(Tenant.slug) - len(slug)) <= 2,
                or_(func.left(Tenant.slug, 1) == slug[:1], func.right(Tenant.slug, 2) == slug[-2:]),
            )
            .order_by(
                # Where thousands begin alike (`team-0417`), those that do so for the longest.
                (func.left(Tenant.slug, begins) == slug[:begins]).desc(),
                func.abs(func.char_length(Tenant.slug) - len(slug)),
                Tenant.slug,
            )
            .limit(_COMPARED)
        )
        nearest = get_close_matches(slug, list(await self.repository.session.scalars(alike)))
        hint = f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        return ResourceNotFoundException(f"There is no organization {slug!r}.{hint}", nearest=nearest)

    async def suspend(self, slug: str, reason: str | None, *, actor: str) -> Tenant:
        """Refuse a tenant's requests, everywhere within a second; its data stay.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it is not active.
        """
        return await self.move(slug, "suspend", reason=reason, actor=actor)

    async def resume(self, slug: str, *, actor: str) -> Tenant:
        """Serve a suspended tenant again.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: it is not suspended.
        """
        return await self.move(slug, "resume", actor=actor)

    async def move(self, slug: str, event: Event, *, actor: str, reason: str | None = None) -> Tenant:
        """Let an event happen to a tenant, and write it down.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: its present state does not allow it.
        """
        tenant = await self.by_slug(slug, lock=True)
        before = tenant.status
        transition(tenant, event, reason=reason)
        record(
            self.repository.session,
            actor=actor,
            action=f"tenant.{event}",
            tenant_id=tenant.id,
            reason=reason,
            details={"from": before, "to": tenant.status},
        )
        await self.repository.session.flush()
        return tenant

    async def change(self, slug: str, changes: dict[str, Any], *, actor: str) -> Tenant:
        """Rename a tenant or move it to another plan; neither touches its schema.

        Raises:
            ResourceNotFoundException: there is none.
            ConflictException: the new slug is taken, or the tenant was purged.
            ValidationFailedException: the new slug is reserved, or there is no such plan.
        """
        tenant = await self.by_slug(slug, lock=True)
        require_living(tenant, "a change")
        if (wanted := changes.get("slug")) and wanted != tenant.slug:
            check_slug(wanted)
        if plan := changes.get("plan"):
            await self.check_plan(plan)
        before = {name: getattr(tenant, name) for name in changes}
        changed = {name: value for name, value in changes.items() if before[name] != value}
        if not changed:
            return tenant
        for name, value in changed.items():
            setattr(tenant, name, value)
        record(
            self.repository.session,
            actor=actor,
            action="tenant.change",
            tenant_id=tenant.id,
            # An organization's name may be a person's: of that, only that it changed.
            details={
                name: {"from": before[name], "to": value} if name in {"slug", "plan"} else True
                for name, value in changed.items()
            },
        )
        await self.flush_slug(tenant.slug)
        return tenant

    async def check_plan(self, plan: str) -> None:
        """Refuse a plan that does not exist.

        Raises:
            ValidationFailedException: naming those that do.
        """
        check_plan(plan, await self.repository.session.scalars(select(Plan.slug)))

    async def flush_slug(self, slug: str) -> None:
        """Flush, and say so if the slug is taken.

        Raises:
            ConflictException: it is.
        """
        try:
            await self.repository.session.flush()
        except IntegrityError as error:
            if "uq_tenant_slug" in str(error.orig):
                raise ConflictException(f"The slug {slug!r} is taken.", problem=SLUG_TAKEN) from error
            raise


def in_state(status: str | None) -> ColumnElement[bool]:
    """Tenants in a state; without one, all but the purged, which are records of the past and nobody's any more."""
    return Tenant.status != "purged" if status is None else Tenant.status == status


def tombstone_slug(tenant_id: UUID) -> str:
    """What a tenant's slug becomes when it is purged: its own is free again at once."""
    return f"purged-{tenant_id.hex}"


def check_slug(slug: str) -> None:
    """Refuse a slug that hosts and paths need for themselves, or that a purge will need.

    Raises:
        ValidationFailedException: it is one of them.
    """
    if slug in RESERVED_SLUGS or _TOMBSTONE.fullmatch(slug):
        raise ValidationFailedException.of("slug", "This name is reserved.")


def check_plan(plan: str, known: Iterable[str]) -> None:
    """Refuse a plan that is not among the known ones.

    Raises:
        ValidationFailedException: naming those that are.
    """
    if plan not in (known := sorted(known)):
        raise ValidationFailedException.of("plan", f"Expected one of the plans: {', '.join(known) or 'there is none'}.")


provide_tenants = create_service_provider(
    TenantService,
    error_messages={
        "duplicate_key": "Another organization has this slug.",
        "integrity": "The organization cannot be changed like this.",
        "not_found": "There is no such organization.",
    },
)
