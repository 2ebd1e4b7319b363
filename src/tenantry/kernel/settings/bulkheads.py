"""Settings of the bulkheads: what one organization may have of a process."""

from __future__ import annotations

from pydantic import BaseModel

from tenantry.kernel.settings.fields import seconds, text, whole

__all__ = ("Bulkheads",)


class Bulkheads(BaseModel):
    """What one organization may have of a serving process. A plan's own numbers go before these."""

    bulkheads: bool = text(
        True,
        expects="true or false",
        description="Hold organizations to their shares; false: whoever comes first is served first, however many.",
    )
    tenant_connection_share: int = whole(
        30,
        least=1,
        most=100,
        description="Of a process' database connections, how many one organization may have at a time; at least one.",
        unit="percent",
    )
    database_reserved: int = whole(
        2,
        least=0,
        most=100,
        description="Of a process' database connections, how many are kept for operators and the health check; at most "
        "half of them.",
        unit="connections",
    )
    tenant_concurrent_requests: int = whole(
        8,
        least=1,
        most=10_000,
        description="Requests of one organization that a process works on at a time; more of them wait.",
        unit="requests",
    )
    tenant_processor_share: int = whole(
        25,
        least=1,
        most=100,
        description="Of a process' event loop, how much time one organization may take for as long as it likes; beyond "
        "it, and while others are there, it is worked for one request at a time. 100: however much.",
        unit="percent",
    )
    refusal_delay: float = seconds(
        0.25,
        most=5,
        none=True,
        description="How long an answer 429 is held back, so that a client that tries again at once does so less "
        "often; 0: not at all.",
    )
    concurrent_requests: int = whole(
        64,
        least=1,
        most=10_000,
        description="Requests of all organizations that a process works on at a time; more wait, by turns of their "
        "organizations.",
        unit="requests",
    )
    tenant_waiting: int = whole(
        100,
        least=1,
        most=10_000,
        description="How many of one organization wait for its share, or for a turn; beyond it 429, or 503.",
        unit="requests",
    )
    tenant_patience: float = seconds(
        2.0, most=60, description="How long a request waits until work on it begins; then 429, or 503."
    )
    tenant_transfers: int = whole(
        8,
        least=1,
        most=10_000,
        description="Exports and other files that one organization fetches from a process at a time; beyond it 429.",
        unit="transfers",
    )
    response_limit: int = whole(
        8_388_608,
        least=65_536,
        most=1_073_741_824,
        description="Largest answer to a read, streams apart; beyond it 422, which asks for smaller pages.",
        unit="bytes",
    )
