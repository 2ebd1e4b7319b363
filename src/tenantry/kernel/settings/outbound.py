"""Settings of requests that go out to where customers say."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import BaseModel, field_validator
from pydantic_settings import NoDecode

from tenantry.kernel.settings.fields import expected, seconds, text

__all__ = ("Outbound",)


class Outbound(BaseModel):
    """Webhooks, and whatever else is fetched from or sent to an address that a customer has named."""

    outbound_networks: Annotated[tuple[str, ...], NoDecode] = text(
        (),
        expects="networks such as 10.1.0.0/16 or 127.0.0.1/32, separated by commas",
        description="Networks that requests to customers' addresses may reach, besides the public internet; to these "
        "without TLS as well. For development, and for customers inside one's own network.",
    )
    outbound_timeout: float = seconds(
        15.0, most=120, description="How long a request to a customer's address may take, the answer included."
    )

    @field_validator("outbound_networks", mode="before")
    @classmethod
    def _split_networks(cls, networks: Any) -> Any:
        return tuple(filter(None, map(str.strip, networks.split(",")))) if isinstance(networks, str) else networks

    @field_validator("outbound_networks")
    @classmethod
    def _check_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        if not _are_networks(networks):
            raise ValueError(expected(cls.model_fields["outbound_networks"]))
        return networks


def _are_networks(texts: Iterable[str]) -> bool:
    try:
        for each in texts:
            ip_network(each)
    except ValueError:
        return False
    return True
