"""People with second factors."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import update

from tenantry.domain.identity.sessions.models import UserSession
from tests.authenticator import Device, Phone
from tests.world import PASSWORD, Caller, TenantHandle, World

__all__ = (
    "NOW",
    "add_passkey",
    "add_phone",
    "age_sessions",
    "begin_log_in",
    "device_of",
    "finish_log_in",
    "problem_of",
    "set_clock",
    "signed_in",
)

NOW = 1_790_000_025.0
"""The desk's clock in these tests: in the middle of a step, whose neighbours a test reaches without waiting."""


def set_clock(world: World, now: float) -> None:
    world.app.state.factor_desk.clock = lambda: now


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


def device_of(tenant: TenantHandle, *, counts: bool = True) -> Device:
    """A device whose browser is on the organization's own pages."""
    return Device(f"https://{tenant.slug}.app.example.com", counts=counts)


async def add_phone(caller: Caller, *, now: float = NOW) -> tuple[Phone, list[str]]:
    """Set an authenticator app up; the app, and the recovery codes. The code of the step before `now` is used."""
    started = await caller.post("/api/second-factor/totp")
    assert started.status_code == 201, started.text
    phone = Phone(started.json()["secret"], now)
    done = await caller.post("/api/second-factor/totp/confirm", json={"code": phone.code(steps=-1)})
    assert done.status_code == 200, done.text
    return phone, done.json()["recoveryCodes"]


async def add_passkey(caller: Caller, device: Device, name: str = "Laptop") -> dict[str, Any]:
    options = await caller.post("/api/second-factor/passkeys/options")
    assert options.status_code == 200, options.text
    made = await caller.post(
        "/api/second-factor/passkeys",
        json={
            "challenge": options.json()["challenge"],
            "name": name,
            "passkey": device.create(options.json()["publicKey"]),
        },
    )
    assert made.status_code == 201, made.text
    return made.json()  # type: ignore[no-any-return]


async def begin_log_in(tenant: TenantHandle, email: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Show the password; the problem that asks for more."""
    answer = await tenant.http.post(
        "/api/auth/login",
        json={"tenant": tenant.slug, "email": email or tenant.owner_email, "password": PASSWORD},
        **arguments,
    )
    assert problem_of(answer) == (401, "second-factor-required"), answer.text
    return answer.json()  # type: ignore[no-any-return]


async def finish_log_in(tenant: TenantHandle, challenge: str, **proof: Any) -> httpx.Response:
    return await tenant.http.post("/api/auth/login/second-factor", json={"challenge": challenge, **proof})


def signed_in(tenant: TenantHandle, answer: httpx.Response) -> Caller:
    assert answer.status_code == 200, answer.text
    return Caller(tenant.http, answer.json()["accessToken"], answer.json()["refreshToken"])


async def age_sessions(tenant: TenantHandle, user_id: UUID | None, **ago: float) -> None:
    """Let the user's sessions have been opened so long ago."""
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(**ago)
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        await transaction.session.execute(
            update(UserSession).where(UserSession.user_id == user_id).values(authenticated_at=at)
        )
