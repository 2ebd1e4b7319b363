"""The chain of seals: how events are hashed, sealed in batches, and verified.

    digest = SHA-256(canonical(event))
    hash   = SHA-256(canonical({sequence, previous, sealedAt, events: [[id, digest], …]}))

`canonical` is JSON with sorted keys and without spaces, in UTF-8 (RFC 8785, of which numbers here are integers alone),
times in UTC with six digits of the second, bytes in hexadecimal. The events of a seal are in the order of their ids.

Whoever holds the database's owner can write the whole chain anew, or take its end away: against that, keep a seal's
number and hash elsewhere (`tenantry audit verify --json` prints the last one).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from uuid_utils.compat import uuid7

from tenantry.domain.audit.models import AuditSeal, SealedEvent
from tenantry.events.models import AuditEvent

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("BATCH", "Broken", "Chain", "canonical", "event_digest", "seal_hash", "seal_next", "verify_chain")

BATCH = 1000
"""Events in a seal at most."""

_GENESIS = bytes(32)
_LATE = datetime.timedelta(days=1)
"""By how much an event may be committed later than its id says, clocks that differ included. A tenant's transaction is
ended within seconds when it idles; where that did not hold, verifying finds the event."""

Member = tuple[SealedEvent, AuditEvent | None]
"""An event's place in a seal, and the event if it is still there."""

OpenSession = Callable[[], AbstractAsyncContextManager["AsyncSession"]]


def canonical(value: Any) -> bytes:
    """The one encoding of a value of JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def event_digest(event: AuditEvent) -> bytes:
    """SHA-256 of everything that an event says."""
    said = {
        "id": str(event.id),
        "name": event.name,
        "actor": event.actor,
        "subject": str(event.subject),
        "payload": event.payload,
        "requestId": event.request_id,
        "occurredAt": _moment(event.occurred_at),
    }
    return sha256(canonical(said)).digest()


def seal_hash(
    *, sequence: int, previous: bytes, sealed_at: datetime.datetime, members: Sequence[tuple[UUID, bytes]]
) -> bytes:
    """SHA-256 of a seal: the one before, and the ids and digests of its events."""
    said = {
        "sequence": sequence,
        "previous": previous.hex(),
        "sealedAt": _moment(sealed_at),
        "events": [[str(event_id), digest.hex()] for event_id, digest in members],
    }
    return sha256(canonical(said)).digest()


def _moment(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _floor(seal: AuditSeal) -> UUID:
    """Below this id, every event was sealed before or with that seal.

    A seal takes the lowest ids that there are, so what it has left behind is above its last one; what was not yet
    committed then is younger than `_LATE`.
    """
    made_at = datetime.datetime.fromtimestamp((seal.last_event_id.int >> 80) / 1000, datetime.UTC)
    milliseconds = int((min(made_at, seal.sealed_at) - _LATE).timestamp() * 1000)
    return UUID(int=max(milliseconds, 0) << 80)


async def seal_next(session: AsyncSession, *, batch: int = BATCH) -> int:
    """Seal the events that are in no seal yet, at most so many; how many there were.

    Needs no right but to read and to insert. Of two that do so at the same moment, one waits and then seals nothing.
    """
    last = await session.scalar(select(AuditSeal).order_by(AuditSeal.sequence.desc()).limit(1))
    wanted = (
        select(AuditEvent)
        .where(~select(SealedEvent.id).where(SealedEvent.id == AuditEvent.id).exists())
        .order_by(AuditEvent.id)
        .limit(batch)
    )
    if last is not None:
        wanted = wanted.where(AuditEvent.id >= _floor(last))
    events = list(await session.scalars(wanted))
    if not events:
        return 0
    members = [(event.id, event_digest(event)) for event in events]
    sequence, previous = (1, _GENESIS) if last is None else (last.sequence + 1, last.hash)
    sealed_at = datetime.datetime.now(datetime.UTC)
    seal_id: UUID = uuid7()
    made = await session.scalar(
        upsert(AuditSeal)
        .values(
            id=seal_id,
            sequence=sequence,
            first_event_id=members[0][0],
            last_event_id=members[-1][0],
            event_count=len(members),
            previous_hash=previous,
            hash=seal_hash(sequence=sequence, previous=previous, sealed_at=sealed_at, members=members),
            sealed_at=sealed_at,
        )
        .on_conflict_do_nothing()
        .returning(AuditSeal.id)
    )
    if made is None:
        return 0
    await session.execute(
        insert(SealedEvent),
        [{"id": event_id, "seal_id": seal_id, "digest": digest} for event_id, digest in members],
    )
    return len(members)


@dataclass(frozen=True, slots=True)
class Broken:
    """The first thing that is not as it was."""

    seal: int | None
    """The seal's number; None of an event that is in none."""
    event: UUID | None
    """None where it is the seal itself."""
    reason: str

    def __str__(self) -> str:
        where = [f"seal {self.seal}"] if self.seal is not None else []
        where += [f"event {self.event}"] if self.event is not None else []
        return f"{', '.join(where)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Chain:
    """What verifying a trail has found."""

    seals: int
    """Those that are good."""
    events: int
    """In these seals."""
    unsealed: int
    """That wait for the next seal."""
    hash: bytes | None
    """Of the last seal that is good."""
    broken: Broken | None


