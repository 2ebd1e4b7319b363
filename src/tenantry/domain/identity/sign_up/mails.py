"""What is written to somebody who signs up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.domain.identity.sign_up.models import SignUp
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = ("SIGN_UP_MAIL", "SignUpText")

_PAGE = "accept-sign-up"


class SignUpText(msgspec.Struct):
    """Of the templates `sign_up`."""

    email: str
    link: str
    hours: int
    """For which the link is good, at least one."""


async def _compose(session: AsyncSession, occasion: Occasion) -> Letter:
    email = await session.scalar(
        select(SignUp.email).where(
            SignUp.id == occasion.about, SignUp.used_at.is_(None), SignUp.expires_at > func.now()
        )
    )
    if email is None:
        raise Discard("the sign-up was used or has expired")
    text = SignUpText(
        email=email, link=occasion.link(_PAGE), hours=max(1, round(occasion.settings.member_sign_up_ttl / 3600))
    )
    return Letter(to=email, text=text)


SIGN_UP_MAIL = Mail("sign_up", text=SignUpText, compose=_compose, folder=Path(__file__).parent / "templates")
