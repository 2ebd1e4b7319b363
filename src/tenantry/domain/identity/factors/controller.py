"""Routes of one's own second factors."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from tenantry.domain.identity.enrolment import ENROLMENT, read_standing
from tenantry.domain.identity.factors.desk import FactorDesk
from tenantry.domain.identity.factors.models import Passkey
from tenantry.domain.identity.factors.policy import SecurityService, provide_security
from tenantry.domain.identity.factors.schemas import (
    PasskeyCreate,
    PasskeyCreated,
    PasskeyOptions,
    PasskeyRead,
    PasskeyUpdate,
    RecoveryCodes,
    SecondFactorRead,
    SecurityRead,
    SecurityUpdate,
    TotpConfirm,
    TotpEnrolment,
    TotpRead,
)
from tenantry.domain.identity.factors.service import FactorService, provide_factors
from tenantry.domain.identity.factors.totp import enrolment
from tenantry.domain.identity.principal import UserPrincipal
from tenantry.domain.identity.step_up import requires_recent_authentication
from tenantry.domain.identity.users.authority import require_may_change
from tenantry.domain.identity.users.providers import provide_users
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person
from tenantry.tenancy.request import tenant_request

__all__ = ("SecondFactorController", "SecurityController", "UserFactorController", "person_of", "tenant_of")

_RECENT = [requires_recent_authentication()]


def person_of(request: Request[Any, Any, Any]) -> UserPrincipal:
    """The caller, who is no machine: the route is open to any user, and says nothing of API keys."""
    principal = principal_of(request)
    assert isinstance(principal, UserPrincipal)  # noqa: S101 - what the tenants' plane loads
    return principal


def tenant_of(request: Request[Any, Any, Any]) -> TenantContext:
    """The caller's organization."""
    tenant = tenant_request(request).tenant
    assert tenant is not None  # noqa: S101 - the route is not public
    return tenant


class SecondFactorController(Controller):
    """What the caller can prove themselves with besides a password."""

    path = "/second-factor"
    tags = ["second factor"]
    dependencies = {"factors": provide_factors}
    opt = {"any_user": True, ENROLMENT: True}

    @get("/", operation_id="GetSecondFactor", summary="Get my second factors")
    async def get_second_factor(
        self, request: Request[Any, Any, Any], factors: Injected[FactorService]
    ) -> SecondFactorRead:
        """What the caller has, and whether the organization asks for it."""
        user_id = person_of(request).id
        session = factors.repository.session
        app = await factors.totp_of(user_id)
        passkeys, codes = await factors.counts(user_id)
        _, enrol_by = await read_standing(session, user_id)
        rules = await SecurityService(session).read()
        return SecondFactorRead(
            totp=TotpRead(confirmed_at=app.confirmed_at, last_used_at=app.last_used_at)
            if app is not None and app.confirmed_at is not None
            else None,
            passkeys=passkeys,
            recovery_codes=codes,
            is_required=rules.second_factor_required,
            enrol_by=enrol_by,
        )

    @post("/totp", operation_id="StartTotp", summary="Set an authenticator app up", guards=_RECENT)
    async def start_totp(self, request: Request[Any, Any, Any], factors: Injected[FactorService]) -> TotpEnrolment:
        """A secret for an authenticator app, which counts once a code of it is confirmed. The answer has it this once.

        One that was not confirmed is replaced.
        """
        tenant = tenant_of(request)
        secret, user = await factors.start_totp(person_of(request).id, tenant=tenant, vault=request.app.state.vault)
        made = enrolment(secret, account=user.email, issuer=tenant.name)
        return TotpEnrolment(secret=made.secret, uri=made.uri, qr_svg=made.svg, qr_png=made.png)

    @post(
        "/totp/confirm",
        operation_id="ConfirmTotp",
        summary="Confirm an authenticator app",
        status_code=HTTP_200_OK,
        guards=_RECENT,
    )
    async def confirm_totp(
        self, request: Request[Any, Any, Any], factors: Injected[FactorService], data: Annotated[TotpConfirm, Body()]
    ) -> RecoveryCodes:
        """Let the app count, by a code that it shows. With one's first factor there are recovery codes, shown once."""
        desk: FactorDesk = request.app.state.factor_desk
        return RecoveryCodes(
            recovery_codes=await factors.confirm_totp(
                person_of(request).id,
                data.code,
                tenant=tenant_of(request),
                vault=request.app.state.vault,
                settings=request.app.state.settings,
                now=desk.clock(),
            )
        )

    @delete("/totp", operation_id="RemoveTotp", summary="Remove my authenticator app", guards=_RECENT)
    async def remove_totp(self, request: Request[Any, Any, Any], factors: Injected[FactorService]) -> None:
        """Its codes are refused from now on. With the last factor the recovery codes go."""
        await factors.remove_totp(person_of(request).id, settings=request.app.state.settings)

    @post(
        "/recovery-codes",
        operation_id="RenewRecoveryCodes",
        summary="Make new recovery codes",
        status_code=HTTP_200_OK,
        guards=_RECENT,
    )
    async def renew_recovery_codes(
        self, request: Request[Any, Any, Any], factors: Injected[FactorService]
    ) -> RecoveryCodes:
        """Ten codes, shown once and each good once. Those from before are worth nothing."""
        return RecoveryCodes(recovery_codes=await factors.renew_recovery_codes(person_of(request).id))

    @get(
        "/passkeys",
        operation_id="ListPasskeys",
        summary="List my passkeys",
        dependencies={
            "listing": create_list_query(
                sortable=("name", "created_at", "last_used_at"), searched=("name",), default="created_at"
            )
        },
    )
    async def list_passkeys(
        self, request: Request[Any, Any, Any], factors: Injected[FactorService], listing: Injected[ListQuery]
    ) -> Page[PasskeyRead]:
        """The caller's own."""
        return await factors.page(listing, PasskeyRead, Passkey.user_id == person_of(request).id)

    @post(
        "/passkeys/options",
        operation_id="StartPasskey",
        summary="Begin to register a passkey",
        status_code=HTTP_200_OK,
        guards=_RECENT,
    )
    async def start_passkey(self, request: Request[Any, Any, Any], factors: Injected[FactorService]) -> PasskeyOptions:
        """What the browser needs for `navigator.credentials.create()`."""
        person, desk = person_of(request), _desk(request)
        ttl: int = request.app.state.settings.second_factor_ttl
        token, public_key = await factors.registration(
            person.id, person.session_id, tenant=tenant_of(request), party=desk.party, ttl=ttl
        )
        return PasskeyOptions(challenge=token, public_key=public_key, expires_in=ttl)

    @post("/passkeys", operation_id="CreatePasskey", summary="Register a passkey", guards=_RECENT)
    async def create_passkey(
        self,
        request: Request[Any, Any, Any],
        factors: Injected[FactorService],
        data: Annotated[PasskeyCreate, Body()],
    ) -> PasskeyCreated:
        """Keep the passkey that the browser has made. With one's first factor there are recovery codes, shown once."""
        person = person_of(request)
        passkey, codes = await factors.register(
            person.id,
            person.session_id,
            token=data.challenge,
            name=data.name,
            registration=data.passkey,
            tenant=tenant_of(request),
            party=_desk(request).party,
            settings=request.app.state.settings,
        )
        read = to_struct(passkey, PasskeyRead)
        return PasskeyCreated(**msgspec.structs.asdict(read), recovery_codes=codes)

    @patch("/passkeys/{passkey_id:uuid}", operation_id="UpdatePasskey", summary="Rename a passkey")
    async def update_passkey(
        self,
        request: Request[Any, Any, Any],
        factors: Injected[FactorService],
        passkey_id: FromPath[UUID],
        data: Annotated[PasskeyUpdate, Body()],
    ) -> PasskeyRead:
        """Change its name, by which people tell one from another."""
        return to_struct(await factors.rename(person_of(request).id, passkey_id, changes(data)), PasskeyRead)

    @delete("/passkeys/{passkey_id:uuid}", operation_id="DeletePasskey", summary="Delete a passkey", guards=_RECENT)
    async def delete_passkey(
        self, request: Request[Any, Any, Any], factors: Injected[FactorService], passkey_id: FromPath[UUID]
    ) -> None:
        """It is refused from now on. With the last factor the recovery codes go."""
        await factors.remove_passkey(person_of(request).id, passkey_id, settings=request.app.state.settings)


