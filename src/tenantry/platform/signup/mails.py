"""What is written to somebody who wants an organization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, PlatformMail
from tenantry.platform.signup.models import SignUp

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import PlatformOccasion

__all__ = ("SIGN_UP_MAIL", "SignUpText")

_PAGE = "confirm-sign-up"


class SignUpText(msgspec.Struct):
    """Of the templates `sign_up`."""

    wanted: str
    """The name of the organization. Whoever has typed it may have put anything there: it is no part of the subject."""
    slug: str
    link: str
    hours: int
    """For which the link is good, at least one."""


async def _compose(session: AsyncSession, occasion: PlatformOccasion) -> Letter:
    found = await session.scalar(
        select(SignUp).where(SignUp.id == occasion.about, SignUp.confirmed_at.is_(None), SignUp.expires_at > func.now())
    )
    if found is None:
        raise Discard("the sign-up was confirmed or replaced, or has expired")
    text = SignUpText(
        wanted=found.organization,
        slug=found.slug,
        link=occasion.link(_PAGE),
        hours=max(1, occasion.settings.signup_ttl // 3600),
    )
    return Letter(to=found.email, text=text)


SIGN_UP_MAIL = PlatformMail("signup", text=SignUpText, compose=_compose, folder=Path(__file__).parent / "templates")
