"""Which devices of a user are known, so that they are told of a new one."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from tenantry.domain.identity.sessions.models import KnownDevice
from tenantry.domain.identity.users.models import User
from tenantry.kernel.security import DEVICE, Credential, InvalidCredential

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.identity.sessions.client import Client
    from tenantry.tenancy.context import TenantContext

__all__ = ("MOST_DEVICES", "Recognized", "device_digest", "find_device", "recognize")

MOST_DEVICES = 20
"""Of one user; beyond it the one that was seen longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """What a log-in says of its device."""

    is_new: bool
    """Like none of the user's devices, of which there are some: the first one of all is new to nobody."""
    token: str | None
    """By which it will be known again, where it has asked for one."""


def device_digest(client: Client, tenant_id: UUID) -> bytes | None:
    """The digest of the token that the client has sent, if it is one of this organization's."""
    if client.device_token is None:
        return None
    try:
        parsed = Credential.parse(client.device_token, DEVICE)
    except InvalidCredential:
        return None
    return parsed.digest if parsed.tenant_id == tenant_id else None


async def find_device(session: AsyncSession, email: str, digest: bytes) -> UUID | None:
    """The device of that account whose token has this digest."""
    found: UUID | None = await session.scalar(
        select(KnownDevice.id)
        .join(User, User.id == KnownDevice.user_id)
        .where(User.email == email, KnownDevice.digest == digest)
    )
    return found


async def recognize(session: AsyncSession, tenant: TenantContext, user_id: UUID, client: Client) -> Recognized:
    """Write down that the user has logged in on this device; the caller holds the lock of the user's row, or made it.

    One that has a token is known by it wherever it is, and whatever program it runs by now. One without is known where
    the same program on the same system has been in the same network, or in one that cannot be told.
    """
    known = list(
        await session.scalars(
            select(KnownDevice)
            .where(KnownDevice.user_id == user_id)
            .order_by(KnownDevice.last_seen_at.desc(), KnownDevice.id.desc())
        )
    )
    digest, token = device_digest(client, tenant.id), None
    found = next((each for each in known if digest is not None and each.digest == digest), None)
    alike = [each for each in known if _is_alike(each, client)]
    is_new = found is None and not alike and bool(known)
    if found is not None:
        token = client.device_token
    elif not client.remember:
        # Any of them, for the time: a token is of the device that has it alone.
        found = next(iter(alike), None)
    else:
        found = next((each for each in alike if each.digest is None), None)
    if found is None:
        found = KnownDevice(user_id=user_id)
        session.add(found)
        await _forget(session, known[MOST_DEVICES - 1 :])
    if client.remember and token is None:
        token, found.digest = Credential.new(DEVICE, tenant.id)
    found.browser, found.system = client.browser, client.system
    found.network = client.address.network or found.network
    found.last_seen_at = datetime.datetime.now(datetime.UTC)
    return Recognized(is_new=is_new, token=token if client.remember else None)


def _is_alike(device: KnownDevice, client: Client) -> bool:
    network = client.address.network
    return (device.browser, device.system) == (client.browser, client.system) and (
        network is None or device.network is None or device.network == network
    )


async def _forget(session: AsyncSession, devices: Sequence[KnownDevice]) -> None:
    if devices:
        await session.execute(
            delete(KnownDevice).where(KnownDevice.id.in_([each.id for each in devices])),
            execution_options={"synchronize_session": False},
        )
