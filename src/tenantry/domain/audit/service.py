"""Reading the organization's audit trail."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import select

from tenantry.domain.audit.schemas import AuditEventRead
from tenantry.events.models import AuditEvent
from tenantry.kernel.service import Service, create_service_provider, to_struct

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import ColumnElement

    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("AuditTrailService", "TrailFilter", "export_lines", "provide_trail")

_CHUNK = 1000
"""Events that are read, and sent, at a time."""

_encode_lines = msgspec.json.Encoder().encode_lines


class AuditTrailService(Service[AuditEvent]):
    """Reads the trail; what writes it is `record_event` alone."""

    class Repo(SQLAlchemyAsyncRepository[AuditEvent]):
        model_type = AuditEvent

    repository_type = Repo


class TrailFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; None lets all pass."""

    name: str | None = None
    actor: str | None = None
    subject: UUID | None = None
    since: datetime.datetime | None = None
    """This moment included."""
    until: datetime.datetime | None = None
    """This one not."""

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = [
            column == value
            for column, value in (
                (AuditEvent.name, self.name),
                (AuditEvent.actor, self.actor),
                (AuditEvent.subject, self.subject),
            )
            if value is not None
        ]
        if self.since is not None:
            found.append(AuditEvent.occurred_at >= self.since)
        if self.until is not None:
            found.append(AuditEvent.occurred_at < self.until)
        return found


async def export_lines(
    database: Database, scope: Scope, wanted: TrailFilter, *, chunk: int = _CHUNK
) -> AsyncIterator[bytes]:
    """The events as lines of JSON, the oldest first; a transaction for each piece, and none while that is sent.

    What is recorded after the beginning is left out, so that it comes to an end.

    Args:
        scope: the tenant's, for reading.
    """
    until = datetime.datetime.now(datetime.UTC)
    after: UUID | None = None
    while True:
        page = (
            select(AuditEvent)
            .where(AuditEvent.occurred_at <= until, *wanted.conditions())
            .order_by(AuditEvent.id)
            .limit(chunk)
        )
        if after is not None:
            page = page.where(AuditEvent.id > after)
        async with database.transaction(scope) as transaction:
            rows = list(await transaction.session.scalars(page))
            lines = _encode_lines([to_struct(row, AuditEventRead) for row in rows])
        if rows:
            yield lines
        if len(rows) < chunk:
            return
        after = rows[-1].id


provide_trail = create_service_provider(AuditTrailService)
