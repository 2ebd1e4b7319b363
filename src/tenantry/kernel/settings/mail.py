"""Settings of the mail that goes out: where links lead, which server takes it, and whom it is from."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationInfo, field_validator

from tenantry.kernel.settings.addresses import (
    HTTP_FORM,
    MAIL_FORM,
    SENDER_FORM,
    check_http_url,
    check_mail_url,
    parse_sender,
)
from tenantry.kernel.settings.fields import expected, seconds, text, whole

__all__ = ("Mail",)

_SLUG = "tenant"
_FROM = "Tenantry <tenantry@localhost>"


class Mail(BaseModel):
    """Invitations, password resets, and whatever else features write to people."""

    app_url: str | None = text(
        None,
        expects=f"{HTTP_FORM}, perhaps with {{tenant}} in it for the organization's slug",
        description="Where people use the service with a browser: links in mail lead there. {tenant} stands for the "
        "organization's slug.",
    )
    mail_url: str | None = text(
        None,
        expects=MAIL_FORM,
        description="Server that takes the mail, or a folder that keeps it, for development; unset: no mail is sent, "
        "and what would need to is refused. `tls` is starttls (the default), implicit (the default of port 465) or "
        "none.",
    )
    mail_from: str | None = text(
        None,
        expects=SENDER_FORM,
        description="Whom the mail is from; needed with a server. Unset, with a folder: tenantry@localhost.",
    )
    mail_timeout: float = seconds(
        20.0, most=300, description="How long each answer of the mail server may take before the mail waits."
    )
    mail_templates: Path | None = text(
        None,
        expects="a folder",
        description="Folder whose templates are used in place of the built-in ones of the same names.",
    )
    password_reset_ttl: int = whole(
        3600, least=60, most=604_800, description="How long the link of a password reset is good.", unit="seconds"
    )
    password_reset_requests: int = whole(
        5,
        least=1,
        most=1000,
        description="Password resets that one account may ask for in password_reset_ttl.",
        unit="requests",
    )
    email_verification_ttl: int = whole(
        86_400,
        least=60,
        most=2_592_000,
        description="How long a link that confirms an address is good.",
        unit="seconds",
    )
    email_change_ttl: int = whole(
        86_400,
        least=60,
        most=2_592_000,
        description="How long both links of a change of address are good.",
        unit="seconds",
    )
    member_sign_up_ttl: int = whole(
        86_400, least=60, most=2_592_000, description="How long the link of a sign-up is good.", unit="seconds"
    )
    member_sign_up_requests: int = whole(
        200, least=1, most=100_000, description="Sign-ups to one organization in an hour.", unit="requests"
    )
    account_mails: int = whole(
        5,
        least=1,
        most=1000,
        description="Mails to one address in a day of each kind that anybody can ask for: to confirm it, to move an "
        "account to it, to sign up with it.",
        unit="mails",
    )
    invitation_mails: int = whole(
        10, least=1, most=1000, description="Invitations mailed to one address in a day.", unit="mails"
    )

    @property
    def mail_sender(self) -> str:
        """Whom mail is from, whether or not it was said."""
        return self.mail_from or _FROM

    @property
    def mail_sender_name(self) -> str:
        """What the deployment calls itself in mail that is no organization's: the sender's name, or its domain."""
        name, address = parse_sender(self.mail_sender)
        return name or address.rpartition("@")[2]

    def page(self, path: str, *, tenant: str) -> str:
        """The address of a page for people of an organization, which `tenant` is the slug of.

        Raises:
            ValueError: TENANTRY_APP_URL is not set.
        """
        if self.app_url is None:
            raise ValueError("TENANTRY_APP_URL is not set: there is nowhere for a link to lead")
        return f"{self.app_url.replace(f'{{{_SLUG}}}', tenant)}/{path}"

    @field_validator("app_url")
    @classmethod
    def _check_app_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            check_http_url(url.replace(f"{{{_SLUG}}}", _SLUG))
        except ValueError:
            raise ValueError(expected(cls.model_fields["app_url"])) from None
        return url.rstrip("/")

    @field_validator("mail_url")
    @classmethod
    def _check_mail_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        url = check_mail_url(url)
        if info.data.get("app_url", "") is None:
            raise ValueError("TENANTRY_APP_URL to be set as well: mail has links in it")
        return url

    @field_validator("mail_from")
    @classmethod
    def _check_mail_from(cls, sender: str | None, info: ValidationInfo) -> str | None:
        if sender is None:
            if (info.data.get("mail_url") or "").startswith("smtp:"):
                raise ValueError(f"{SENDER_FORM}, since TENANTRY_MAIL_URL is a server")
            return None
        parse_sender(sender)
        return sender

    @field_validator("mail_templates")
    @classmethod
    def _check_mail_templates(cls, folder: Path | None) -> Path | None:
        if folder is None:
            return None
        folder = folder.expanduser()
        if not folder.is_dir():
            # A volume that is not mounted would silently send the built-in texts.
            raise ValueError("a folder that is there")
        return folder
