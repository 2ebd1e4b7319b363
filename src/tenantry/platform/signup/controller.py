"""Routes of sign-ups, for people who have no organization yet."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body
from litestar.status_codes import HTTP_201_CREATED, HTTP_202_ACCEPTED

from tenantry.kernel.http.address import client_address, parse_networks
from tenantry.platform.signup.schemas import SignUpConfirm, SignUpConfirmed, SignUpCreate, SignUpPending
from tenantry.platform.signup.service import Signups

__all__ = ("SignUpController",)


class SignUpController(Controller):
    """Making an organization for oneself."""

    path = "/signup"
    tags = ["auth"]

    @post(
        "/",
        operation_id="SignUpOrganization",
        summary="Sign up",
        status_code=HTTP_202_ACCEPTED,
        opt={"public": True},
    )
    async def sign_up(self, request: Request[Any, Any, Any], data: Annotated[SignUpCreate, Body()]) -> SignUpPending:
        """Ask for an organization. A link is mailed to the address, and nothing is made before it is used.

        The answer tells nothing of the address; that a slug is taken, it does.
        """
        state = request.app.state
        sign_ups: Signups = state.signups
        client = client_address(request.scope, parse_networks(state.settings.trusted_proxies)).host
        made = await sign_ups.request(data, client=client)
        return SignUpPending(
            id=made.id, slug=made.slug, held_until=made.held_until or made.created_at, expires_at=made.expires_at
        )

    @post(
        "/confirm",
        operation_id="ConfirmSignUp",
        summary="Confirm a sign-up",
        opt={"public": True},
        responses={
            HTTP_202_ACCEPTED: ResponseSpec(
                SignUpConfirmed, description="It is being made; ask again with the same token in a moment."
            )
        },
    )
    async def confirm(
        self, request: Request[Any, Any, Any], data: Annotated[SignUpConfirm, Body()]
    ) -> Response[SignUpConfirmed]:
        """Make the organization with the token of a mailed link, and with its owner, whose address is thereby verified.

        Asked again, as after an answer that was lost, it answers the same organization and makes no other.
        """
        sign_ups: Signups = request.app.state.signups
        made = await sign_ups.confirm(data.token, password=data.password, slug=data.slug)
        tenant = made.tenant
        body = SignUpConfirmed(
            tenant_id=tenant.id,
            slug=tenant.slug,
            name=tenant.name,
            status=tenant.status,
            email=tenant.owner_email,
            owner_invitation=made.invitation,
        )
        if tenant.status == "provisioning":
            return Response(body, status_code=HTTP_202_ACCEPTED, headers={"Retry-After": "1"})
        return Response(body, status_code=HTTP_201_CREATED)
