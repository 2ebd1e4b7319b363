"""What a process that sends mail has one of."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from tenantry.kernel.mail.message import build_message
from tenantry.kernel.mail.templates import DEFAULT_LANGUAGE, Templates
from tenantry.kernel.mail.transport import open_transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tenantry.kernel.mail.message import Branding
    from tenantry.kernel.mail.transport import Transport
    from tenantry.kernel.settings import Settings

__all__ = ("Mailer",)


class Mailer:
    """Renders mail and gives it to the transport of the settings."""

    def __init__(self, settings: Settings, folders: Iterable[Path] = (), *, transport: Transport | None = None) -> None:
        """`folders` are the features' templates; `transport` takes the place of TENANTRY_MAIL_URL's."""
        self._settings = settings
        self._transport = transport
        self.templates = Templates(folders, override=settings.mail_templates)

    @property
    def is_configured(self) -> bool:
        """Whether there is anywhere to send mail to."""
        return self._transport is not None or self._settings.mail_url is not None

    async def send(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        to: str,
        message_id: str,
        branding: Branding,
        language: str = DEFAULT_LANGUAGE,
    ) -> None:
        """Render the mail of that name, and give it away.

        Args:
            name: of its templates.
            arguments: what these use.
            to: the address.
            message_id: the same in every attempt.
            branding: whose mail it is.
            language: of the templates, where there are any in it.

        Raises:
            MailUnavailableError: not now.
            MailRefusedError: never.
            TemplateProblem: a template is missing or wrong.
            ValueError: `to` is no address, or TENANTRY_MAIL_URL is not set.
        """
        message = self.templates.render(name, arguments, branding, language=language)
        await self._opened.deliver(
            build_message(message, sender=self._settings.mail_sender, to=to, message_id=message_id, language=language)
        )

    @cached_property
    def _opened(self) -> Transport:
        return self._transport or open_transport(self._settings)
