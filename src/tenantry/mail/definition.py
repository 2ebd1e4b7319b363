"""Mails: what they are called, what their templates are given, and who gets them.

A package declares in its manifest (`Feature.mails`) what it writes to people:

    class WelcomeText(msgspec.Struct):
        name: str

    async def _compose(session: AsyncSession, occasion: Occasion) -> Letter:
        user = await session.get(User, occasion.about)
        if user is None or not user.is_active:
            raise Discard("there is nobody to write to any more")
        return Letter(to=user.email, text=WelcomeText(name=user.name or user.email))

    WELCOME = Mail("welcome", text=WelcomeText, compose=_compose, folder=Path(__file__).parent / "templates")

with `templates/en/welcome.txt` and `welcome.html` beside it, and sends it with
`await WELCOME.send(session, about=user.id)`.
What waits has ids in it and no address: that is read when the mail is sent, so who has been erased gets none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tenantry.jobs.outbox import put_for
from tenantry.kernel.current import Current
from tenantry.kernel.errors import UnavailableException, define_problem

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.jobs.definition import Job
    from tenantry.kernel.feature import Feature
    from tenantry.kernel.mail import Templates
    from tenantry.kernel.security import Vault
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.context import TenantContext

__all__ = (
    "MAIL_NOT_CONFIGURED",
    "SECRET_PURPOSE",
    "Letter",
    "Mail",
    "MailCatalogue",
    "Occasion",
    "PlatformMail",
    "PlatformOccasion",
    "current_mails",
    "require_mail",
    "use_mails",
    "using_mails",
)

MAIL_NOT_CONFIGURED = define_problem(
    "mail-not-configured",
    503,
    "No mail is sent here",
    "The request needs a mail to be sent, and this deployment has no mail server: its operators set TENANTRY_MAIL_URL.",
)
_RETRY_AFTER = 3600
"""Seconds. It is somebody's decision, not a matter of waiting a moment."""

SECRET_PURPOSE = "mail.secret"  # noqa: S105 - what the vault binds a secret to, and none itself


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a mail is about, when it is sent."""

    tenant: TenantContext
    settings: Settings
    about: UUID
    """The id of a row."""
    secret: str | None
    """What `Mail.send` was given, in the clear. For a link, and for nothing that is stored."""

    def link(self, page: str) -> str:
        """The address of a page of TENANTRY_APP_URL, the secret in its fragment.

        Browsers keep a fragment to themselves (RFC 9110, section 7.1 and 10.1.3): neither the server of the page nor
        what it refers to, nor the logs of a proxy, get to see it.
        """
        address = self.settings.page(page, tenant=self.tenant.slug)
        return address if self.secret is None else f"{address}#token={self.secret}"


@dataclass(frozen=True, slots=True)
class PlatformOccasion:
    """What a mail of the platform is about, when it is sent: there is no organization, or more than one."""

    settings: Settings
    about: UUID
    """The id of a row."""
    secret: str | None
    """What `PlatformMail.send` was given, in the clear."""

    def link(self, page: str) -> str:
        """The address of a page for people who have no organization yet, the secret in its fragment; as `Occasion`."""
        address = self.settings.public_page(page)
        return address if self.secret is None else f"{address}#token={self.secret}"


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be sent: to one address, with the arguments of the mail's templates."""

    to: str
    text: msgspec.Struct


Compose = Callable[["AsyncSession", Occasion], Awaitable[Letter]]
PlatformCompose = Callable[["AsyncSession", PlatformOccasion], Awaitable[Letter]]