def _desk(request: Request[Any, Any, Any]) -> FactorDesk:
    desk: FactorDesk = request.app.state.factor_desk
    return desk


class UserFactorController(Controller):
    """Other people's second factors, of which nobody sees anything."""

    path = "/users/{user_id:uuid}/second-factor"
    tags = ["users"]
    dependencies = {"factors": provide_factors, "users": provide_users}

    @delete(
        "/",
        operation_id="ResetSecondFactor",
        summary="Reset a user's second factors",
        # A machine that could take factors away would need but a password to be a person.
        guards=[requires_permission("users:write"), requires_person, requires_recent_authentication()],
        status_code=HTTP_204_NO_CONTENT,
    )
    async def reset_second_factor(
        self,
        request: Request[Any, Any, Any],
        factors: Injected[FactorService],
        users: Injected[UserService],
        user_id: FromPath[UUID],
    ) -> None:
        """Take away all factors of a person who has lost them, and end their sessions. They are told by mail.

        Nobody does this to an account that permits more than their own.
        """
        catalogue: PermissionCatalogue = request.app.state.permissions
        session = users.repository.session
        await require_may_change(principal_of(request), await users.get(user_id), session, catalogue)
        await factors.reset(user_id, settings=request.app.state.settings)


class SecurityController(Controller):
    """What the organization asks of its people."""

    path = "/organization/security"
    tags = ["organization"]
    dependencies = {"security": provide_security}

    @get(
        "/",
        operation_id="GetOrganizationSecurity",
        summary="Get the security settings",
        guards=[requires_permission("organization:read")],
    )
    async def get_security(self, security: Injected[SecurityService]) -> SecurityRead:
        """Whether everybody needs a second factor, and how many have none yet."""
        return await security.read()

    @patch(
        "/",
        operation_id="UpdateOrganizationSecurity",
        summary="Change the security settings",
        guards=[requires_permission("organization:secure"), requires_person, requires_recent_authentication()],
    )
    async def update_security(
        self,
        request: Request[Any, Any, Any],
        security: Injected[SecurityService],
        data: Annotated[SecurityUpdate, Body()],
    ) -> SecurityRead:
        """Ask everybody for a second factor, or no longer.

        Who has none when the grace time is over can set one up, and do nothing else; the caller too.
        """
        return await security.change(changes(data), tenant_id=tenant_of(request).id)
