"""What it takes to call the routes of second factors: something to confirm, a device, a password to prove it by."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert
from uuid_utils.compat import uuid7

from tenantry.domain.identity.factors.models import Passkey, TotpFactor
from tenantry.domain.identity.factors.proofs import totp_purpose
from tenantry.domain.identity.factors.totp import enrolment, new_secret
from tests.authenticator import Device, Phone
from tests.isolation.planting import plant
from tests.world import PASSWORD, Caller, TenantHandle

__all__ = ("prepare_factors",)

_PASSKEYS = "/api/second-factor/passkeys"


async def prepare_factors(tenant: TenantHandle, caller: Caller, route: str) -> dict[str, Any] | None:
    """Give the caller what the route is about; a body for it, or None where any will do."""
    if route == "POST /api/auth/step-up":
        # With a factor, the password would not be enough.
        await _clear(tenant, caller)
        return {"password": PASSWORD}
    if route == "POST /api/second-factor/totp":
        await _clear(tenant, caller)
    elif route == "DELETE /api/second-factor/totp":
        await _begin_totp(tenant, caller)
    elif route == "POST /api/second-factor/totp/confirm":
        return {"code": (await _begin_totp(tenant, caller)).code()}
    elif route == "POST /api/second-factor/recovery-codes":
        async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
            await plant(transaction.session, Passkey, user_id=caller.id)
    elif route == f"POST {_PASSKEYS}":
        options = (await caller.post(f"{_PASSKEYS}/options")).json()
        device = Device(f"https://{tenant.slug}.app.example.com")
        passkey = device.create(options["publicKey"])
        return {"challenge": options["challenge"], "name": "Laptop", "passkey": passkey}
    return None


async def _clear(tenant: TenantHandle, caller: Caller) -> None:
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        for model in (TotpFactor, Passkey):
            await transaction.session.execute(delete(model).where(model.user_id == caller.id))


async def _begin_totp(tenant: TenantHandle, caller: Caller) -> Phone:
    await _clear(tenant, caller)
    secret, factor_id = new_secret(), uuid7()
    state = tenant.world.app.state
    sealed = state.vault.seal(secret, purpose=totp_purpose(tenant.tenant_id), owner=factor_id)
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(insert(TotpFactor).values(id=factor_id, user_id=caller.id, secret=sealed))
    return Phone(enrolment(secret, account="a", issuer="b").secret, state.factor_desk.clock())
