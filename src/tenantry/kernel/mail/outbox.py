"""Reading what the development outbox keeps."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings

__all__ = ("FOLDER", "KeptMail", "folder_of", "list_mail")

FOLDER = "mail"
"""In the home folder."""

_LINK = re.compile(r"https?://\S+")


@dataclass(frozen=True, slots=True)
class KeptMail:
    """A mail that was kept instead of being sent."""

    id: str
    """The job's that sent it."""
    path: Path
    kept_at: datetime.datetime
    to: str
    subject: str
    text: str
    links: tuple[str, ...]


def folder_of(settings: Settings) -> Path | None:
    """The folder that mail is kept in: the one that TENANTRY_MAIL_URL names, or `tenantry up`'s; None with a server."""
    if settings.mail_url is None:
        return settings.home / FOLDER
    if not settings.mail_url.startswith("file:"):
        return None
    return Path(unquote(urlsplit(settings.mail_url).path))


def list_mail(folder: Path) -> list[KeptMail]:
    """What is there, the newest first."""
    found = ((path.stat().st_mtime, path) for path in folder.glob("*.eml"))
    return [_read(path, kept) for kept, path in sorted(found, key=lambda each: each[0], reverse=True)]


def _read(path: Path, kept: float) -> KeptMail:
    message = message_from_bytes(path.read_bytes(), policy=default)
    assert isinstance(message, EmailMessage)  # noqa: S101 - what this policy makes
    body = message.get_body(("plain",))
    text = str(body.get_content()) if body is not None else ""
    return KeptMail(
        id=path.stem,
        path=path,
        kept_at=datetime.datetime.fromtimestamp(kept, datetime.UTC),
        to=str(message["To"]),
        subject=str(message["Subject"]),
        text=text,
        links=tuple(_LINK.findall(text)),
    )
