"""Whose invitations to teams are, when somebody asks for their data or is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete, or_

from tenantry.domain.team_invitations.models import TeamInvitation

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.personal import Person

__all__ = ("forget_address", "meant_for")


def meant_for(person: Person) -> ColumnElement[bool]:
    """The invitations of a person: those of their account, and those that went to their address before it was."""
    return or_(TeamInvitation.user_id == person.id, TeamInvitation.email == person.email)


async def forget_address(session: AsyncSession, person: Person) -> None:
    """Delete all of them: one that was declined or has expired may hold the address, and name no account."""
    await session.execute(
        delete(TeamInvitation).where(meant_for(person)), execution_options={"synchronize_session": False}
    )
