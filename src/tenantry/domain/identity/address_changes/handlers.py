"""What is left of an address, when whose it is is erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, or_

from tenantry.domain.identity.address_changes.models import EmailChange

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.personal import Person

__all__ = ("forget_address",)


async def forget_address(session: AsyncSession, person: Person) -> None:
    """Delete also the changes of others that would have had the address as theirs, or had it once."""
    await session.execute(
        delete(EmailChange).where(or_(EmailChange.old_email == person.email, EmailChange.new_email == person.email)),
        execution_options={"synchronize_session": False},
    )
