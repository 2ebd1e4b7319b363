"""A message as servers take it (RFC 5322): every header from values that cannot become another one."""

from __future__ import annotations

import datetime
import re
import unicodedata
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime

from email_validator import EmailNotValidError, validate_email

from tenantry.kernel.settings.addresses import parse_sender

__all__ = ("Branding", "Message", "build_message", "one_line")

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_MAX_SUBJECT = 200
"""Characters. An organization's name and a few words fit; clients show some seventy."""
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Branding:
    """How an organization's mail looks.

    Raises:
        ValueError: a colour is not of the form `#1f5fbf`.
    """

    name: str
    accent: str = "#1f5fbf"
    """Of the line at the top and of the button."""
    on_accent: str = "#ffffff"
    """Of text on the accent."""

    def __post_init__(self) -> None:
        # They stand in style attributes, where escaping for HTML protects nothing.
        for colour in (self.accent, self.on_accent):
            if _COLOUR.fullmatch(colour) is None:
                raise ValueError(f"expected a colour such as #1f5fbf, got {colour!r}")


@dataclass(frozen=True, slots=True)
class Message:
    """What a template has made."""

    subject: str
    text: str
    html: str


def one_line(text: str) -> str:
    """The text without line ends and control characters, which would end a header or forge a paragraph.

    Characters that turn the direction of text around (Unicode's Bidi_Control) go as well: with them a name could make
    an address read backwards.
    """
    kept = (" " if unicodedata.category(char) in {"Cc", "Zl", "Zp"} else char for char in text)
    return " ".join("".join(char for char in kept if char not in _TURNING).split())


_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def build_message(
    message: Message, *, sender: str, to: str, message_id: str, language: str, at: datetime.datetime | None = None
) -> EmailMessage:
    """The whole of it, as `multipart/alternative`.

    Args:
        message: subject and both parts.
        sender: as TENANTRY_MAIL_FROM has it.
        to: one address; a name is not taken, since people choose their own.
        message_id: the same for every copy of one mail, so that who gets two can tell (RFC 5322, section 3.6.4).
        language: of the text, as RFC 5646 has it.
        at: when it is sent; by default now.

    Raises:
        ValueError: `to` is no address, or `message_id` has other characters than letters, digits and hyphens.
    """
    if _ID.fullmatch(message_id) is None:
        raise ValueError(f"a message's id is made of letters, digits and hyphens, unlike {message_id!r}")
    name, address = parse_sender(sender)
    to = deliverable_address(to)
    made = EmailMessage(policy=SMTP if to.isascii() else SMTPUTF8)
    made["From"] = Address(display_name=name, addr_spec=address)
    made["To"] = to
    made["Subject"] = one_line(message.subject)[:_MAX_SUBJECT]
    made["Date"] = format_datetime(at or datetime.datetime.now(datetime.UTC))
    made["Message-ID"] = f"<{message_id}@{address.rpartition('@')[2]}>"
    # RFC 3834, section 5: so that holiday notes are not sent back.
    made["Auto-Submitted"] = "auto-generated"
    # Quoted-printable whatever the text is: no line is too long for a server, and nothing depends on 8BITMIME.
    made.set_content(message.text, cte="quoted-printable")
    made.add_alternative(message.html, subtype="html", cte="quoted-printable")
    # Here, since what begins like this would else go with the text into its part.
    made["Content-Language"] = language
    made.set_boundary(f"=_{message_id}")
    return made


def deliverable_address(text: str) -> str:
    """An address as SMTP wants it: the domain in ASCII (RFC 5890), if the part before the @ is.

    Raises:
        ValueError: it is no address. The text does not repeat it.
    """
    try:
        found = validate_email(text, check_deliverability=False)
    except EmailNotValidError:
        raise ValueError("not an address that mail could be sent to") from None
    return found.ascii_email or found.normalized
