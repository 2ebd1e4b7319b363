"""Routes of connections to providers."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.identity.sso.discovery import ProviderError, Providers
from tenantry.domain.identity.sso.flow import redirect_uri
from tenantry.domain.identity.sso.models import SsoIdentity
from tenantry.domain.identity.sso.schemas import (
    SsoCheck,
    SsoConnectionCreate,
    SsoConnectionRead,
    SsoConnectionUpdate,
    SsoIdentityRead,
)
from tenantry.domain.identity.sso.service import (
    Keeper,
    SsoConnectionService,
    SsoIdentityService,
    provide_connections,
    provide_identities,
    read_connection,
    read_identity,
)
from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query
from tenantry.kernel.settings import Settings
from tenantry.tenancy.guards import (
    principal_of,
    require_feature,
    requires_feature,
    requires_permission,
    requires_person,
)
from tenantry.tenancy.request import own_tenant, request_transaction, tenant_request

__all__ = ("SsoController",)

_SWITCHES = frozenset({"is_enabled", "is_enforced"})


class SsoController(Controller):
    """The OpenID providers by which the organization has its people signed in."""

    path = "/sso/connections"
    tags = ["sso"]
    dependencies = {"connections": provide_connections, "identities": provide_identities}

    @get(
        "/",
        operation_id="ListSsoConnections",
        summary="List connections",
        guards=[requires_permission("sso:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "updated_at", "name"), searched=("name", "issuer"), default="name"
            )
        },
    )
    async def list_connections(
        self,
        request: Request[Any, Any, Any],
        connections: Injected[SsoConnectionService],
        listing: Injected[ListQuery],
    ) -> Page[SsoConnectionRead]:
        """The organization's connections to providers; the clients' secrets are not shown."""
        address = redirect_uri(request.app.state.settings)
        return await connections.page(
            listing, SsoConnectionRead, convert=lambda connection, _: read_connection(connection, address)
        )

    @post(
        "/",
        operation_id="CreateSsoConnection",
        summary="Make a connection",
        guards=[requires_permission("sso:manage"), requires_person, requires_feature("sso")],
    )
    async def create_connection(
        self,
        request: Request[Any, Any, Any],
        connections: Injected[SsoConnectionService],
        data: Annotated[SsoConnectionCreate, Body()],
    ) -> SsoConnectionRead:
        """Have people signed in by an OpenID provider.

        Register `redirectUri` with the provider, check the connection, and try it, before it is enforced.
        """
        fields = msgspec.structs.asdict(data)
        made = await connections.add(fields, _keeper(request))
        return read_connection(made, redirect_uri(request.app.state.settings))

    @get(
        "/{connection_id:uuid}",
        operation_id="GetSsoConnection",
        summary="Get a connection",
        guards=[requires_permission("sso:read")],
    )
    async def get_connection(
        self,
        request: Request[Any, Any, Any],
        connections: Injected[SsoConnectionService],
        connection_id: FromPath[UUID],
    ) -> SsoConnectionRead:
        """One connection, and what was wrong with its provider last."""
        return read_connection(await connections.find(connection_id), redirect_uri(request.app.state.settings))

    @patch(
        "/{connection_id:uuid}",
        operation_id="UpdateSsoConnection",
        summary="Change a connection",
        guards=[requires_permission("sso:manage"), requires_person],
    )
    async def update_connection(
        self,
        request: Request[Any, Any, Any],
        connections: Injected[SsoConnectionService],
        connection_id: FromPath[UUID],
        data: Annotated[SsoConnectionUpdate, Body()],
    ) -> SsoConnectionRead:
        """Change what is sent, and nothing else. Another issuer takes its secret as well, and links everybody anew.

        Where the plan has no single sign-on, a connection can still be disabled, and be enforced no longer.
        """
        wanted = changes(data)
        if any(value is not False or name not in _SWITCHES for name, value in wanted.items()):
            require_feature(own_tenant(request), "sso")
        changed = await connections.change(connection_id, wanted, _keeper(request))
        return read_connection(changed, redirect_uri(request.app.state.settings))

    @delete(
        "/{connection_id:uuid}",
        operation_id="DeleteSsoConnection",
        summary="Delete a connection",
        guards=[requires_permission("sso:manage"), requires_person],
    )
    async def delete_connection(
        self,
        request: Request[Any, Any, Any],
        connections: Injected[SsoConnectionService],
        connection_id: FromPath[UUID],
    ) -> None:
        """Delete a connection. Accounts and sessions stay; whoever has no password sets one by a mailed link."""
        await connections.remove(connection_id, _keeper(request))

    @post(
        "/{connection_id:uuid}/check",
        operation_id="CheckSsoConnection",
        summary="Check a connection",
        status_code=HTTP_200_OK,
        guards=[requires_permission("sso:manage"), requires_person, requires_feature("sso")],
    )
    async def check_connection(
        self,
        request: Request[Any, Any, Any],
        connections: Injected[SsoConnectionService],
        connection_id: FromPath[UUID],
    ) -> SsoCheck:
        """Fetch the provider's discovery document now, and say what is wrong with it."""
        keeper = _keeper(request)
        await connections.require_may_keep(connection_id, keeper)
        issuer = (await connections.find(connection_id)).issuer
        # The provider may be slow, and the pool is everybody's.
        await request_transaction(request).pause()
        providers: Providers = request.app.state.sso_providers
        try:
            metadata = await providers.metadata(keeper.tenant_id, issuer, anew=True)
        except ProviderError as error:
            return SsoCheck(is_good=False, problem=str(error), authorization_endpoint=None, algorithms=[])
        return SsoCheck(
            is_good=True,
            problem=None,
            authorization_endpoint=metadata.authorization_endpoint,
            algorithms=list(metadata.algorithms),
        )

    @get(
        "/{connection_id:uuid}/identities",
        operation_id="ListSsoIdentities",
        summary="List who people are at the provider",
        guards=[requires_permission("sso:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "last_login_at", "subject"), searched=("subject",), default="created_at"
            )
        },
    )
    async def list_identities(
        self,
        connections: Injected[SsoConnectionService],
        identities: Injected[SsoIdentityService],
        listing: Injected[ListQuery],
        connection_id: FromPath[UUID],
    ) -> Page[SsoIdentityRead]:
        """Whom the provider has signed in, and by which `sub` it knows them."""
        await connections.find(connection_id)
        return await identities.page(
            listing, SsoIdentityRead, SsoIdentity.connection_id == connection_id, convert=read_identity
        )

    @delete(
        "/{connection_id:uuid}/identities/{identity_id:uuid}",
        operation_id="DeleteSsoIdentity",
        summary="Forget who somebody is at the provider",
        guards=[requires_permission("sso:manage"), requires_person],
    )
    async def delete_identity(
        self,
        request: Request[Any, Any, Any],
        connections: Injected[SsoConnectionService],
        identities: Injected[SsoIdentityService],
        connection_id: FromPath[UUID],
        identity_id: FromPath[UUID],
    ) -> None:
        """For when the provider knows the same person by another `sub`: they are linked anew with their next log-in."""
        await connections.require_may_keep(connection_id, _keeper(request))
        await identities.unlink(connection_id, identity_id)


def _keeper(request: Request[Any, Any, Any]) -> Keeper:
    tenant = tenant_request(request).tenant
    if tenant is None:
        raise NotAuthenticatedException
    settings: Settings = request.app.state.settings
    return Keeper(
        principal=principal_of(request),
        catalogue=request.app.state.permissions,
        tenant_id=tenant.id,
        vault=request.app.state.vault,
        besides=tuple(map(ip_network, settings.outbound_networks)),
    )
