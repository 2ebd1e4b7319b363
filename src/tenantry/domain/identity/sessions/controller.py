"""Routes of signing in and out."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, post
from litestar.params import Body
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT
from msgspec import UNSET

from tenantry.domain.identity.enrolment import ENROLMENT
from tenantry.domain.identity.sessions.client import Client, client_of
from tenantry.domain.identity.sessions.cookies import (
    device_cookie,
    read_cookie,
    refresh_cookie,
    require_own_page,
)
from tenantry.domain.identity.sessions.manage_controller import own_principal, signed_out
from tenantry.domain.identity.sessions.schemas import LoginPayload, RefreshPayload, TokenResponse, Whereabouts
from tenantry.domain.identity.sessions.service import Authenticator, Issued, UserSessionService
from tenantry.kernel.errors import NotAuthenticatedException, ValidationFailedException
from tenantry.kernel.service import Injected, create_service_provider
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.registry import TenantRegistry
from tenantry.tenancy.request import tenant_request

__all__ = ("SessionController", "client_for", "named_tenant", "token_answer")


def client_for(request: Request[Any, Any, Any], data: Whereabouts, tenant_id: UUID | None) -> Client:
    """Who signs in to that organization, as the request and its body say.

    Raises:
        PermissionDeniedException: cookies are asked for, and the request is not a page's of ours.
    """
    token = data.device_token
    if data.cookie:
        require_own_page(request)
        if token is None and tenant_id is not None:
            token = read_cookie(request, "device", tenant_id)
    return client_of(request, device_token=token, remember=data.cookie or data.remember_device)


def token_answer(
    request: Request[Any, Any, Any], issued: Issued, *, cookie: bool, status_code: int = HTTP_200_OK
) -> Response[TokenResponse]:
    """The tokens as an answer; with `cookie`, the refresh token and the device's as cookies, and in them alone.

    Whoever is given cookies has been asked by `client_for` before.
    """
    body = TokenResponse(
        access_token=issued.access_token,
        refresh_token=issued.refresh_token,
        expires_in=issued.expires_in,
        enrol_by=issued.enrol_by,
    )
    if not cookie:
        if issued.device_token is not None:
            body.device_token = issued.device_token
        return Response(body, status_code=status_code)
    body.refresh_token = UNSET
    response = Response(body, status_code=status_code)
    response.set_cookie(refresh_cookie(issued.tenant_id, issued.refresh_token, settings=request.app.state.settings))
    if issued.device_token is not None:
        response.set_cookie(device_cookie(issued.tenant_id, issued.device_token))
    return response


async def _cookies_tenant(request: Request[Any, Any, Any], slug: str) -> TenantContext | None:
    registry: TenantRegistry = request.app.state.registry
    return await registry.find_slug(slug)


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
    async def log_in(
        self, request: Request[Any, Any, Any], data: Annotated[LoginPayload, Body()]
    ) -> Response[TokenResponse]:
        """Trade an e-mail address and a password for tokens, in one organization.

        With `cookie`, for pages in browsers: the refresh token comes as a cookie, and the request must say that it is
        such a page's (the header `X-CSRF: 1`, and an `Origin` of ours).

        Where the account has a second factor, the answer is the problem `second-factor-required` (401) instead, with a
        `challenge` for `POST /api/auth/login/second-factor` and the `methods` that are good there.
        """
        slug = named_tenant(request, data.tenant)
        tenant = await _cookies_tenant(request, slug)
        client = client_for(request, data, None if tenant is None else tenant.id)
        authenticator: Authenticator = request.app.state.authenticator
        issued = await authenticator.log_in(slug, data.email, data.password, client=client)
        return token_answer(request, issued, cookie=data.cookie)

    @post("/refresh", operation_id="Refresh", summary="Refresh", status_code=HTTP_200_OK, opt={"public": True})
    async def refresh(
        self, request: Request[Any, Any, Any], data: Annotated[RefreshPayload, Body()]
    ) -> Response[TokenResponse]:
        """Trade a refresh token for a new pair of tokens. Each is good for one trade.

        Without `refreshToken` it is the cookie's, of the organization that `tenant` or the host names; then, or with
        `cookie`, the new one comes as a cookie as well, and the request must say that it is a page's of ours (the
        header `X-CSRF: 1`, and an `Origin`).
        """
        authenticator: Authenticator = request.app.state.authenticator
        host_tenant, token = tenant_request(request).host_tenant, data.refresh_token
        by_cookie = data.cookie or token is None
        if by_cookie:
            require_own_page(request)
        if token is None:
            slug = named_tenant(request, data.tenant)
            tenant = await _cookies_tenant(request, slug)
            token = read_cookie(request, "refresh", tenant.id) if tenant is not None else None
            if token is None:
                raise NotAuthenticatedException("There is no refresh token, neither in the body nor in a cookie.")
            # As if the host had named it: whatever is in the cookie, it is for this organization or for none.
            host_tenant = slug
        issued = await authenticator.refresh(token, host_tenant=host_tenant, client=client_of(request))
        return token_answer(request, issued, cookie=by_cookie)

    @post(
        "/logout",
        operation_id="Logout",
        summary="Log out",
        status_code=HTTP_204_NO_CONTENT,
        opt={"any_user": True, ENROLMENT: True},
        dependencies={"sessions": create_service_provider(UserSessionService)},
    )
    async def log_out(self, request: Request[Any, Any, Any], sessions: Injected[UserSessionService]) -> Response[None]:
        """End the session that the access token belongs to; both of its tokens are refused from now on."""
        await sessions.revoke(own_principal(request).session_id)
        return signed_out(request)
