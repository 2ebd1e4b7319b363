"""Requests to addresses that customers name: to the public internet, and never to our own network.

Whoever may name an address could otherwise have us fetch what only we can reach: the metadata service of a cloud,
Redis, a neighbour's port (server-side request forgery, OWASP API7:2023). So a name is resolved here, every address that
it resolves to is checked, and the connection is made to the address that was checked: a name that resolves to another
one a moment later (DNS rebinding) gains nothing. Redirects are not followed, and no proxy is asked. What comes back is
cut off at a size, and all of it at a time.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpcore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

__all__ = ("Answer", "Network", "OutboundClient", "OutboundError", "RefusedAddressError", "check_url", "is_public")

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            # Beyond what `ipaddress` of every supported Python knows (IANA's special-purpose registries).
            *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"),
            *("2001::/23", "2002::/16", "3fff::/20"),
            # Public, but of services that one's own network may offer: AS112 (RFC 7534, RFC 7535), AMT (RFC 7450).
            *("192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "2620:4f:8000::/48"),
            # Azure's own: gives a machine its settings and keys, from an address that looks like anybody's.
            "168.63.129.16/32",
        ),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""RFC 4291 §2.4. Outside of it are IPv4 addresses in other spellings, which `ipaddress` takes for public ones."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052 §2.1: the last 32 bits are an IPv4 address, to which a gateway of ours would go."""

_ALLOWED_SCHEMES = ("https", "http")
_AUTHORITY = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?)(?::[0-9]*)?", re.IGNORECASE)
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)
"""A host that ends in a number is an IPv4 address in some spelling, octal and hexadecimal ones among them; no
domain does (RFC 3696 §2)."""

_OVERHEAD = 262_144
"""Bytes of an answer besides its body: more than the longest head that httpcore takes."""
_AT_ONCE = 16_384
"""Bytes: what is read is taken apart while nothing else runs, and this may be a thousand interim answers."""
_TRIED = 4
"""Addresses of a host to which a connection is tried, one after the other."""

# The same whether a name resolves to an address of ours or to none: what names our network knows is nobody's business.
_NOWHERE = "The host's name does not resolve to a public address."
_NOWHERE_PLAIN = "The host's name does not resolve to an address that may be reached without TLS: expected https://."


class OutboundError(Exception):
    """There was no answer, or none that is HTTP. The text is for the customer, and tells nothing of our network."""


class RefusedAddressError(OutboundError):
    """The address is one that customers may not have us reach."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    """The first bytes of it."""
    is_cut: bool
    """Whether there was more."""


def is_public(address: Address, besides: Iterable[Network] = ()) -> bool:
    """Whether an address is one of the public internet, or of `besides`."""
    if any(address in network for network in besides):
        return True
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(address.packed[-4:]))
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


def check_url(url: str, besides: Iterable[Network] = ()) -> None:
    """Refuse what could never be an address to reach; whether it can be is only known once its name is resolved.

    Args:
        url: absolute.
        besides: networks that are allowed although they are not public.

    Raises:
        RefusedAddressError: the text says what was expected.
    """
    _read(url, tuple(besides))


def _read(url: str, besides: tuple[Network, ...]) -> tuple[httpcore.URL, str]:
    """An address as it is reached, and its host and port as they are sent (`Host`).

    What was checked is what is used: a second parser may read another host out of it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise RefusedAddressError("Expected an absolute URL, such as https://example.com/hooks.") from None
    if parts.scheme not in (_ALLOWED_SCHEMES if besides else ("https",)):
        raise RefusedAddressError("Expected an address that begins with https://.")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedAddressError("Expected ASCII throughout: a host as xn--…, other characters percent-encoded.")
    if not host or "#" in url:
        raise RefusedAddressError("Expected a host, and no fragment.")
    if "@" in parts.netloc:
        raise RefusedAddressError("Expected no user and no password in the address.")
    if port == 0:
        raise RefusedAddressError("Expected a port from 1 to 65535.")
    if _AUTHORITY.fullmatch(parts.netloc) is None:
        raise RefusedAddressError("Expected a host's name of letters, digits, hyphens and dots, or an IP address.")
    _check_host(host, besides)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(scheme=parts.scheme, host=host, port=port, target=target), parts.netloc


def _check_host(host: str, besides: tuple[Network, ...]) -> None:
    try:
        literal = ip_address(host)
    except ValueError:
        if ":" in host or _NUMBER.fullmatch(host):
            raise RefusedAddressError("Expected an IP address in its usual spelling, or a host's name.") from None
        return
    if not is_public(literal, besides):
        raise RefusedAddressError("Expected a public address: this one is private, local or reserved.")


