"""What is written to somebody about their sessions."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.users.models import User
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = ("NEW_DEVICE_MAIL", "SESSION_STOLEN_MAIL", "NewDeviceText", "SessionStolenText")

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = "sessions"


class NewDeviceText(msgspec.Struct):
    """Of the templates `new_device`."""

    email: str
    device: str
    address: str
    """Empty where it is not known."""
    moment: str
    link: str


class SessionStolenText(msgspec.Struct):
    """Of the templates `session_stolen`."""

    email: str
    device: str
    moment: str
    link: str


async def _compose_new_device(session: AsyncSession, occasion: Occasion) -> Letter:
    email, opened = await _read(session, occasion)
    text = NewDeviceText(
        email=email,
        device=opened.device or "Unknown device",
        address=opened.address or "",
        moment=_in_words(opened.created_at),
        link=occasion.link(_PAGE),
    )
    return Letter(to=email, text=text)


async def _compose_session_stolen(session: AsyncSession, occasion: Occasion) -> Letter:
    email, opened = await _read(session, occasion)
    text = SessionStolenText(
        email=email,
        device=opened.device or "Unknown device",
        moment=_in_words(opened.created_at),
        link=occasion.link(_PAGE),
    )
    return Letter(to=email, text=text)


async def _read(session: AsyncSession, occasion: Occasion) -> tuple[str, UserSession]:
    found = (
        await session.execute(
            select(User.email, UserSession)
            .join(UserSession, UserSession.user_id == User.id)
            .where(UserSession.id == occasion.about, User.is_active)
        )
    ).one_or_none()
    if found is None:
        raise Discard("the session or its account is gone")
    return found[0], found[1]


def _in_words(moment: datetime.datetime) -> str:
    moment = moment.astimezone(datetime.UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


NEW_DEVICE_MAIL = Mail("new_device", text=NewDeviceText, compose=_compose_new_device, folder=_TEMPLATES)
SESSION_STOLEN_MAIL = Mail("session_stolen", text=SessionStolenText, compose=_compose_session_stolen, folder=_TEMPLATES)
