"""Where a request comes from: the address of its client, behind whatever proxies there are.

The connection's own address is the client's, unless it is a proxy's that this deployment trusts
(`TENANTRY_TRUSTED_PROXIES`). Then `X-Forwarded-For` is read from its end, where the nearest proxy has written, and as
far as proxies are trusted: what stands before that is what a client has sent, and may be anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from litestar.types import HTTPScope

__all__ = ("NOWHERE", "ClientAddress", "client_address", "parse_networks")

_HOPS = 20
"""A chain of more proxies is no chain: whoever has sent so long a header wants us to read it."""


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """An address, and whether it is one client's.

    Where no proxy is trusted, a private address may be that of a proxy which everybody comes through: then nobody can
    be told from anybody by it.
    """

    address: IPv4Address | IPv6Address | None
    is_own: bool

    def __str__(self) -> str:
        return "" if self.address is None else str(self.address)

    @property
    def host(self) -> str | None:
        """What counts as one client: an IPv4 address, or the /64 of an IPv6 one, of which a host has them all."""
        return self._prefix(32, 64)

    @property
    def network(self) -> str | None:
        """The neighbourhood of a client, whose addresses change within it: a /24, or the /48 of a site (RFC 6177)."""
        return self._prefix(24, 48)

    def _prefix(self, four: int, six: int) -> str | None:
        if self.address is None or not self.is_own:
            return None
        length = four if self.address.version == 4 else six
        return str(ip_network((self.address, length), strict=False))


NOWHERE = ClientAddress(None, False)


def parse_networks(texts: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks of a setting, which has been checked."""
    return tuple(map(ip_network, texts))


def client_address(scope: HTTPScope, trusted: Sequence[IPv4Network | IPv6Network]) -> ClientAddress:
    """Who has sent the request, as far as those who are trusted can tell."""
    client = scope.get("client")
    hop = _parse(client[0]) if client else None
    if hop is None:
        return NOWHERE
    if not _is_in(hop, trusted):
        return ClientAddress(hop, hop.is_global)
    for text in _forwarded(scope):
        sender = _parse(text)
        if sender is None:
            break
        if not _is_in(sender, trusted):
            return ClientAddress(sender, True)
        hop = sender
    return ClientAddress(hop, False)


def _forwarded(scope: HTTPScope) -> Iterator[str]:
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    yield from (text.strip() for text in reversed(",".join(values).rsplit(",", _HOPS)[-_HOPS:]))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    # Some proxies write the port as well: `192.0.2.1:4711`, `[2001:db8::1]:4711`.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        # A scope, `fe80::1%eth0`, is text of the sender's.
        return found.ipv4_mapped or (IPv6Address(int(found)) if found.scope_id is not None else found)
    return found


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)
