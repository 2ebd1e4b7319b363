"""Routes of addresses that are to be confirmed."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, post
from litestar.params import Body
from litestar.status_codes import HTTP_202_ACCEPTED, HTTP_204_NO_CONTENT

from tenantry.domain.identity.sessions.controller import named_tenant
from tenantry.domain.identity.verification.schemas import EmailVerificationConfirm, EmailVerificationRequest
from tenantry.domain.identity.verification.service import EmailVerifications
from tenantry.tenancy.guards import acting_user_id
from tenantry.tenancy.request import own_tenant, request_transaction, tenant_request

__all__ = ("EmailVerificationController", "OwnEmailVerificationController")


class EmailVerificationController(Controller):
    """Confirming an address by a mailed link."""

    path = "/auth/verify-email"
    tags = ["auth"]

    @post(
        "/request",
        operation_id="RequestEmailVerification",
        summary="Ask for a link that confirms an address",
        status_code=HTTP_202_ACCEPTED,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def ask(self, request: Request[Any, Any, Any], data: Annotated[EmailVerificationRequest, Body()]) -> None:
        """Have a link mailed that confirms the address of an account, for people who are not let in before.

        The answer is the same whether or not there is such an account, and takes as long.
        """
        verifications: EmailVerifications = request.app.state.email_verifications
        await verifications.request(named_tenant(request, data.tenant), data.email)

    @post(
        "/",
        operation_id="VerifyEmail",
        summary="Confirm an address",
        status_code=HTTP_204_NO_CONTENT,
        opt={"public": True},
        # No token is one of the ways in: to what the router says, handlers can only add.
        security=[{}],
    )
    async def confirm(self, request: Request[Any, Any, Any], data: Annotated[EmailVerificationConfirm, Body()]) -> None:
        """Confirm an address with the token of a mailed link, once."""
        verifications: EmailVerifications = request.app.state.email_verifications
        await verifications.confirm(data.token, host_tenant=tenant_request(request).host_tenant)


class OwnEmailVerificationController(Controller):
    """Confirming one's own address."""

    path = "/users/me/verify-email"
    tags = ["users"]

    @post(
        "/",
        operation_id="RequestMyEmailVerification",
        summary="Have my address confirmed",
        status_code=HTTP_202_ACCEPTED,
        opt={"any_user": True},
    )
    async def ask(self, request: Request[Any, Any, Any]) -> None:
        """Have a link mailed to the caller's address that confirms it; nothing, where it is confirmed already."""
        # It has transactions of its own: no request holds two connections.
        await request_transaction(request).pause()
        verifications: EmailVerifications = request.app.state.email_verifications
        await verifications.request_own(own_tenant(request), acting_user_id(request))
