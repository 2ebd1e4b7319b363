"""Certificates of the servers that are reached by TLS: until when they are good, and whether there is TLS at all."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
from cryptography import x509
from redis.exceptions import RedisError

from tenantry.doctor.findings import Finding, critical, note, ok, warning
from tenantry.doctor.site import Need, host_of
from tenantry.jobs.patience import answer
from tenantry.kernel.outbound import RefusedAddressError, check_url, is_public
from tenantry.kernel.settings.addresses import is_loopback
from tenantry.tenancy.database import LOST
from tenantry.tenancy.release import served_revisions
from tenantry.tenancy.revision_files import HAS_SCHEMA

if TYPE_CHECKING:
    from tenantry.doctor.site import Site

__all__ = ("check_certificates", "judge_certificate")

_WARNING, _CRITICAL = 30, 7
"""Days before the end. Certificates by ACME are renewed 30 days before."""
_WAIT = 5.0
_PROVIDERS = 20

_SAMPLE = f"""
SELECT t.id, t.slug FROM platform.tenant t
 WHERE {HAS_SCHEMA} AND t.status = 'active' AND t.revision = ANY($2::text[]) ORDER BY random() LIMIT $1
"""  # noqa: S608 - a constant
_ISSUERS = "SELECT DISTINCT issuer FROM sso_connection WHERE is_enabled"


@dataclass(frozen=True, slots=True)
class _Server:
    label: str
    host: str
    port: int
    address: str | None = None
    """Where it was found to be; None: as the host resolves."""


async def check_certificates(site: Site) -> list[Finding]:
    found: list[Finding] = []
    if Need.APP in site.urls:
        found += await _postgresql(site)
    if Need.REDIS in site.urls:
        found += await _redis(site)
    for name in ("api_url", "public_app_url", "app_url"):
        url = getattr(site.settings, name)
        if url is not None and url.startswith("https:") and "{" not in url:
            parts = urlsplit(url)
            found += await _by_handshake(_Server(f"TENANTRY_{name.upper()}", parts.hostname or "", parts.port or 443))
    if Need.APP in site.urls:
        found += await _providers(site)
    return found or [ok("certificates.none", "Nothing here is reached by TLS across a network")]


async def _postgresql(site: Site) -> list[Finding]:
    try:
        async with site.connect(Need.APP) as connection:
            # Private, hence guarded by a test and a pinned asyncpg.
            secured = connection._transport.get_extra_info("ssl_object")  # type: ignore[attr-defined]
            octets = None if secured is None else secured.getpeercert(binary_form=True)
    except LOST as error:
        return [_unreached("PostgreSQL", error)]
    if octets is not None:
        return judge_certificate("PostgreSQL", octets)
    return _plain(
        "PostgreSQL", host_of(site.urls[Need.APP]), "Switch `ssl` on, and use sslmode=verify-full in the address."
    )


async def _redis(site: Site) -> list[Finding]:
    parts = urlsplit(site.urls[Need.REDIS])
    if parts.scheme == "unix":
        return []
    if parts.scheme == "rediss":
        return await _by_handshake(_Server("Redis", parts.hostname or "", parts.port or 6379))
    found = _plain("Redis", parts.hostname or "", "Have it speak TLS, and use a rediss:// address.")
    try:
        await answer(site.redis.ping())
    except (RedisError, OSError) as error:
        found.append(_unreached("Redis", error))
    return found


def _plain(server: str, host: str, remedy: str) -> list[Finding]:
    if not host or is_loopback(host):
        return []
    return [
        warning(
            "certificates.plain",
            f"What goes to {server} and back can be read on the network",
            seen=f"{host}, without TLS",
            expected="TLS, unless the network itself is encrypted",
            remedy=remedy,
        )
    ]


async def _by_handshake(server: _Server) -> list[Finding]:
    """Whatever certificate it shows, trusted or not: who does not trust it has another finding."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        octets = await _shake(server, trusting)
    except (OSError, TimeoutError) as error:
        return [_unreached(server.label, error)]
    found = judge_certificate(server.label, octets)
    try:
        await _shake(server, ssl.create_default_context())
    except ssl.SSLCertVerificationError as error:
        if not any(finding.code == "certificates.expiry" for finding in found):
            found.append(
                warning(
                    "certificates.untrusted",
                    f"{server.label}: this machine does not trust the certificate",
                    seen=error.verify_message,
                    expected="one for that name, of an authority that is known here",
                    remedy="Have one of a known authority, or give this machine the authority (SSL_CERT_FILE).",
                )
            )
    except (OSError, TimeoutError) as error:
        found.append(_unreached(server.label, error))
    return found


async def _shake(server: _Server, context: ssl.SSLContext) -> bytes:
    async with asyncio.timeout(_WAIT):
        _, writer = await asyncio.open_connection(
            server.address or server.host, server.port, ssl=context, server_hostname=server.host
        )
    try:
        octets: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return octets
    finally:
        writer.transport.abort()


def judge_certificate(label: str, octets: bytes) -> list[Finding]:
    """`octets` is the certificate in DER."""
    certificate = x509.load_der_x509_certificate(octets)
    end = certificate.not_valid_after_utc
    days = (end - datetime.datetime.now(datetime.UTC)).total_seconds() / 86_400
    if days > _WARNING:
        return [
            ok("certificates.good", f"{label}: the certificate is good", seen=f"until {end:%Y-%m-%d}, {days:,.0f} days")
        ]
    tell = critical if days < _CRITICAL else warning
    return [
        tell(
            "certificates.expiry",
            f"{label}: the certificate {'has expired' if days < 0 else 'expires soon'}",
            seen=f"{end:%Y-%m-%d %H:%M} UTC, {days:+,.0f} days",
            expected=f"more than {_WARNING} days",
            remedy="Renew it, and see why nothing has renewed it by itself.",
        )
    ]


def _unreached(label: str, error: BaseException) -> Finding:
    return note(
        "certificates.unreached",
        f"{label}: there was no handshake, so the certificate is not known",
        seen=f"{type(error).__name__}: {error}"[:200],
        remedy="Look from where it can be reached.",
    )


async def _providers(site: Site) -> list[Finding]:
    """Those by which organizations' people sign in; reached as the API reaches them, and never inside one's network."""
    issuers: dict[str, str] = {}
    for row in await site.control(_SAMPLE, site.options.sample or 1000, sorted(served_revisions())):
        try:
            records = await site.tenant(row["id"], _ISSUERS)
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
            # The schema is not as it should be, which is for `fingerprints` and `roles` to say.
            continue
        issuers |= {record["issuer"]: row["slug"] for record in records}
    found: list[Finding] = []
    for issuer, slug in sorted(issuers.items())[:_PROVIDERS]:
        found += await _provider(issuer, slug)
    # Whose certificate is good is nobody's business here, and there may be hundreds.
    return [finding for finding in found if finding.code == "certificates.expiry"]


async def _provider(issuer: str, slug: str) -> list[Finding]:
    try:
        check_url(issuer)
    except RefusedAddressError:
        return []
    parts = urlsplit(issuer)
    host, port = parts.hostname or "", parts.port or 443
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_WAIT):
            resolved = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return []
    public = [_address(entry) for entry in resolved if is_public(ip_address(_address(entry)))]
    if not public:
        return []
    return await _by_handshake(_Server(f"The sign-in provider of {slug}, {host}", host, port, public[0]))


def _address(entry: Any) -> str:
    return str(entry[4][0])
