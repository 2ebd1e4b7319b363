"""What is written to somebody who has forgotten their password, and who has another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.domain.identity.passwords.models import PasswordReset
from tenantry.domain.identity.users.models import User
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = (
    "PASSWORD_CHANGED_MAIL",
    "PASSWORD_REPLACED_MAIL",
    "PASSWORD_RESET_MAIL",
    "PasswordChangedText",
    "PasswordResetText",
)

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = "reset-password"


class PasswordResetText(msgspec.Struct):
    """Of the templates `password_reset`."""

    email: str
    link: str
    minutes: int
    """For which the link is good."""


class PasswordChangedText(msgspec.Struct):
    """Of the templates `password_changed`, after a reset, and `password_replaced`, by somebody who knew the old one."""

    email: str


async def _compose_reset(session: AsyncSession, occasion: Occasion) -> Letter:
    email = await session.scalar(
        select(User.email)
        .join(PasswordReset, PasswordReset.user_id == User.id)
        .where(
            PasswordReset.id == occasion.about,
            PasswordReset.used_at.is_(None),
            PasswordReset.expires_at > func.now(),
            User.is_active,
        )
    )
    if email is None:
        raise Discard("the password reset was used or has expired, or its account is gone")
    text = PasswordResetText(
        email=email, link=occasion.link(_PAGE), minutes=round(occasion.settings.password_reset_ttl / 60)
    )
    return Letter(to=email, text=text)


async def _compose_changed(session: AsyncSession, occasion: Occasion) -> Letter:
    email = await session.scalar(select(User.email).where(User.id == occasion.about, User.is_active))
    if email is None:
        raise Discard("the account is gone")
    return Letter(to=email, text=PasswordChangedText(email=email))


PASSWORD_RESET_MAIL = Mail("password_reset", text=PasswordResetText, compose=_compose_reset, folder=_TEMPLATES)
PASSWORD_CHANGED_MAIL = Mail("password_changed", text=PasswordChangedText, compose=_compose_changed, folder=_TEMPLATES)
PASSWORD_REPLACED_MAIL = Mail(
    "password_replaced", text=PasswordChangedText, compose=_compose_changed, folder=_TEMPLATES
)
