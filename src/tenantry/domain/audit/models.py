"""The seals of the audit trail; its events are below, where every package can record them."""

from __future__ import annotations

import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantRecord

__all__ = ("AuditSeal", "SealedEvent")


class AuditSeal(TenantRecord):
    """A link of the chain, over a batch of events. Append-only, as the events are.

    Its number and the hash before it are unique: of two workers that seal at the same moment, one does.
    """

    __tablename__ = "audit_seal"
    __table_args__ = (
        UniqueConstraint("sequence", name="uq_audit_seal_sequence"),
        UniqueConstraint("previous_hash", name="uq_audit_seal_previous_hash"),
        CheckConstraint("sequence > 0", name="sequence_range"),
        CheckConstraint("event_count > 0", name="event_count_range"),
        CheckConstraint("octet_length(hash) = 32", name="hash_length"),
        CheckConstraint("octet_length(previous_hash) = 32", name="previous_hash_length"),
    )

    sequence: Mapped[int]
    """From 1, without a gap."""
    first_event_id: Mapped[UUID]
    last_event_id: Mapped[UUID]
    event_count: Mapped[int]
    previous_hash: Mapped[bytes] = mapped_column(LargeBinary)
    """Of the seal before; zeros in the first one."""
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256; see `tenantry.domain.audit.chain`."""
    sealed_at: Mapped[datetime.datetime]


class SealedEvent(TenantRecord):
    """That an event is in a seal, and what it was then.

    A table of its own: an event that is committed late has a lower id than others that are sealed already, so a seal
    is not all events between two ids. An event is in one seal, its id being the key.
    """

    __tablename__ = "audit_sealed_event"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest_length"),)

    id: Mapped[UUID] = mapped_column(ForeignKey("audit_event.id"), primary_key=True, sort_order=-100)
    seal_id: Mapped[UUID] = mapped_column(ForeignKey("audit_seal.id"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the event alone, so that verifying can name the event that was changed."""
