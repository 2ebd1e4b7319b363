"""Routes of logging in with a factor, and of stepping up."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.params import Body
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.identity.enrolment import ENROLMENT
from tenantry.domain.identity.factors.controller import person_of, tenant_of
from tenantry.domain.identity.factors.desk import FactorDesk
from tenantry.domain.identity.factors.schemas import (
    PasskeyLoginOptions,
    PasskeyLoginPayload,
    PasskeyOptions,
    SecondFactorPayload,
    StepUpPayload,
    StepUpRead,
)
from tenantry.domain.identity.sessions.client import client_of
from tenantry.domain.identity.sessions.controller import client_for, named_tenant, token_answer
from tenantry.domain.identity.sessions.schemas import TokenResponse
from tenantry.kernel.security import named_tenant_id
from tenantry.tenancy.request import request_transaction, tenant_request

__all__ = ("FactorLoginController", "StepUpController")

_NO_TOKEN: list[dict[str, list[str]]] = [{}]
"""No token is one of the ways in: to what the router says, handlers can only add."""


def _desk(request: Request[Any, Any, Any]) -> FactorDesk:
    desk: FactorDesk = request.app.state.factor_desk
    return desk


class FactorLoginController(Controller):
    """Logging in with a second factor, or with a passkey alone."""

    path = "/auth"
    tags = ["auth"]

    @post(
        "/login/second-factor",
        operation_id="LoginSecondFactor",
        summary="Log in with a second factor",
        status_code=HTTP_200_OK,
        opt={"public": True},
        security=_NO_TOKEN,
    )
    async def second_factor(
        self, request: Request[Any, Any, Any], data: Annotated[SecondFactorPayload, Body()]
    ) -> Response[TokenResponse]:
        """Trade the challenge of a log-in, and a code, a recovery code or a passkey, for tokens.

        A challenge is good once, for a few minutes and a few wrong factors.
        """
        issued = await _desk(request).complete(
            data,
            host_tenant=tenant_request(request).host_tenant,
            client=client_for(request, data, named_tenant_id(data.challenge)),
        )
        return token_answer(request, issued, cookie=data.cookie)

    @post(
        "/passkeys/options",
        operation_id="StartPasskeyLogin",
        summary="Begin to log in with a passkey",
        status_code=HTTP_200_OK,
        opt={"public": True},
        security=_NO_TOKEN,
    )
    async def passkey_options(
        self, request: Request[Any, Any, Any], data: Annotated[PasskeyLoginOptions, Body()]
    ) -> PasskeyOptions:
        """What the browser needs for `navigator.credentials.get()`: it names nobody."""
        return await _desk(request).passkey_options(named_tenant(request, data.tenant))

    @post(
        "/passkeys/login",
        operation_id="LoginPasskey",
        summary="Log in with a passkey",
        status_code=HTTP_200_OK,
        opt={"public": True},
        security=_NO_TOKEN,
    )
    async def log_in_by_passkey(
        self, request: Request[Any, Any, Any], data: Annotated[PasskeyLoginPayload, Body()]
    ) -> Response[TokenResponse]:
        """Trade the answer of a passkey that has asked for a PIN or a fingerprint for tokens, without a password."""
        slug = named_tenant(request, data.tenant)
        tenant = await request.app.state.registry.find_slug(slug)
        client = client_for(request, data, None if tenant is None else tenant.id)
        issued = await _desk(request).log_in_by_passkey(slug, data, client=client)
        return token_answer(request, issued, cookie=data.cookie)


class StepUpController(Controller):
    """Proving again who one is, for what needs a recent log-in."""

    path = "/auth/step-up"
    tags = ["auth"]
    opt = {"any_user": True, ENROLMENT: True}

    @post("/options", operation_id="StartStepUp", summary="Begin to step up with a passkey", status_code=HTTP_200_OK)
    async def options(self, request: Request[Any, Any, Any]) -> PasskeyOptions:
        """What the browser needs for `navigator.credentials.get()`."""
        person, tenant = person_of(request), tenant_of(request)
        # The desk has transactions of its own, and no request holds two connections.
        await request_transaction(request).pause()
        return await _desk(request).step_up_options(tenant, person)

    @post("/", operation_id="StepUp", summary="Step up", status_code=HTTP_200_OK)
    async def step_up(self, request: Request[Any, Any, Any], data: Annotated[StepUpPayload, Body()]) -> StepUpRead:
        """Prove who one is with the password or, where there is a second factor, with that.

        Sensitive acts are open to the session for a while from now on. The tokens stay as they are.
        """
        person, tenant = person_of(request), tenant_of(request)
        await request_transaction(request).pause()
        at = await _desk(request).step_up(tenant, person, data, client=client_of(request))
        return StepUpRead(authenticated_at=at, expires_in=request.app.state.settings.step_up_after)
