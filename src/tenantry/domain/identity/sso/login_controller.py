"""Routes of signing in by a provider."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_303_SEE_OTHER

from tenantry.domain.identity.sessions.controller import client_for, named_tenant, token_answer
from tenantry.domain.identity.sessions.schemas import TokenResponse
from tenantry.domain.identity.sso.flow import LOGIN_LIFETIME, SingleSignOn
from tenantry.domain.identity.sso.schemas import SsoStartPayload, SsoStartResponse, SsoTokenPayload
from tenantry.kernel.errors import ClientException, ResourceNotFoundException
from tenantry.kernel.schema import END
from tenantry.kernel.security import named_tenant_id
from tenantry.tenancy.request import tenant_request

__all__ = ("SsoLoginController",)

# Said here: what msgspec is told of a type does not count for parameters.
_Tenant = Annotated[
    str,
    QueryParameter(
        min_length=1,
        max_length=63,
        pattern=rf"^[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?{END}",
        description="The organization's slug.",
    ),
]
_Connection = Annotated[UUID, QueryParameter(description="The connection's id.")]
_Challenge = Annotated[
    str,
    QueryParameter(
        name="codeChallenge",
        min_length=43,
        max_length=43,
        pattern=rf"^[A-Za-z0-9_-]{{43}}{END}",
        description="As in POST /api/auth/sso/start, which makes the address.",
    ),
]
# `state` itself is Litestar's own.
_State = Annotated[
    str, QueryParameter(name="state", min_length=1, max_length=200, description="What the browser was given.")
]
_Code = Annotated[
    str | None, QueryParameter(min_length=1, max_length=4000, description="What the provider trades for tokens.")
]
_Error = Annotated[str | None, QueryParameter(max_length=200, description="In place of a code (RFC 6749 §4.1.2.1).")]
_Issuer = Annotated[
    str | None, QueryParameter(name="iss", max_length=500, description="Whose answer it is (RFC 9207).")
]


class SsoLoginController(Controller):
    """Signing in by the organization's provider."""

    path = "/auth/sso"
    tags = ["auth"]
    # No token is one of the ways in: to what the router says, handlers can only add.
    security = [{}]

    @post(
        "/start",
        operation_id="LocateSso",
        summary="Where to sign in",
        status_code=HTTP_200_OK,
        opt={"public": True},
        raises=[ResourceNotFoundException],
    )
    async def locate(
        self, request: Request[Any, Any, Any], data: Annotated[SsoStartPayload, Body()]
    ) -> SsoStartResponse:
        """The address to which a page sends the browser, by an e-mail address' domain or by a connection.

        The answer does not depend on whether somebody has that address.
        """
        sso: SingleSignOn = request.app.state.sso
        url = await sso.locate(
            named_tenant(request, data.tenant),
            email=data.email,
            connection_id=data.connection_id,
            challenge=data.code_challenge,
        )
        return SsoStartResponse(url=url)

    @get(
        "/start",
        operation_id="StartSso",
        summary="Go and sign in",
        status_code=HTTP_303_SEE_OTHER,
        opt={"public": True},
        raises=[ResourceNotFoundException],
        responses={HTTP_303_SEE_OTHER: ResponseSpec(None, description="To the provider, in `Location`.")},
    )
    async def start(
        self, request: Request[Any, Any, Any], tenant: _Tenant, connection: _Connection, code_challenge: _Challenge
    ) -> Response[None]:
        """For the browser itself: sends it to the provider, with a cookie that it comes back with."""
        sso: SingleSignOn = request.app.state.sso
        departure = await sso.start(tenant, connection, code_challenge)
        return Response(
            None,
            status_code=HTTP_303_SEE_OTHER,
            headers={"Location": departure.url},
            cookies=[
                Cookie(
                    key=departure.cookie,
                    value=departure.value,
                    max_age=LOGIN_LIFETIME,
                    path="/",
                    httponly=True,
                    secure=departure.is_secure,
                    # It has to come along when the provider sends the browser back, which is another site.
                    samesite="lax",
                )
            ],
        )

    @get(
        "/callback",
        operation_id="FinishSso",
        summary="Come back from the provider",
        status_code=HTTP_303_SEE_OTHER,
        opt={"public": True},
        raises=[ClientException],
        responses={HTTP_303_SEE_OTHER: ResponseSpec(None, description="To the front end, in `Location`.")},
    )
    async def arrive(
        self,
        request: Request[Any, Any, Any],
        login_state: _State,
        code: _Code = None,
        error: _Error = None,
        issuer: _Issuer = None,
    ) -> Response[None]:
        """The redirect URI to register with providers: sends the browser to the page `sso` of the front end.

        In the fragment is a `code` for POST /api/auth/sso/token, or an `error`.
        """
        sso: SingleSignOn = request.app.state.sso
        arrival = await sso.arrive(state=login_state, code=code, error=error, issuer=issuer, cookies=request.cookies)
        return Response(
            None,
            status_code=HTTP_303_SEE_OTHER,
            headers={"Location": arrival.url},
            cookies=[
                Cookie(
                    key=arrival.cookie,
                    value="",
                    max_age=0,
                    path="/",
                    httponly=True,
                    secure=arrival.is_secure,
                    samesite="lax",
                )
            ],
        )

    @post(
        "/token",
        operation_id="TradeSsoCode",
        summary="Trade the code for tokens",
        status_code=HTTP_200_OK,
        opt={"public": True},
    )
    async def trade(
        self, request: Request[Any, Any, Any], data: Annotated[SsoTokenPayload, Body()]
    ) -> Response[TokenResponse]:
        """Trade the code from the address' fragment, and the verifier of the page that began, for tokens; once."""
        sso: SingleSignOn = request.app.state.sso
        issued = await sso.trade(
            data.code,
            data.code_verifier,
            host_tenant=tenant_request(request).host_tenant,
            client=client_for(request, data, named_tenant_id(data.code)),
        )
        return token_answer(request, issued, cookie=data.cookie)
