"""What was answered to requests that may be sent again."""

from __future__ import annotations

import datetime

from sqlalchemy import CheckConstraint, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.tenancy.models import TenantRecord

__all__ = ("IdempotentRequest",)


class IdempotentRequest(TenantRecord):
    """A request that was done, and its answer. It is written in the transaction of what the request did."""

    __tablename__ = "idempotent_request"
    __table_args__ = (
        UniqueConstraint("digest", name="uq_idempotent_request_digest"),
        CheckConstraint("octet_length(digest) = 32", name="digest_length"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint_length"),
        # A copy of the organization is another one, to which nobody has sent these requests.
        {"info": {"secret": True}},
    )

    digest: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the caller, the route and the key: whatever clients put into keys is not to lie here."""
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the address and the body: the same key is for the same request."""
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    """Sealed by the deployment's vault: an API key is shown once, and here its answer lies for a day."""
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)
