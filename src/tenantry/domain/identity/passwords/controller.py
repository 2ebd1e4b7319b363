"""Routes of forgotten passwords."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, post
from litestar.params import Body
from litestar.status_codes import HTTP_202_ACCEPTED, HTTP_204_NO_CONTENT

from tenantry.domain.identity.passwords.schemas import PasswordResetConfirm, PasswordResetRequest
from tenantry.domain.identity.passwords.service import PasswordResets
from tenantry.domain.identity.sessions.controller import named_tenant
from tenantry.tenancy.request import tenant_request

__all__ = ("PasswordController",)


class PasswordController(Controller):
    """Setting a password without the old one."""

    path = "/auth/password-reset"
    tags = ["auth"]

    @post(
        "/",
        operation_id="RequestPasswordReset",
        summary="Ask for a password reset",
        status_code=HTTP_202_ACCEPTED,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def ask(self, request: Request[Any, Any, Any], data: Annotated[PasswordResetRequest, Body()]) -> None:
        """Have a link mailed with which a new password can be set.

        The answer is the same whether or not there is such an account, and takes as long.
        """
        resets: PasswordResets = request.app.state.password_resets
        await resets.request(named_tenant(request, data.tenant), data.email)

    @post(
        "/confirm",
        operation_id="ConfirmPasswordReset",
        summary="Reset a password",
        status_code=HTTP_204_NO_CONTENT,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def confirm(self, request: Request[Any, Any, Any], data: Annotated[PasswordResetConfirm, Body()]) -> None:
        """Set a new password with the token of a mailed link, once. All of the account's sessions end."""
        resets: PasswordResets = request.app.state.password_resets
        await resets.confirm(data.token, data.password, host_tenant=tenant_request(request).host_tenant)
