"""A mail server on loopback: it keeps what it takes, and refuses what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ("MailServer", "Taken", "make_certificate", "open_mail_server")


@dataclass(frozen=True)
class Taken:
    """A mail that the server has taken."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    user: str | None
    encrypted: bool

    @property
    def message(self) -> EmailMessage:
        found = message_from_bytes(self.content, policy=default)
        assert isinstance(found, EmailMessage)
        return found

    def part(self, subtype: str) -> str:
        body = self.message.get_body((subtype,))
        assert body is not None
        return str(body.get_content())

    @property
    def link(self) -> str:
        [link] = [word for word in self.part("plain").split() if word.startswith("http")]
        return link

    @property
    def token(self) -> str:
        return self.link.partition("#token=")[2]


@dataclass
class MailServer:
    """`on_recipient` and `on_data` answer in place of `250 OK`, by the address, or by what was sent."""

    port: int = 0
    taken: list[Taken] = field(default_factory=list)
    on_recipient: Callable[[str], str] = lambda _: "250 OK"
    on_data: Callable[[Taken], str] = lambda _: "250 OK"
    on_sender: Callable[[str], str] = lambda _: "250 OK"
    users: dict[str, str] = field(default_factory=dict)

    def url(self, *, account: str = "", tls: str = "none") -> str:
        return f"smtp://{account}127.0.0.1:{self.port}?tls={tls}"

    # What aiosmtpd calls.

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        answer = self.on_sender(address)
        if answer.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        answer = self.on_recipient(address)
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        taken = Taken(
            sender=envelope.mail_from,
            recipients=tuple(envelope.rcpt_tos),
            content=envelope.original_content,
            user=session.auth_data.login.decode() if session.auth_data else None,
            encrypted=session.ssl is not None,
        )
        answer = self.on_data(taken)
        if answer.startswith("2"):
            self.taken.append(taken)
        return answer

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = self.users.get(data.login.decode()) == data.password.decode()
        return AuthResult(success=good, handled=False, auth_data=data)


class _Protocol(SMTP):
    """Knows its connections: with STARTTLS there are two, of which aiosmtpd forgets the first."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.transports: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        self.transports.append(transport)
        super().connection_made(transport)


@asynccontextmanager
async def open_mail_server(
    *,
    starttls: ssl.SSLContext | None = None,
    implicit: ssl.SSLContext | None = None,
    users: dict[str, str] | None = None,
    smtputf8: bool = False,
) -> AsyncIterator[MailServer]:
    """Serve on an ephemeral port of 127.0.0.1, in the test's own event loop."""
    opened = MailServer(users=users or {})
    protocols: list[_Protocol] = []

    def accept() -> _Protocol:
        protocol = _Protocol(
            opened,
            hostname="mail.example",
            tls_context=starttls,
            require_starttls=starttls is not None,
            authenticator=opened.authenticate if users else None,
            # Where the connection is encrypted from its first byte, aiosmtpd does not know that it is.
            auth_required=bool(users) and starttls is not None,
            auth_require_tls=starttls is not None,
            enable_SMTPUTF8=smtputf8,
        )
        protocols.append(protocol)
        return protocol

    loop = asyncio.get_running_loop()
    server = await loop.create_server(accept, "127.0.0.1", 0, ssl=implicit)
    opened.port = server.sockets[0].getsockname()[1]
    try:
        yield opened
    finally:
        server.close()
        handlers = [protocol._handler_coroutine for protocol in protocols if protocol._handler_coroutine is not None]
        for handler in handlers:
            handler.cancel()
        for handler in handlers:
            with contextlib.suppress(asyncio.CancelledError):
                await handler
        for protocol in protocols:
            for transport in protocol.transports:
                transport.abort()
        # A turn of the loop for the encrypted one, and another for the one below, in which they are closed.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await server.wait_closed()


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of 127.0.0.1 that nobody but itself has signed, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - hour)
        .not_valid_after(now + hour)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both = folder / "both.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    both.write_bytes(path.read_bytes() + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return path, context