class OutboundClient:
    """Makes such requests; a connection is kept for the next one until the client is closed.

    Use as an asynchronous context manager.
    """

    def __init__(self, *, timeout: float, besides: Iterable[Network] = (), most: int = 65_536) -> None:
        """Args:
        timeout: seconds that a request may take from the first step to the last.
        besides: networks that are allowed although they are not public; to those without TLS as well.
        most: bytes of an answer's body that are read.
        """
        self._timeout = timeout
        self._most = most
        self._besides = tuple(besides)
        bounds = _Bounds(patience=timeout / 6, most=_OVERHEAD + 2 * most)
        # What goes to the internet goes encrypted.
        self._backends = {
            b"https": _GuardedBackend(lambda address: is_public(address, self._besides), _NOWHERE, bounds),
            b"http": _GuardedBackend(lambda address: any(address in n for n in self._besides), _NOWHERE_PLAIN, bounds),
        }
        self._idle: dict[bytes, httpcore.AsyncConnectionPool] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._idle.values():
            await pool.aclose()
        self._idle.clear()

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes = b"") -> Answer:
        """Send one request. Redirects are answers like others.

        Raises:
            RefusedAddressError: the address is not public, or what it resolves to is not; nothing was sent.
            OutboundError: there was no answer in time, or none that is HTTP.
        """
        target, host = _read(url, self._besides)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(method, target, {"Host": host, **headers}, content)
        except TimeoutError:
            raise OutboundError(f"There was no whole answer within {self._timeout:g} seconds.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise OutboundError(_in_words(error)) from error

    async def _exchange(self, method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes) -> Answer:
        sent = {
            # An answer that inflates could be of any size.
            "Accept-Encoding": "identity",
            "Content-Length": str(len(content)),
            **headers,
        }
        # Of one connection each, and thrown away with it when anything goes wrong: where a cancellation comes at a bad
        # moment, httpcore forgets a connection that is open, and counts it for ever.
        pool = self._idle.pop(url.scheme, None) or _pool(self._backends[url.scheme])
        try:
            answer = await self._ask(pool, method, url, sent, content)
        except BaseException:
            await pool.aclose()
            raise
        if self._idle.setdefault(url.scheme, pool) is not pool:
            await pool.aclose()
        return answer

    async def _ask(
        self,
        pool: httpcore.AsyncConnectionPool,
        method: str,
        url: httpcore.URL,
        headers: Mapping[str, str],
        content: bytes,
    ) -> Answer:
        # The dot at a name's end is for resolving it only (RFC 6066 §3).
        named = {"sni_hostname": url.host.decode("ascii").removesuffix(".")}
        async with pool.stream(
            method, url, headers=list(headers.items()), content=content, extensions=named
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > self._most:
                    break
            found = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers)
            return Answer(response.status, found, bytes(body[: self._most]), len(body) > self._most)


@dataclass(frozen=True, slots=True)
class _Bounds:
    patience: float
    """Seconds that an address may take to accept a connection, where there is another one."""
    most: int
    """Bytes of an answer, with all that is around its body."""


def _pool(backend: _GuardedBackend) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        ssl_context=_ssl_context(),
        max_connections=1,
        # Less than the five seconds after which many a server hangs up, at the very moment of the next request.
        keepalive_expiry=2.0,
        network_backend=backend,
    )


def _in_words(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate could not be verified: {cause.verify_message.rstrip('.')}."
        if isinstance(cause, ssl.SSLError):
            return "TLS could not be set up."
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout | OSError):
        return "The connection could not be made."
    if isinstance(error, httpcore.ProtocolError):
        return "What came back was not HTTP, or ended early."
    return "The connection was lost before there was an answer."


_LOOKUPS = ThreadPoolExecutor(64, thread_name_prefix="outbound-name")
"""Threads of its own: a customer's name server may be slow, and all of ours are looked up in the loop's. So many, since
a lookup that nobody waits for any more keeps its thread until the resolver gives up; they are made on demand."""


def _look_up(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, and to no others: every connection of the pool comes from here."""

    def __init__(self, may: Callable[[Address], bool], refusal: str, bounds: _Bounds) -> None:
        self._may = may
        self._refusal = refusal
        self._bounds = bounds
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        error: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        addresses = (await self._resolve(host, port))[:_TRIED]
        for address in addresses:
            # One that swallows what it is sent must leave time for the others: a receiver whose IPv6 leads nowhere.
            patience = timeout if address == addresses[-1] else self._bounds.patience
            try:
                stream = await self._inner.connect_tcp(str(address), port, patience, local_address, socket_options)
                return _BoundedStream(stream, self._bounds.most)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = failure
        raise error or httpcore.ConnectError("the name has no address")

    async def _resolve(self, host: str, port: int) -> list[Address]:
        """All addresses of a name, if all of them may be reached: one that may not is no accident."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, _look_up, host, port)
        except (socket.gaierror, UnicodeError):
            raise OutboundError(self._refusal) from None
        addresses = list(dict.fromkeys(ip_address(str(each[4][0]).partition("%")[0]) for each in found))
        if not all(map(self._may, addresses)):
            raise RefusedAddressError(self._refusal)
        return addresses

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise RefusedAddressError("Expected a host.")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _BoundedStream(httpcore.AsyncNetworkStream):
    """A connection on which an answer may be of so many bytes, whatever they are of.

    Interim answers (RFC 9110 §15.2) and extensions of chunks are of no body, and without an end they would keep a
    processor busy until time is up.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream, most: int) -> None:
        self._inner = inner
        self._most = most
        self._count = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        left = self._most - self._count
        if left <= 0:
            raise OutboundError("The answer was too long.")
        data = await self._inner.read(min(max_bytes, left, _AT_ONCE), timeout)
        self._count += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        # A request: what is read from now on is another answer.
        self._count = 0
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _BoundedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout), self._most)
        except BaseException:
            # httpcore closes it after an error, but not when it is cancelled, as it is when time is up: each request to
            # who accepts connections and says nothing would keep a socket open for as long as he likes.
            await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


@cache
def _ssl_context() -> ssl.SSLContext:
    return ssl.create_default_context()
