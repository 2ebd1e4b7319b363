"""Routes of signing up."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.params import Body
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from tenantry.domain.identity.sessions.controller import client_for, named_tenant, token_answer
from tenantry.domain.identity.sessions.schemas import TokenResponse
from tenantry.domain.identity.sign_up.schemas import SignUpAccept, SignUpRequest
from tenantry.domain.identity.sign_up.service import SignUps
from tenantry.kernel.security import named_tenant_id
from tenantry.tenancy.request import tenant_request

__all__ = ("SignUpController",)


class SignUpController(Controller):
    """Joining an organization without an invitation."""

    path = "/auth/sign-up"
    tags = ["auth"]

    @post(
        "/",
        operation_id="SignUp",
        summary="Sign up to an organization",
        status_code=HTTP_202_ACCEPTED,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def ask(self, request: Request[Any, Any, Any], data: Annotated[SignUpRequest, Body()]) -> None:
        """Have a link mailed with which an account can be made, where the organization lets people do so.

        The answer is the same whether or not there is such an organization, whether or not it lets people of that
        address sign up, and whether or not they have an account; and it takes as long.
        """
        sign_ups: SignUps = request.app.state.sign_ups
        await sign_ups.request(named_tenant(request, data.tenant), data.email, request.app.state.permissions)

    @post(
        "/accept",
        operation_id="AcceptSignUp",
        summary="Make an account",
        status_code=HTTP_200_OK,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def accept(
        self, request: Request[Any, Any, Any], data: Annotated[SignUpAccept, Body()]
    ) -> Response[TokenResponse]:
        """Make an account with the token of a mailed link, once, and sign in. Its address is confirmed thereby."""
        sign_ups: SignUps = request.app.state.sign_ups
        issued = await sign_ups.accept(
            data.token,
            data.password,
            name=data.name,
            host_tenant=tenant_request(request).host_tenant,
            client=client_for(request, data, named_tenant_id(data.token)),
            catalogue=request.app.state.permissions,
        )
        return token_answer(request, issued, cookie=data.cookie)
