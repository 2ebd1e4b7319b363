"""Routes of passwords that are changed, and of forgotten ones."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, post
from litestar.params import Body
from litestar.status_codes import HTTP_202_ACCEPTED, HTTP_204_NO_CONTENT

from tenantry.domain.identity.passwords.changing import PasswordChanges
from tenantry.domain.identity.passwords.schemas import PasswordChange, PasswordResetConfirm, PasswordResetRequest
from tenantry.domain.identity.passwords.service import PasswordResets
from tenantry.domain.identity.principal import own_session
from tenantry.domain.identity.sessions.controller import named_tenant
from tenantry.tenancy.request import own_tenant, request_transaction, tenant_request

__all__ = ("OwnPasswordController", "PasswordController")


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
    )
    async def confirm(self, request: Request[Any, Any, Any], data: Annotated[PasswordResetConfirm, Body()]) -> None:
        """Set a new password with the token of a mailed link, once. All of the account's sessions end."""
        resets: PasswordResets = request.app.state.password_resets
        await resets.confirm(data.token, data.password, host_tenant=tenant_request(request).host_tenant)


class OwnPasswordController(Controller):
    """The caller's own password."""

    path = "/users/me/password"
    tags = ["users"]

    @post(
        "/",
        operation_id="ChangeMyPassword",
        summary="Change my password",
        status_code=HTTP_204_NO_CONTENT,
        opt={"any_user": True},
    )
    async def change(self, request: Request[Any, Any, Any], data: Annotated[PasswordChange, Body()]) -> None:
        """Trade the old password for a new one. The caller's other sessions end, this one stays."""
        principal = own_session(request)
        # No connection is held while passwords are hashed: the pool is everybody's.
        await request_transaction(request).pause()
        changes: PasswordChanges = request.app.state.password_changes
        await changes.change(
            own_tenant(request),
            principal.id,
            principal.session_id,
            old_password=data.old_password,
            new_password=data.new_password,
        )
