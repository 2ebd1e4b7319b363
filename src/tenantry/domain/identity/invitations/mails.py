"""What is written to somebody who is invited."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.domain.identity.invitations.models import Invitation
from tenantry.domain.identity.users.models import User
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = ("INVITATION_MAIL", "InvitationText")

_PAGE = "accept-invitation"
_DAY = datetime.timedelta(days=1)


class InvitationText(msgspec.Struct):
    """Of the templates `invitation`."""

    email: str
    name: str
    """The person's, as whoever invites them has it; else empty."""
    link: str
    days: int
    """For which it is good, at least one."""


async def _compose(session: AsyncSession, occasion: Occasion) -> Letter:
    found = (
        await session.execute(
            select(User.email, User.name, (Invitation.expires_at - func.now()).label("left"))
            .join(Invitation, Invitation.user_id == User.id)
            .where(
                Invitation.id == occasion.about,
                Invitation.accepted_at.is_(None),
                Invitation.expires_at > func.now(),
                User.is_active,
            )
        )
    ).one_or_none()
    if found is None:
        raise Discard("the invitation was accepted or revoked, or has expired")
    text = InvitationText(
        email=found.email, name=found.name or "", link=occasion.link(_PAGE), days=max(1, math.floor(found.left / _DAY))
    )
    return Letter(to=found.email, text=text)


INVITATION_MAIL = Mail("invitation", text=InvitationText, compose=_compose, folder=Path(__file__).parent / "templates")
