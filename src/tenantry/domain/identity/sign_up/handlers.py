"""Whose sign-ups are, when somebody asks for their data or is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete

from tenantry.domain.identity.sign_up.models import SignUp

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.personal import Person

__all__ = ("forget_address", "made_for")


def made_for(person: Person) -> ColumnElement[bool]:
    """The sign-ups of a person's address."""
    return SignUp.email == person.email


async def forget_address(session: AsyncSession, person: Person) -> None:
    """Delete the sign-ups of an address: they are from before there was an account, and name none."""
    await session.execute(delete(SignUp).where(made_for(person)), execution_options={"synchronize_session": False})
