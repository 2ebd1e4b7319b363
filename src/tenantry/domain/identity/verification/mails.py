"""What is written to an address, to find out whether somebody reads it, and to one that has an account already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.verification.models import EmailVerification
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = ("ACCOUNT_EXISTS_MAIL", "VERIFY_EMAIL_MAIL", "AccountExistsText", "VerifyEmailText")

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = "verify-email"


class VerifyEmailText(msgspec.Struct):
    """Of the templates `verify_email`."""

    email: str
    link: str
    hours: int
    """For which the link is good, at least one."""


class AccountExistsText(msgspec.Struct):
    """Of the templates `account_exists`."""

    email: str
    has_password: bool
    """Else they were invited and have not come yet, or log in another way."""


async def _compose_verify(session: AsyncSession, occasion: Occasion) -> Letter:
    email = await session.scalar(
        select(User.email)
        .join(EmailVerification, EmailVerification.user_id == User.id)
        .where(
            EmailVerification.id == occasion.about,
            EmailVerification.email == User.email,
            EmailVerification.used_at.is_(None),
            EmailVerification.expires_at > func.now(),
            User.is_active,
        )
    )
    if email is None:
        raise Discard("the address was confirmed or changed, the link has expired, or the account is gone")
    text = VerifyEmailText(
        email=email, link=occasion.link(_PAGE), hours=max(1, round(occasion.settings.email_verification_ttl / 3600))
    )
    return Letter(to=email, text=text)


async def _compose_exists(session: AsyncSession, occasion: Occasion) -> Letter:
    found = (
        await session.execute(
            select(User.email, User.hashed_password.is_not(None).label("has_password")).where(
                User.id == occasion.about, User.is_active
            )
        )
    ).one_or_none()
    if found is None:
        raise Discard("the account is gone")
    return Letter(to=found.email, text=AccountExistsText(email=found.email, has_password=found.has_password))


VERIFY_EMAIL_MAIL = Mail("verify_email", text=VerifyEmailText, compose=_compose_verify, folder=_TEMPLATES)
ACCOUNT_EXISTS_MAIL = Mail("account_exists", text=AccountExistsText, compose=_compose_exists, folder=_TEMPLATES)
