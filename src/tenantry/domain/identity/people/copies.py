"""A copy of all that an organization keeps of one person, as it is sent (GDPR, Art. 15 and 20)."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select

from tenantry.domain.identity.people.schemas import CopyOf
from tenantry.domain.identity.users.models import User
from tenantry.kernel.personal import Person
from tenantry.kernel.service import to_struct

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.kernel.personal import PersonalCatalogue, PersonalData
    from tenantry.tenancy.context import TenantContext
    from tenantry.tenancy.database import Database

__all__ = ("copy_pieces", "find_person")

_CHUNK = 1000
"""Rows that are read, and sent, at a time."""

_encode = msgspec.json.Encoder().encode


async def copy_pieces(
    database: Database, tenant: TenantContext, person: Person, catalogue: PersonalCatalogue, *, chunk: int = _CHUNK
) -> AsyncIterator[bytes]:
    """A `PersonalDataCopy` in pieces; a transaction for each, and none while that is sent.

    It is made as it is sent and kept nowhere: a file would be one more place from which a person has to be erased.
    """
    organization = _encode(CopyOf(id=tenant.id, slug=tenant.slug, name=tenant.name))
    begun = _encode(datetime.datetime.now(datetime.UTC))
    waiting = (
        b'{"format":"tenantry-personal-data","version":1,"organization":'
        + organization
        + b',"generatedAt":'
        + begun
        + b',"data":{'
    )
    for number, section in enumerate(catalogue.sections):
        waiting += (b"," if number else b"") + _encode(section.section) + b":["
        first = True
        async for rows in _read(database, tenant, person, section, chunk):
            yield waiting + (b"" if first else b",") + b",".join(map(_encode, rows))
            waiting, first = b"", False
        waiting += b"]"
    yield waiting + b"}}"


async def find_person(session: AsyncSession, user_id: UUID) -> Person:
    """The user, as whose data are looked for.

    Raises:
        sqlalchemy.exc.NoResultFound: there is none.
    """
    email = (await session.execute(select(User.email).where(User.id == user_id))).scalar_one()
    return Person(user_id, email)


async def _read(
    database: Database, tenant: TenantContext, person: Person, section: PersonalData, chunk: int
) -> AsyncIterator[list[msgspec.Struct]]:
    model: Any = section.model
    after: UUID | None = None
    while True:
        page = select(model).options(*section.load).where(section.condition(person)).order_by(model.id).limit(chunk)
        if after is not None:
            page = page.where(model.id > after)
        async with database.transaction(tenant.read_scope) as transaction:
            found = (await transaction.session.scalars(page)).unique().all()
            rows = [to_struct(row, section.struct) for row in found]
        if rows:
            yield rows
        if len(rows) < chunk:
            return
        after = found[-1].id
