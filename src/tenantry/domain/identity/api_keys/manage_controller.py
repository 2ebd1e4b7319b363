"""Routes of API keys that are not one's own: everybody's, and those of service accounts."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, delete, get, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.identity.api_keys.controller import issue_key, key_listing, rotated, tenant_id_of
from tenantry.domain.identity.api_keys.schemas import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyRead,
    ApiKeyRotate,
    ApiKeySecret,
)
from tenantry.domain.identity.api_keys.service import ApiKeyService, provide_api_keys
from tenantry.domain.identity.step_up import requires_recent_authentication
from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person

__all__ = ("OrganizationApiKeyController", "ServiceAccountKeyController")


class OrganizationApiKeyController(Controller):
    """All API keys of the organization, for who looks after them. Nobody reads a secret again."""

    path = "/organization/api-keys"
    tags = ["API keys"]
    dependencies = {"keys": provide_api_keys}
    guards = [requires_permission("api_keys:manage"), requires_person]

    @get(
        "/",
        operation_id="ListOrganizationApiKeys",
        summary="List all API keys",
        dependencies={"listing": key_listing},
    )
    async def list_organization_api_keys(
        self, keys: Injected[ApiKeyService], listing: Injected[ListQuery]
    ) -> Page[ApiKeyRead]:
        """Everybody's keys and those of service accounts, with when they were last used."""
        return await keys.page(listing, ApiKeyRead)

    @delete("/{api_key_id:uuid}", operation_id="RevokeOrganizationApiKey", summary="Revoke anybody's API key")
    async def revoke_organization_api_key(self, keys: Injected[ApiKeyService], api_key_id: FromPath[UUID]) -> None:
        """End a key, whosever it is: it is refused from the next request on, in every process."""
        await keys.revoke(api_key_id)


class ServiceAccountKeyController(Controller):
    """API keys of a service account."""

    path = "/service-accounts/{service_account_id:uuid}/api-keys"
    tags = ["service accounts"]
    dependencies = {"keys": provide_api_keys}
    guards = [requires_permission("service_accounts:manage"), requires_person]

    @get(
        "/",
        operation_id="ListServiceAccountKeys",
        summary="List a service account's API keys",
        dependencies={"listing": key_listing},
    )
    async def list_service_account_keys(
        self, keys: Injected[ApiKeyService], service_account_id: FromPath[UUID], listing: Injected[ListQuery]
    ) -> Page[ApiKeyRead]:
        """The service account's keys; those that have ended are listed for 90 days."""
        owner = await keys.find_account(service_account_id)
        return await keys.page(listing, ApiKeyRead, owner.condition())

    @post(
        "/",
        operation_id="CreateServiceAccountKey",
        summary="Make an API key for a service account",
        guards=[requires_recent_authentication()],
    )
    async def create_service_account_key(
        self,
        request: Request[Any, Any, Any],
        keys: Injected[ApiKeyService],
        service_account_id: FromPath[UUID],
        data: Annotated[ApiKeyCreate, Body()],
    ) -> ApiKeyCreated:
        """Make a key for a machine, with scopes that the caller has. The answer has it this once."""
        return await issue_key(request, keys, await keys.find_account(service_account_id), data)

    @post(
        "/{api_key_id:uuid}/rotate",
        operation_id="RotateServiceAccountKey",
        summary="Rotate a service account's API key",
        status_code=HTTP_200_OK,
        guards=[requires_recent_authentication()],
        opt={"idempotent": True},
    )
    async def rotate_service_account_key(
        self,
        request: Request[Any, Any, Any],
        keys: Injected[ApiKeyService],
        service_account_id: FromPath[UUID],
        api_key_id: FromPath[UUID],
        data: Annotated[ApiKeyRotate, Body()],
    ) -> ApiKeySecret:
        """A new secret, for who has all of the key's scopes. The one before is good for `overlap` seconds more."""
        catalogue: PermissionCatalogue = request.app.state.permissions
        key, text = await keys.rotate(
            await keys.find_account(service_account_id),
            api_key_id,
            tenant_id=tenant_id_of(request),
            overlap=data.overlap,
            lacked=catalogue.all - principal_of(request).permissions,
        )
        return rotated(key, text)

    @delete("/{api_key_id:uuid}", operation_id="RevokeServiceAccountKey", summary="Revoke a service account's API key")
    async def revoke_service_account_key(
        self, keys: Injected[ApiKeyService], service_account_id: FromPath[UUID], api_key_id: FromPath[UUID]
    ) -> None:
        """End a key of the service account: it is refused from the next request on, in every process."""
        await keys.revoke(api_key_id, await keys.find_account(service_account_id))
