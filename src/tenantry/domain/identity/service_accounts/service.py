"""Service accounts of one organization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy.orm import joinedload, load_only, selectinload

from tenantry.domain.identity.service_accounts.models import ServiceAccount, ServiceAccountRole
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.models import Role
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    PermissionDeniedException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.service import Service, changed_fields, create_service_provider
from tenantry.tenancy.quotas import use_quota

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.domain.roles.catalogue import PermissionCatalogue

__all__ = (
    "MOST_SERVICE_ACCOUNTS",
    "TOO_MANY_SERVICE_ACCOUNTS",
    "ServiceAccountService",
    "provide_service_accounts",
)

MOST_SERVICE_ACCOUNTS = 200
"""Of an organization."""

TOO_MANY_SERVICE_ACCOUNTS = define_problem(
    "too-many-service-accounts",
    409,
    "Too many service accounts",
    "An organization has so many service accounts at most (`allowed`). Delete one that is not needed any more.",
)


class ServiceAccountService(Service[ServiceAccount]):
    """Machines that act in the organization's name, and their roles."""

    class Repo(SQLAlchemyAsyncRepository[ServiceAccount]):
        model_type = ServiceAccount

    repository_type = Repo

    async def add(self, *, name: str, description: str | None, roles: list[Role]) -> ServiceAccount:
        """A new service account.

        Raises:
            ConflictException: there are `MOST_SERVICE_ACCOUNTS`.
            PermissionDeniedException: the plan allows no more of them.
            advanced_alchemy.exceptions.DuplicateKeyError: there is one of that name.
        """
        # Two at once may make one too many: the number is a bound for lists, not a promise.
        if await self.count() >= MOST_SERVICE_ACCOUNTS:
            raise ConflictException(
                f"There are {MOST_SERVICE_ACCOUNTS} service accounts already.",
                problem=TOO_MANY_SERVICE_ACCOUNTS,
                allowed=MOST_SERVICE_ACCOUNTS,
            )
        await use_quota(self.repository.session, "service_accounts")
        account = await self.create({"name": name, "description": description})
        account.roles = [ServiceAccountRole(role=role) for role in roles]
        await self.flush()
        await self._record("service_account.created", account.id, role_ids=[role.id for role in roles])
        return account

    async def change(self, account_id: UUID, changes: dict[str, Any], roles: list[Role] | None) -> ServiceAccount:
        """Change what is in `changes`; `roles`, if given, replaces all of its roles.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such service account.
            advanced_alchemy.exceptions.DuplicateKeyError: there is another one of that name.
        """
        account = await self.get(account_id)
        changed = changed_fields(account, changes)
        if roles is not None:
            held = {held.role_id: held for held in account.roles}
            if held.keys() != {role.id for role in roles}:
                changed.append("roles")
            account.roles = [held.get(role.id) or ServiceAccountRole(role=role) for role in roles]
        for name, value in changes.items():
            setattr(account, name, value)
        await self.flush()
        if changed:
            role_ids = [held.role_id for held in account.roles]
            await self._record("service_account.updated", account_id, fields=changed, role_ids=role_ids)
        return account

    async def remove(self, account_id: UUID) -> None:
        """Delete a service account and its API keys, which are refused from the next request on.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such service account.
        """
        await self.delete(account_id)
        await self._record("service_account.deleted", account_id)

    async def roles_to_grant(
        self, slugs: list[str], *, held: frozenset[str], catalogue: PermissionCatalogue
    ) -> list[Role]:
        """Those roles, if a caller with the permissions `held` may give them to a machine.

        Raises:
            PermissionDeniedException: one of them permits more than the caller's own.
            ValidationFailedException: there is no role of one of the names, or it is the owner's.
        """
        if "owner" in slugs:
            raise ValidationFailedException.of("roles", "A machine does not own the organization; a person does.")
        found = await UserService(session=self.repository.session).roles_by_slug(slugs) if slugs else []
        for role in found:
            if not held.issuperset(catalogue.granted(role.slug, builtin=role.is_builtin, stored=role.permissions)):
                raise PermissionDeniedException(f"The role {role.slug!r} permits more than you may do yourself.")
        return found

    async def _record(self, name: str, account_id: UUID, **payload: Any) -> None:
        await record_event(self.repository.session, name, subject=account_id, payload=payload)


provide_service_accounts = create_service_provider(
    ServiceAccountService,
    load=[
        selectinload(ServiceAccount.roles).options(
            joinedload(ServiceAccountRole.role, innerjoin=True).options(load_only(Role.slug, Role.name))
        )
    ],
    uniquify=True,
    error_messages={
        "duplicate_key": "There is a service account of that name already.",
        "integrity": "The service account cannot be changed like this.",
        "not_found": "There is no such service account.",
    },
)
