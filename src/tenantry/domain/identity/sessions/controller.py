"""Routes of signing in and out."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, post
from litestar.params import Body
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from tenantry.domain.identity.principal import UserPrincipal
from tenantry.domain.identity.sessions.schemas import LoginPayload, RefreshPayload, TokenResponse
from tenantry.domain.identity.sessions.service import Authenticator, Issued, UserSessionService
from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.service import Injected, create_service_provider
from tenantry.tenancy.guards import principal_of
from tenantry.tenancy.request import tenant_request

__all__ = ("SessionController", "named_tenant", "token_response")


def token_response(issued: Issued) -> TokenResponse:
    return TokenResponse(
        access_token=issued.access_token, refresh_token=issued.refresh_token, expires_in=issued.expires_in
    )


def named_tenant(request: Request[Any, Any, Any], slug: str | None) -> str:
    """The slug of the organization that a body or the host names.

    Raises:
        ValidationFailedException: neither does, or each another.
    """
    host_tenant = tenant_request(request).host_tenant
    if slug is None and host_tenant is None:
        raise ValidationFailedException.of(
            "tenant", "Expected the organization's slug, here or as the host's first label."
        )
    if slug is not None and host_tenant is not None and slug != host_tenant:
        raise ValidationFailedException.of("tenant", "Expected the organization that the host names, or none.")
    return slug or host_tenant or ""


class SessionController(Controller):
    """Signing in, staying signed in, signing out."""

    path = "/auth"
    tags = ["auth"]

    @post("/login", operation_id="Login", summary="Log in", status_code=HTTP_200_OK, opt={"public": True})
    async def log_in(self, request: Request[Any, Any, Any], data: Annotated[LoginPayload, Body()]) -> TokenResponse:
        """Trade an e-mail address and a password for tokens, in one organization."""
        slug = named_tenant(request, data.tenant)
        authenticator: Authenticator = request.app.state.authenticator
        return token_response(
            await authenticator.log_in(slug, data.email, data.password, user_agent=request.headers.get("user-agent"))
        )

    @post("/refresh", operation_id="Refresh", summary="Refresh", status_code=HTTP_200_OK, opt={"public": True})
    async def refresh(self, request: Request[Any, Any, Any], data: Annotated[RefreshPayload, Body()]) -> TokenResponse:
        """Trade a refresh token for a new pair of tokens. Each is good for one trade."""
        authenticator: Authenticator = request.app.state.authenticator
        return token_response(
            await authenticator.refresh(data.refresh_token, host_tenant=tenant_request(request).host_tenant)
        )

    @post(
        "/logout",
        operation_id="Logout",
        summary="Log out",
        status_code=HTTP_204_NO_CONTENT,
        opt={"any_user": True},
        dependencies={"sessions": create_service_provider(UserSessionService)},
    )
    async def log_out(self, request: Request[Any, Any, Any], sessions: Injected[UserSessionService]) -> None:
        """End the session that the access token belongs to; both of its tokens are refused from now on."""
        principal = principal_of(request)
        assert isinstance(principal, UserPrincipal)  # noqa: S101 - what the tenants' plane loads
        await sessions.revoke(principal.session_id)
