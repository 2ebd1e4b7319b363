"""Routes of operators."""

from __future__ import annotations

from typing import Annotated, Any, cast

from litestar import Controller, Request, get, post
from litestar.params import Body
from litestar.status_codes import HTTP_200_OK

from tenantry.platform.access import OperatorPrincipal
from tenantry.platform.operators.schemas import OperatorLoginPayload, OperatorMeRead, OperatorTokenResponse
from tenantry.platform.operators.service import OperatorAuthenticator
from tenantry.tenancy.guards import principal_of

__all__ = ("OperatorAuthController",)


class OperatorAuthController(Controller):
    """Operators' log-in."""

    path = "/auth"
    tags = ["platform"]

    @post("/login", operation_id="OperatorLogin", summary="Log in", status_code=HTTP_200_OK, opt={"public": True})
    async def log_in(
        self, request: Request[Any, Any, Any], data: Annotated[OperatorLoginPayload, Body()]
    ) -> OperatorTokenResponse:
        """Trade an operator's password for a token. It opens no tenant's route."""
        authenticator: OperatorAuthenticator = request.app.state.operator_authenticator
        token, ttl = await authenticator.log_in(data.email, data.password)
        return OperatorTokenResponse(access_token=token, expires_in=ttl)

    @get("/me", operation_id="GetOperatorMe", summary="Who am I", opt={"any_user": True})
    async def me(self, request: Request[Any, Any, Any]) -> OperatorMeRead:
        """The operator that is asking."""
        principal = cast("OperatorPrincipal", principal_of(request))
        return OperatorMeRead(
            id=principal.id, email=principal.email, role=principal.role, permissions=sorted(principal.permissions)
        )
