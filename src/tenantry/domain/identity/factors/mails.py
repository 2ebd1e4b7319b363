"""What is written to somebody whose second factors have changed: if it was not them, they have to know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select

from tenantry.domain.identity.users.models import User
from tenantry.jobs.definition import Discard
from tenantry.mail.definition import Letter, Mail

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import Occasion

__all__ = ("FACTORS_RESET_MAIL", "FACTOR_ADDED_MAIL", "FACTOR_REMOVED_MAIL", "FactorText")

_TEMPLATES = Path(__file__).parent / "templates"


class FactorText(msgspec.Struct):
    """Of the templates of all three."""

    email: str


async def _compose(session: AsyncSession, occasion: Occasion) -> Letter:
    email = await session.scalar(select(User.email).where(User.id == occasion.about, User.is_active))
    if email is None:
        raise Discard("the account is gone")
    return Letter(to=email, text=FactorText(email=email))


FACTOR_ADDED_MAIL = Mail("second_factor_added", text=FactorText, compose=_compose, folder=_TEMPLATES)
FACTOR_REMOVED_MAIL = Mail("second_factor_removed", text=FactorText, compose=_compose, folder=_TEMPLATES)
FACTORS_RESET_MAIL = Mail("second_factors_reset", text=FactorText, compose=_compose, folder=_TEMPLATES)
