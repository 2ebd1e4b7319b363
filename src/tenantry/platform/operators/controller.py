"""Routes of operators."""

from __future__ import annotations

from typing import Annotated, Any, cast
from uuid import UUID

from litestar import Controller, Request, get, patch, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK

from tenantry.kernel.schema import Page, changes
from tenantry.kernel.security.policy import check_new_password
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.platform.access import OperatorPrincipal, actor_of
from tenantry.platform.operators.schemas import (
    OperatorCreate,
    OperatorLoginPayload,
    OperatorMeRead,
    OperatorRead,
    OperatorTokenResponse,
    OperatorUpdate,
)
from tenantry.platform.operators.service import OperatorAuthenticator, OperatorService, provide_operators
from tenantry.tenancy.guards import principal_of, requires_permission
from tenantry.tenancy.request import request_transaction

__all__ = ("OperatorAuthController", "OperatorController")


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


class OperatorController(Controller):
    """The people who run the platform."""

    path = "/operators"
    tags = ["platform"]
    dependencies = {"operators": provide_operators}

    @get(
        "/",
        operation_id="ListOperators",
        summary="List operators",
        guards=[requires_permission("operators:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("email", "role", "created_at"), searched=("email", "name"), default="email"
            )
        },
    )
    async def list_operators(
        self, operators: Injected[OperatorService], listing: Injected[ListQuery]
    ) -> Page[OperatorRead]:
        """Everybody who may log in to the control plane, or could once."""
        return await operators.page(listing, OperatorRead)

    @post(
        "/",
        operation_id="CreateOperator",
        summary="Create an operator",
        guards=[requires_permission("operators:write")],
    )
    async def create_operator(
        self,
        request: Request[Any, Any, Any],
        operators: Injected[OperatorService],
        data: Annotated[OperatorCreate, Body()],
    ) -> OperatorRead:
        """Give somebody access to the control plane, with a role."""
        state = request.app.state
        check_new_password(state.settings, data.password, email=data.email, organization=(), name=data.name)
        # Hashing takes a tenth of a second: no connection is held meanwhile.
        transaction = request_transaction(request)
        await transaction.pause()
        hashed = await state.hasher.hash(data.password, key="operators")
        operators = await provide_operators(db_session=await transaction.session())
        made = await operators.add(
            email=data.email, name=data.name, hashed_password=hashed, role=data.role, actor=actor_of(request)
        )
        return to_struct(made, OperatorRead)

    @get(
        "/{operator_id:uuid}",
        operation_id="GetOperator",
        summary="Get an operator",
        guards=[requires_permission("operators:read")],
    )
    async def get_operator(self, operators: Injected[OperatorService], operator_id: FromPath[UUID]) -> OperatorRead:
        """One operator."""
        return to_struct(await operators.get(operator_id), OperatorRead)

    @patch(
        "/{operator_id:uuid}",
        operation_id="UpdateOperator",
        summary="Change an operator",
        guards=[requires_permission("operators:write")],
    )
    async def update_operator(
        self,
        request: Request[Any, Any, Any],
        operators: Injected[OperatorService],
        operator_id: FromPath[UUID],
        data: Annotated[OperatorUpdate, Body()],
    ) -> OperatorRead:
        """Change the role, or take the access away. At least one active owner must remain."""
        changed = await operators.change(operator_id, changes(data), actor=actor_of(request))
        return to_struct(changed, OperatorRead)
