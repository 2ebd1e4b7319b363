"""Operators of the platform inside an organization: what its side of the door is asked, and by whom.

The two planes do not know each other. The control plane says who comes, in a transaction that it has begun and that
goes on as the tenant (`Transaction.descend`); the organization's side decides, in its own schema. Whoever composes the
process hands one the other.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("Admitted", "Asked", "Door", "Visit", "Visitor")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who wants to come in."""

    name: str
    """As the organization is shown it; no address."""
    id: UUID | None = None
    """The operator's; None where a machine's account is all that is known, at the command line."""
    email: str | None = None
    """To compare with what a grant says."""

    @property
    def actor(self) -> str:
        """As the organization's trail names them."""
        return "operator" if self.id is None else f"operator:{self.id}"


@dataclass(frozen=True, slots=True)
class Visit:
    """What they want."""

    id: UUID
    visitor: Visitor
    reason: str
    seconds: int
    """For how long at most."""
    can_write: bool = False
    break_glass: bool = False
    """Without a grant: its owners are told at once."""
    way: Literal["api", "shell"] = "api"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Until when."""

    expires_at: datetime.datetime
    grant_id: UUID | None


@dataclass(frozen=True, slots=True)
class Asked:
    """What an organization was asked, and what its owners have said."""

    id: UUID
    operator_id: UUID
    can_write: bool
    hours: int
    reason: str
    status: str
    created_at: datetime.datetime
    answered_at: datetime.datetime | None
    granted_until: datetime.datetime | None
    """The end of the grant, or its revocation."""


class Door(Protocol):
    """The organization's side. Every session is in its scope, and is committed by whoever began it."""

    async def open(self, session: AsyncSession, visit: Visit) -> Admitted:
        """Let them in, and write it down.

        Raises:
            PermissionDeniedException: nobody has granted it, and it is no break-glass.
        """

    async def close(self, session: AsyncSession, visit_id: UUID, visitor: Visitor) -> bool:
        """End it; whether it was open."""

    async def ask(self, session: AsyncSession, visitor: Visitor, *, reason: str, can_write: bool, hours: int) -> UUID:
        """Ask the owners for access; the request's id.

        Raises:
            ConflictException: they were asked by this one and have not answered.
        """

    async def asked(self, session: AsyncSession) -> list[Asked]:
        """What was asked last, the newest first."""