class Mail:
    """Something that is written to people."""

    def __init__(self, name: str, *, text: type[msgspec.Struct], compose: Compose, folder: Path) -> None:
        """A mail; its feature lists it (`Feature.mails`).

        Args:
            name: for good, of lower-case letters and `_`: jobs that wait have it in them. Its templates' too.
            text: the arguments of the templates, as a struct of texts and numbers.
            compose: reads, in a transaction of the tenant, what there is to write; raises `Discard` where that is
                nothing any more.
            folder: of the templates.
        """
        self.name = name
        self.text = text
        self.compose = compose
        self.folder = folder

    async def send(
        self, session: AsyncSession, *, about: UUID, secret: str | None = None, vault: Vault | None = None
    ) -> UUID:
        """Have it sent, if and only if the session's transaction commits; the job's id.

        Args:
            session: in a tenant's scope.
            about: the id of what it is about, for `compose`.
            secret: a credential whose text nobody else has. It waits sealed: jobs lie in tables and in Redis, where
                operators and backups see them.
            vault: that seals it.

        Raises:
            VaultError: the vault cannot be opened.
        """
        sealed = _seal(secret, about, vault)
        return await _catalogue_of(self).job.enqueue(session, mail=self.name, about=about, sealed=sealed)

    async def send_for(
        self, session: AsyncSession, tenant_id: UUID, *, about: UUID, secret: str | None = None, vault: Vault | None
    ) -> UUID:
        """As `send`, in the control plane's scope, which may have it sent for whichever organization.

        It waits until that is active.

        Raises:
            VaultError: the vault cannot be opened.
        """
        arguments = {"mail": self.name, "about": about, "sealed": _seal(secret, about, vault)}
        entry = _catalogue_of(self).job.entry(key=None, at=None, arguments=arguments)
        return (await put_for(session, tenant_id, entry))[0]


class PlatformMail:
    """Something that is written to people in the name of the deployment, not of an organization."""

    def __init__(self, name: str, *, text: type[msgspec.Struct], compose: PlatformCompose, folder: Path) -> None:
        """As `Mail`; `compose` reads in the control plane's scope."""
        self.name = name
        self.text = text
        self.compose = compose
        self.folder = folder

    async def send(
        self, session: AsyncSession, *, about: UUID, secret: str | None = None, vault: Vault | None = None
    ) -> UUID:
        """Have it sent, if and only if the session's transaction commits; as `Mail.send`, in the control plane's scope.

        Raises:
            VaultError: the vault cannot be opened.
        """
        sealed = _seal(secret, about, vault)
        return await _catalogue_of(self).platform_job.enqueue(session, mail=self.name, about=about, sealed=sealed)


class MailCatalogue:
    """All mails: the union of all features' manifests."""

    def __init__(self, features: Iterable[Feature], *, job: Job, platform_job: Job) -> None:
        """Read the manifests; `job` sends what they declare of organizations, `platform_job` that of the platform.

        Raises:
            ValueError: two features declare one mail.
        """
        mails: dict[str, Mail] = {}
        of_platform: dict[str, PlatformMail] = {}
        for feature in features:
            for mail in feature.mails:
                if mail.name in mails or mail.name in of_platform:
                    raise ValueError(f"the mail {mail.name!r} is declared twice")
                if isinstance(mail, PlatformMail):
                    of_platform[mail.name] = mail
                else:
                    mails[mail.name] = mail
        self.mails: Mapping[str, Mail] = mails
        self.platform_mails: Mapping[str, PlatformMail] = of_platform
        self.job = job
        self.platform_job = platform_job

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where their templates are."""
        return tuple(dict.fromkeys(mail.folder for mail in self._all))

    @property
    def _all(self) -> tuple[Mail | PlatformMail, ...]:
        return (*self.mails.values(), *self.platform_mails.values())

    def check(self, templates: Templates) -> None:
        """Look through the templates of every mail.

        Raises:
            TemplateProblem: one is missing or wrong.
        """
        for mail in self._all:
            templates.check(mail.name, mail.text.__struct_fields__)


def require_mail(settings: Settings) -> None:
    """Refuse, where no mail can be sent, what would need to.

    Raises:
        UnavailableException: there is no TENANTRY_MAIL_URL.
    """
    if settings.mail_url is None:
        raise UnavailableException(problem=MAIL_NOT_CONFIGURED, retry_after=_RETRY_AFTER)


_mails: Current[MailCatalogue] = Current("catalogue of mails")
use_mails, using_mails, current_mails = _mails.use, _mails.using, _mails.get


def _seal(secret: str | None, about: UUID, vault: Vault | None) -> bytes | None:
    if secret is None:
        return None
    if vault is None:
        raise TypeError("a secret needs the vault that seals it")
    return vault.seal(secret.encode(), purpose=SECRET_PURPOSE, owner=about)


def _catalogue_of(mail: Mail | PlatformMail) -> MailCatalogue:
    catalogue = current_mails()
    if mail not in (catalogue.mails.get(mail.name), catalogue.platform_mails.get(mail.name)):
        raise LookupError(f"no feature declares the mail {mail.name!r}")
    return catalogue
