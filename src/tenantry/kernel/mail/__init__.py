"""Mail: templates made into messages, and messages given to a server or a folder."""

from __future__ import annotations

from tenantry.kernel.mail.mailer import Mailer
from tenantry.kernel.mail.message import Branding, Message
from tenantry.kernel.mail.templates import TemplateProblem, Templates
from tenantry.kernel.mail.transport import (
    MailRefusedError,
    MailUnavailableError,
    RecipientRefusedError,
    Transport,
    open_transport,
)

__all__ = (
    "Branding",
    "MailRefusedError",
    "MailUnavailableError",
    "Mailer",
    "Message",
    "RecipientRefusedError",
    "TemplateProblem",
    "Templates",
    "Transport",
    "open_transport",
)
