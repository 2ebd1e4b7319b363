"""Routes of service accounts."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, patch, post
from litestar.params import Body, FromPath

from tenantry.domain.identity.service_accounts.models import ServiceAccount
from tenantry.domain.identity.service_accounts.schemas import (
    ServiceAccountCreate,
    ServiceAccountRead,
    ServiceAccountUpdate,
)
from tenantry.domain.identity.service_accounts.service import ServiceAccountService, provide_service_accounts
from tenantry.domain.identity.users.schemas import RoleBrief
from tenantry.domain.roles.models import Role
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person

__all__ = ("ServiceAccountController",)


class ServiceAccountController(Controller):
    """Machines that act in the organization's name. API keys may not manage them: a key could make itself another."""

    path = "/service-accounts"
    tags = ["service accounts"]
    dependencies = {"accounts": provide_service_accounts}
    guards = [requires_permission("service_accounts:manage"), requires_person]

    @get(
        "/",
        operation_id="ListServiceAccounts",
        summary="List service accounts",
        dependencies={
            "listing": create_list_query(
                sortable=("name", "created_at", "updated_at"), searched=("name", "description"), default="name"
            )
        },
    )
    async def list_service_accounts(
        self, accounts: Injected[ServiceAccountService], listing: Injected[ListQuery]
    ) -> Page[ServiceAccountRead]:
        """The organization's service accounts with their roles."""
        return await accounts.page(listing, ServiceAccountRead, convert=_read)

    @post("/", operation_id="CreateServiceAccount", summary="Make a service account")
    async def create_service_account(
        self,
        request: Request[Any, Any, Any],
        accounts: Injected[ServiceAccountService],
        data: Annotated[ServiceAccountCreate, Body()],
    ) -> ServiceAccountRead:
        """Make a machine's account. Its roles permit no more than the caller's own; API keys are made next."""
        roles = await _granted(request, accounts, data.roles)
        return _read(await accounts.add(name=data.name, description=data.description, roles=roles), ServiceAccountRead)

    @get("/{service_account_id:uuid}", operation_id="GetServiceAccount", summary="Get a service account")
    async def get_service_account(
        self, accounts: Injected[ServiceAccountService], service_account_id: FromPath[UUID]
    ) -> ServiceAccountRead:
        """One service account with its roles."""
        return _read(await accounts.get(service_account_id), ServiceAccountRead)

    @patch("/{service_account_id:uuid}", operation_id="UpdateServiceAccount", summary="Change a service account")
    async def update_service_account(
        self,
        request: Request[Any, Any, Any],
        accounts: Injected[ServiceAccountService],
        service_account_id: FromPath[UUID],
        data: Annotated[ServiceAccountUpdate, Body()],
    ) -> ServiceAccountRead:
        """Change its name or its roles, or switch it off: it counts with the next request of its API keys."""
        wanted = changes(data)
        slugs = wanted.pop("roles", None)
        roles = await _granted(request, accounts, slugs) if slugs is not None else None
        return _read(await accounts.change(service_account_id, wanted, roles), ServiceAccountRead)

    @delete("/{service_account_id:uuid}", operation_id="DeleteServiceAccount", summary="Delete a service account")
    async def delete_service_account(
        self, accounts: Injected[ServiceAccountService], service_account_id: FromPath[UUID]
    ) -> None:
        """Delete it with its API keys, which are refused from the next request on. The audit trail keeps its acts."""
        await accounts.remove(service_account_id)


async def _granted(request: Request[Any, Any, Any], accounts: ServiceAccountService, slugs: list[str]) -> list[Role]:
    return await accounts.roles_to_grant(
        slugs, held=principal_of(request).permissions, catalogue=request.app.state.permissions
    )


def _read(account: ServiceAccount, struct: type[ServiceAccountRead]) -> ServiceAccountRead:
    return struct(
        id=account.id,
        name=account.name,
        description=account.description,
        is_active=account.is_active,
        roles=[RoleBrief(slug=held.role.slug, name=held.role.name) for held in account.roles],
        created_at=account.created_at,
        updated_at=account.updated_at,
    )