_AT_ONCE = 10
"""Seals that are read in one transaction."""


async def verify_chain(open_session: OpenSession) -> Chain:
    """Compute every digest and every hash anew, from the first seal on, up to the first that differs.

    Args:
        open_session: a session in the tenant's scope; one for a few seals, so that none is open for long.
    """
    last: AuditSeal | None = None
    events = 0
    async for seal, members in _sealed(open_session):
        broken = _check(seal, members, last)
        if broken is not None:
            return Chain(0 if last is None else last.sequence, events, 0, _hash(last), broken)
        last, events = seal, events + len(members)
    async with open_session() as session:
        sealed = select(SealedEvent.id).where(SealedEvent.id == AuditEvent.id).exists()
        unsealed = await session.scalar(select(func.count()).select_from(AuditEvent).where(~sealed)) or 0
        # Not min(), which knows no uuid before PostgreSQL 18.
        lowest = await session.scalar(select(AuditEvent.id).where(~sealed).order_by(AuditEvent.id).limit(1))
    left = None
    if last is not None and lowest is not None and lowest < _floor(last):
        left = Broken(None, lowest, "it is in no seal, and older than what is sealed since")
    return Chain(0 if last is None else last.sequence, events, unsealed, _hash(last), left)


def _hash(seal: AuditSeal | None) -> bytes | None:
    return None if seal is None else seal.hash


async def _sealed(
    open_session: OpenSession,
) -> AsyncIterator[tuple[AuditSeal, Sequence[Member]]]:
    after = 0
    while True:
        async with open_session() as session:
            seals = list(
                await session.scalars(
                    select(AuditSeal).where(AuditSeal.sequence > after).order_by(AuditSeal.sequence).limit(_AT_ONCE)
                )
            )
            found = [(seal, await _members(session, seal)) for seal in seals]
        for each in found:
            yield each
        if len(seals) < _AT_ONCE:
            return
        after = seals[-1].sequence


async def _members(session: AsyncSession, seal: AuditSeal) -> list[Member]:
    rows = await session.execute(
        select(SealedEvent, AuditEvent)
        .outerjoin(AuditEvent, AuditEvent.id == SealedEvent.id)
        .where(SealedEvent.seal_id == seal.id)
        .order_by(SealedEvent.id)
    )
    return [(member, event) for member, event in rows]


def _check(seal: AuditSeal, members: Sequence[Member], last: AuditSeal | None) -> Broken | None:
    number, previous = (1, _GENESIS) if last is None else (last.sequence + 1, last.hash)
    if seal.sequence != number:
        return Broken(number, None, "it is missing")
    if seal.previous_hash != previous:
        return Broken(number, None, "it does not follow from the seal before")
    for member, event in members:
        if event is None:
            return Broken(number, member.id, "it is missing")
        if event_digest(event) != member.digest:
            return Broken(number, member.id, "it is not what was sealed")
    ids = [member.id for member, _ in members]
    if len(ids) != seal.event_count:
        return Broken(number, None, f"it was over {seal.event_count} events, of which {len(ids)} are left")
    if (ids[0], ids[-1]) != (seal.first_event_id, seal.last_event_id):
        return Broken(number, None, "its first or last event is another one")
    expected = seal_hash(
        sequence=number,
        previous=previous,
        sealed_at=seal.sealed_at,
        members=[(member.id, member.digest) for member, _ in members],
    )
    return None if expected == seal.hash else Broken(number, None, "its hash is another one")
