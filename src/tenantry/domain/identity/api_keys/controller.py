"""Routes of one's own API keys."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.domain.identity.api_keys.schemas import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyRead,
    ApiKeyRotate,
    ApiKeySecret,
)
from tenantry.domain.identity.api_keys.service import ApiKeyService, KeyOwner, check_scopes, provide_api_keys
from tenantry.domain.identity.step_up import requires_recent_authentication
from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.kernel.schema import Page
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.tenancy.guards import acting_user_id, principal_of, requires_person
from tenantry.tenancy.request import tenant_request

__all__ = ("ApiKeyController", "issue_key", "key_listing", "rotated", "tenant_id_of")

key_listing = create_list_query(
    sortable=("name", "created_at", "expires_at", "last_used_at"),
    searched=("name",),
    default="created_at",
    descending=True,
)


class ApiKeyController(Controller):
    """One's own API keys, by which machines act in one's name. Keys may not manage keys."""

    path = "/api-keys"
    tags = ["API keys"]
    dependencies = {"keys": provide_api_keys}
    guards = [requires_person]
    opt = {"any_user": True}

    @get("/", operation_id="ListApiKeys", summary="List my API keys", dependencies={"listing": key_listing})
    async def list_api_keys(
        self, request: Request[Any, Any, Any], keys: Injected[ApiKeyService], listing: Injected[ListQuery]
    ) -> Page[ApiKeyRead]:
        """The caller's own keys; those that have ended are listed for 90 days."""
        return await keys.page(listing, ApiKeyRead, _self(request).condition())

    @post("/", operation_id="CreateApiKey", summary="Make an API key", guards=[requires_recent_authentication()])
    async def create_api_key(
        self, request: Request[Any, Any, Any], keys: Injected[ApiKeyService], data: Annotated[ApiKeyCreate, Body()]
    ) -> ApiKeyCreated:
        """Make a key of one's own. The answer has it this once; it may do no more than its owner, whatever changes."""
        return await issue_key(request, keys, _self(request), data)

    @get("/{api_key_id:uuid}", operation_id="GetApiKey", summary="Get an API key of mine")
    async def get_api_key(
        self, request: Request[Any, Any, Any], keys: Injected[ApiKeyService], api_key_id: FromPath[UUID]
    ) -> ApiKeyRead:
        """One of the caller's own keys, without its secret."""
        return to_struct(await keys.owned(_self(request), api_key_id), ApiKeyRead)

    @post(
        "/{api_key_id:uuid}/rotate",
        operation_id="RotateApiKey",
        summary="Rotate an API key of mine",
        status_code=HTTP_200_OK,
        guards=[requires_recent_authentication()],
        opt={"idempotent": True},
    )
    async def rotate_api_key(
        self,
        request: Request[Any, Any, Any],
        keys: Injected[ApiKeyService],
        api_key_id: FromPath[UUID],
        data: Annotated[ApiKeyRotate, Body()],
    ) -> ApiKeySecret:
        """A new secret. The one before is good for `overlap` seconds more, 0 ends it at once; no third is ever good."""
        key, text = await keys.rotate(_self(request), api_key_id, tenant_id=tenant_id_of(request), overlap=data.overlap)
        return rotated(key, text)

    @delete("/{api_key_id:uuid}", operation_id="RevokeApiKey", summary="Revoke an API key of mine")
    async def revoke_api_key(
        self, request: Request[Any, Any, Any], keys: Injected[ApiKeyService], api_key_id: FromPath[UUID]
    ) -> None:
        """End a key of one's own: it is refused from the next request on, in every process."""
        await keys.revoke(api_key_id, _self(request))


def _self(request: Request[Any, Any, Any]) -> KeyOwner:
    return KeyOwner(user_id=acting_user_id(request))


def tenant_id_of(request: Request[Any, Any, Any]) -> UUID:
    """The organization that the key is to name."""
    tenant = tenant_request(request).tenant
    assert tenant is not None  # noqa: S101 - the route is not public
    return tenant.id


async def issue_key(
    request: Request[Any, Any, Any], keys: ApiKeyService, owner: KeyOwner, data: ApiKeyCreate
) -> ApiKeyCreated:
    """Make the key that was asked for.

    Raises:
        ValidationFailedException: a scope is no permission, or it expires at no good time.
        PermissionDeniedException: the caller does not hold one of the scopes.
        ConflictException: the owner has too many.
    """
    catalogue: PermissionCatalogue = request.app.state.permissions
    check_scopes(data.scopes, known=catalogue.all, held=principal_of(request).permissions)
    key, text = await keys.issue(
        owner,
        tenant_id=tenant_id_of(request),
        name=data.name,
        scopes=data.scopes,
        expires_at=data.expires_at,
        created_by_id=acting_user_id(request),
    )
    return ApiKeyCreated(**msgspec.structs.asdict(to_struct(key, ApiKeyRead)), key=text)


def rotated(key: ApiKey, text: str) -> ApiKeySecret:
    """The answer to a rotation."""
    return ApiKeySecret(key=text, hint=key.hint, previous_until=key.previous_until)
