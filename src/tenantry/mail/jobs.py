"""Sending."""

from __future__ import annotations

import random
from typing import TypeVar
from uuid import UUID

import msgspec
import structlog

from tenantry.jobs.definition import Discard, Hopeless, JobRun, Retry, Transactions, job
from tenantry.kernel.mail import (
    Branding,
    Mailer,
    MailRefusedError,
    MailUnavailableError,
    RecipientRefusedError,
    TemplateProblem,
)
from tenantry.kernel.security import BrokenSealError, UnknownSealingKeyError, Vault
from tenantry.kernel.settings import Settings
from tenantry.mail.definition import SECRET_PURPOSE, Letter, Occasion, PlatformOccasion, current_mails
from tenantry.tenancy.context import TenantContext

__all__ = ("send_mail", "send_platform_mail")

_M = TypeVar("_M")

_FIRST, _LONGEST = 30.0, 14_400.0
"""Seconds between attempts: twelve of them are half a day, in which a mail server is usually repaired."""

_log = structlog.get_logger(__name__)


@job("send_mail", retries=12, timeout=180, backoff=_FIRST, keep=60)
async def send_mail(
    open: Transactions,  # noqa: A002
    settings: Settings,
    vault: Vault,
    mailer: Mailer,
    tenant: TenantContext,
    run: JobRun,
    mail: str,
    about: UUID,
    sealed: bytes | None = None,
) -> None:
    """Write to somebody, at least once: every copy has the same Message-ID, and the same link in it.

    What is logged names the mail and the job, never whom it is to.
    """
    found = _known(current_mails().mails.get(mail), mail, mailer, run)
    secret = _unseal(vault, sealed, about, run)
    async with open() as session:
        letter = await found.compose(session, Occasion(tenant, settings, about, secret))
    await _deliver(mailer, mail, letter, Branding(tenant.name), run)


@job("send_platform_mail", retries=12, timeout=180, backoff=_FIRST, keep=60, platform=True)
async def send_platform_mail(
    open: Transactions,  # noqa: A002
    settings: Settings,
    vault: Vault,
    mailer: Mailer,
    run: JobRun,
    mail: str,
    about: UUID,
    sealed: bytes | None = None,
) -> None:
    """As `send_mail`, in the name of the deployment."""
    found = _known(current_mails().platform_mails.get(mail), mail, mailer, run)
    secret = _unseal(vault, sealed, about, run)
    async with open() as session:
        letter = await found.compose(session, PlatformOccasion(settings, about, secret))
    await _deliver(mailer, mail, letter, Branding(settings.mail_sender_name), run)


def _known(found: _M | None, mail: str, mailer: Mailer, run: JobRun) -> _M:
    if found is None:
        # Of a newer release, whose workers may be there already.
        raise _later(run, f"there is no mail {mail!r} in this release")
    if not mailer.is_configured:
        raise _later(run, "TENANTRY_MAIL_URL is not set in this worker")
    return found


async def _deliver(mailer: Mailer, mail: str, letter: Letter, branding: Branding, run: JobRun) -> None:
    try:
        await mailer.send(
            mail,
            msgspec.structs.asdict(letter.text),
            to=letter.to,
            message_id=run.id,
            branding=branding,
        )
    except RecipientRefusedError as error:
        _log.warning("mail not sent: there is no such recipient", mail=mail, reason=str(error))
        raise Discard(str(error)) from None
    except MailRefusedError as error:
        raise Hopeless(str(error)) from None
    except MailUnavailableError as error:
        raise _later(run, str(error)) from None
    except TemplateProblem as error:
        # A deployment's own templates, most likely: there is time to put them right.
        raise _later(run, str(error)) from None
    _log.info("mail sent", mail=mail)


def _unseal(vault: Vault, sealed: bytes | None, about: UUID, run: JobRun) -> str | None:
    if sealed is None:
        return None
    try:
        return vault.unseal(sealed, purpose=SECRET_PURPOSE, owner=about).decode()
    except UnknownSealingKeyError as error:
        raise _later(run, str(error)) from None
    except BrokenSealError as error:
        raise Hopeless(str(error)) from None


def _later(run: JobRun, reason: str) -> Retry:
    _log.warning("mail waits", reason=reason, attempt=run.attempt, attempts=run.attempts)
    # A fifth more or less: what a server's outage has held up is not to come back all at once.
    return Retry(reason, after=min(_LONGEST, _FIRST * 2 ** (run.attempt - 1)) * random.uniform(0.8, 1.2))
