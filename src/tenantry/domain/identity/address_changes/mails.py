"""What is written to both addresses of an account that is to have another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.domain.identity.address_changes.models import EmailChange
from tenantry.domain.identity.users.models import User
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = (
    "EMAIL_CHANGED_MAIL",
    "EMAIL_CHANGE_NEW_MAIL",
    "EMAIL_CHANGE_OLD_MAIL",
    "EmailChangeText",
    "EmailChangedText",
)

_TEMPLATES = Path(__file__).parent / "templates"
_CONFIRM, _CANCEL = "confirm-email-change", "cancel-email-change"


class EmailChangeText(msgspec.Struct):
    """Of the templates `email_change_old` and `email_change_new`."""

    old_email: str
    new_email: str
    link: str
    cancel: str
    """A link as well."""
    hours: int
    """For which both links are good, at least one."""


class EmailChangedText(msgspec.Struct):
    """Of the templates `email_changed`."""

    old_email: str
    new_email: str


def _compose(to_new: bool) -> Callable[[AsyncSession, Occasion], Awaitable[Letter]]:
    async def compose(session: AsyncSession, occasion: Occasion) -> Letter:
        found = await session.scalar(
            select(EmailChange)
            .join(User, User.id == EmailChange.user_id)
            .where(
                EmailChange.id == occasion.about,
                EmailChange.ended_at.is_(None),
                EmailChange.expires_at > func.now(),
                User.is_active,
            )
        )
        if found is None:
            raise Discard("the change of address has ended or expired, or the account is gone")
        text = EmailChangeText(
            old_email=found.old_email,
            new_email=found.new_email,
            link=occasion.link(_CONFIRM),
            cancel=occasion.link(_CANCEL),
            hours=max(1, round(occasion.settings.email_change_ttl / 3600)),
        )
        return Letter(to=found.new_email if to_new else found.old_email, text=text)

    return compose


async def _compose_changed(session: AsyncSession, occasion: Occasion) -> Letter:
    found = await session.get(EmailChange, occasion.about)
    if found is None:
        raise Discard("the account is gone")
    return Letter(to=found.old_email, text=EmailChangedText(old_email=found.old_email, new_email=found.new_email))


EMAIL_CHANGE_OLD_MAIL = Mail("email_change_old", text=EmailChangeText, compose=_compose(False), folder=_TEMPLATES)
EMAIL_CHANGE_NEW_MAIL = Mail("email_change_new", text=EmailChangeText, compose=_compose(True), folder=_TEMPLATES)
EMAIL_CHANGED_MAIL = Mail("email_changed", text=EmailChangedText, compose=_compose_changed, folder=_TEMPLATES)
