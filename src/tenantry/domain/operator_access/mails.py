"""What is written to owners about operators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from tenantry.domain.identity.users.models import User
from tenantry.domain.operator_access.models import (
    OperatorAccessNotice,
    OperatorAccessRequest,
    OperatorAccessSession,
)
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = ("ACCESS_REQUESTED_MAIL", "GLASS_BROKEN_MAIL", "AccessRequestedText", "GlassBrokenText")

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = "operator-access"


class AccessRequestedText(msgspec.Struct):
    """Of the templates `operator_access_requested`."""

    operator: str
    access: str
    hours: int
    reason: str
    link: str


class GlassBrokenText(msgspec.Struct):
    """Of the templates `operator_glass_broken`."""

    operator: str
    access: str
    reason: str
    moment: str
    until: str
    link: str


async def _compose_requested(session: AsyncSession, occasion: Occasion) -> Letter:
    found = (
        await session.execute(
            select(User.email, OperatorAccessRequest)
            .join(OperatorAccessNotice, OperatorAccessNotice.user_id == User.id)
            .join(OperatorAccessRequest, OperatorAccessRequest.id == OperatorAccessNotice.request_id)
            .where(OperatorAccessNotice.id == occasion.about, User.is_active)
        )
    ).one_or_none()
    if found is None or found[1].status != "pending":
        raise Discard("there is nobody to ask any more, or they have answered")
    email, asked = found
    text = AccessRequestedText(
        operator=asked.operator_name,
        access=_in_words(can_write=asked.can_write),
        hours=asked.hours,
        reason=asked.reason,
        link=occasion.link(_PAGE),
    )
    return Letter(to=email, text=text)


async def _compose_broken(session: AsyncSession, occasion: Occasion) -> Letter:
    found = (
        await session.execute(
            select(User.email, OperatorAccessSession)
            .join(OperatorAccessNotice, OperatorAccessNotice.user_id == User.id)
            .join(OperatorAccessSession, OperatorAccessSession.id == OperatorAccessNotice.session_id)
            .where(OperatorAccessNotice.id == occasion.about, User.is_active)
        )
    ).one_or_none()
    if found is None:
        raise Discard("there is nobody to tell any more")
    email, opened = found
    text = GlassBrokenText(
        operator=opened.operator_name,
        access=_in_words(can_write=opened.can_write),
        reason=opened.reason,
        moment=_moment(opened.created_at),
        until=_moment(opened.expires_at),
        link=occasion.link(_PAGE),
    )
    return Letter(to=email, text=text)


def _in_words(*, can_write: bool) -> str:
    return "look and change" if can_write else "look"


def _moment(moment: datetime.datetime) -> str:
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


ACCESS_REQUESTED_MAIL = Mail(
    "operator_access_requested", text=AccessRequestedText, compose=_compose_requested, folder=_TEMPLATES
)
GLASS_BROKEN_MAIL = Mail("operator_glass_broken", text=GlassBrokenText, compose=_compose_broken, folder=_TEMPLATES)
