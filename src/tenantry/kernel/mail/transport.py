"""Giving a message away: to a server by SMTP, or to a folder.

What a server says in words is dropped: its answers often repeat the address, and end up in logs and in the rows of
jobs that failed. Its codes (RFC 5321, section 4.2; RFC 3463) say enough.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib

from tenantry.kernel.settings.addresses import parse_sender

if TYPE_CHECKING:
    from email.message import EmailMessage

    from tenantry.kernel.settings import Settings

__all__ = (
    "FolderTransport",
    "MailRefusedError",
    "MailUnavailableError",
    "RecipientRefusedError",
    "SmtpTransport",
    "Transport",
    "open_transport",
)

_STATUS = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")
_PORTS = {"starttls": 587, "implicit": 465, "none": 25}


class MailUnavailableError(Exception):
    """The server cannot be reached, or will not take the message now. Another attempt may go better."""


class MailRefusedError(Exception):
    """The server will never take this message."""


class RecipientRefusedError(MailRefusedError):
    """The server knows that there is no such mailbox, or that it takes no mail."""


class Transport(Protocol):
    """Where mail goes."""

    async def deliver(self, message: EmailMessage) -> None:
        """Give the message away; when this returns, it is somebody else's to deliver.

        Raises:
            MailUnavailableError: not now.
            MailRefusedError: never.
        """


def open_transport(settings: Settings) -> Transport:
    """The transport that TENANTRY_MAIL_URL names.

    Raises:
        ValueError: it names none.
    """
    if settings.mail_url is None:
        raise ValueError("TENANTRY_MAIL_URL is not set: no mail is sent")
    if settings.mail_url.startswith("file:"):
        return FolderTransport(Path(unquote(urlsplit(settings.mail_url).path)))
    return SmtpTransport(settings.mail_url, sender=settings.mail_sender, timeout=settings.mail_timeout)


class SmtpTransport:
    """One connection for each message: mail is rare, and a connection that is kept is one that has been closed."""

    def __init__(self, url: str, *, sender: str, timeout: float) -> None:
        """`url` as `check_mail_url` returns it; `timeout` in seconds, for each answer of the server."""
        parts = urlsplit(url)
        asked = parse_qs(parts.query).get("tls")
        self._tls = asked[0] if asked else ("implicit" if parts.port == _PORTS["implicit"] else "starttls")
        self._host = parts.hostname or "localhost"
        self._port = parts.port or _PORTS[self._tls]
        self._server = f"the mail server {self._host}:{self._port} (tls={self._tls})"
        self._user = None if parts.username is None else unquote(parts.username)
        self._password = None if parts.password is None else unquote(parts.password)
        self._sender = parse_sender(sender)[1]
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<SmtpTransport {self._server}>"

    async def deliver(self, message: EmailMessage) -> None:
        """See `Transport`. Without the encryption that was asked for, nothing is sent."""
        # SSL_CERT_FILE adds an authority, as for every client of OpenSSL.
        context = None if self._tls == "none" else ssl.create_default_context()
        try:
            await aiosmtplib.send(
                message,
                sender=self._sender,
                recipients=[str(message["To"])],
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._tls == "implicit",
                start_tls=self._tls == "starttls",
                tls_context=context,
                timeout=self._timeout,
                # Else it asks the DNS, on the event loop.
                local_hostname=self._sender.rpartition("@")[2],
            )
        # `from None`: what is chained would be logged, with the address and the server's words in it.
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _recipient_refused(error) from None
        except aiosmtplib.SMTPDataError as error:
            kind = MailRefusedError if error.code >= 500 else MailUnavailableError
            raise kind(f"the server does not take the message: {_codes(error)}") from None
        except aiosmtplib.SMTPNotSupported:
            if str(message["To"]).isascii():
                raise MailUnavailableError(f"{self._server} lacks what was asked of it") from None
            raise RecipientRefusedError("the server takes no address that is not ASCII (SMTPUTF8)") from None
        except aiosmtplib.SMTPAuthenticationError as error:
            raise MailUnavailableError(f"{self._server} refuses the log-in: {_codes(error)}") from None
        except aiosmtplib.SMTPSenderRefused as error:
            # Ours, whatever the code: the operator can put it right, and no mail is to be lost meanwhile.
            raise MailUnavailableError(f"{self._server} refuses TENANTRY_MAIL_FROM: {_codes(error)}") from None
        except aiosmtplib.SMTPResponseException as error:
            raise MailUnavailableError(f"{self._server} answers {_codes(error)}") from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailUnavailableError(f"{self._server} cannot be spoken to: {_reason(error)}") from None


def _recipient_refused(error: aiosmtplib.SMTPRecipientsRefused) -> Exception:
    codes = ", ".join(_codes(each) for each in error.recipients)
    if all(each.code >= 500 for each in error.recipients):
        return RecipientRefusedError(f"the server refuses the recipient: {codes}")
    return MailUnavailableError(f"the server does not take mail for the recipient now: {codes}")


def _codes(error: aiosmtplib.SMTPResponseException) -> str:
    status = _STATUS.search(error.message)
    return f"{error.code} {status[0]}" if status is not None else str(error.code)


def _reason(error: Exception) -> str:
    # Before anybody was named to the server, and never its words; of a certificate the reason is worth having.
    cause: BaseException = error
    while (below := cause.__cause__ or cause.__context__) is not None:
        cause = below
    if isinstance(cause, ssl.SSLError):
        return cause.reason or type(cause).__name__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__


class FolderTransport:
    """Keeps mail instead of sending it: the development outbox."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"<FolderTransport {self._folder}>"

    async def deliver(self, message: EmailMessage) -> None:
        """See `Transport`. A message that comes again replaces itself."""
        name = str(message["Message-ID"]).strip("<>").rpartition("@")[0]
        try:
            await asyncio.to_thread(_keep, self._folder, f"{name}.eml", bytes(message))
        except OSError as error:
            raise MailUnavailableError(f"{self._folder}: {error.strerror}") from None


def _keep(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = folder / f".{name}.{os.getpid()}.tmp"
    # For this user alone: links that let somebody in are in it.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(folder / name)
