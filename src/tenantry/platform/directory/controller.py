"""The route for people who have forgotten what their organization is called here."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, post
from litestar.params import Body
from litestar.status_codes import HTTP_202_ACCEPTED

from tenantry.kernel.http.address import client_address, parse_networks
from tenantry.platform.directory.schemas import OrganizationsRequest
from tenantry.platform.directory.service import Organizations

__all__ = ("OrganizationsController",)


class OrganizationsController(Controller):
    """Finding one's organizations."""

    path = "/auth/organizations"
    tags = ["auth"]

    @post(
        "/",
        operation_id="RequestOrganizations",
        summary="Ask for one's organizations",
        status_code=HTTP_202_ACCEPTED,
        opt={"public": True},
    )
    async def ask(self, request: Request[Any, Any, Any], data: Annotated[OrganizationsRequest, Body()]) -> None:
        """Have the list of organizations mailed in which the address has an account, each with where to log in.

        The answer is the same whether or not there are any, and the same is done for it.
        """
        state = request.app.state
        organizations: Organizations = state.organizations
        client = client_address(request.scope, parse_networks(state.settings.trusted_proxies)).host
        await organizations.request(data.email, client=client)
