"""`tenantry mail`: what the development outbox has kept, and a test of the transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import rich_click as click
from uuid_utils.compat import uuid7

from tenantry.cli.output import json_option, print_fields, print_json, print_table, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.mail import (
    Branding,
    Mailer,
    MailRefusedError,
    MailUnavailableError,
    TemplateProblem,
)
from tenantry.kernel.mail.outbox import folder_of, list_mail
from tenantry.kernel.settings import load_settings, redact_url

if TYPE_CHECKING:
    from tenantry.kernel.mail.outbox import KeptMail

__all__ = ("mail",)


@click.group(epilog="Example: tenantry mail show")
def mail() -> None:
    """Read the mail that the development outbox has kept, and test whether mail goes out."""


@mail.command("list", epilog="Example: tenantry mail list --limit 5")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@json_option
def list_kept(limit: int, as_json: bool) -> None:
    """List the mail in the development outbox, the newest first."""
    rows = _kept()[:limit]
    if as_json:
        print_json([_as_json(each) for each in rows])
        return
    print_table(
        ("Id", "At", "To", "Subject"),
        [(each.id, f"{each.kept_at:%Y-%m-%d %H:%M:%S}", each.to, each.subject) for each in rows],
    )


@mail.command(epilog="Example: tenantry mail show")
@click.argument("mail_id", required=False, metavar="[ID]")
@json_option
def show(mail_id: str | None, as_json: bool) -> None:
    """Show one mail of the development outbox with its link: the newest, or that of ID."""
    rows = _kept()
    found = next((each for each in rows if mail_id is None or each.id == mail_id), None)
    if found is None:
        raise CommandError(
            "no mail was kept yet" if mail_id is None else f"there is no mail {mail_id} in the outbox",
            ExitCode.NOT_FOUND,
        )
    if as_json:
        print_json(_as_json(found))
        return
    fields: dict[str, object] = {"id": found.id, "at": found.kept_at, "to": found.to, "subject": found.subject}
    print_fields(fields | {"file": found.path} | ({"link": found.links[0]} if found.links else {}))
    click.echo(f"\n{found.text}", nl=False)


@mail.command(epilog="Example: tenantry mail test you@example.com")
@click.argument("address")
@json_option
@quiet_option
def test(address: str, as_json: bool, quiet: bool) -> None:
    """Send a test to ADDRESS by the transport of TENANTRY_MAIL_URL.

    Ends with 1 where the server refuses it, and with 5 where it cannot be reached. That the server takes a mail does
    not mean that it arrives: look into the mailbox.
    """
    settings = load_settings()
    if settings.mail_url is None:
        folder = folder_of(settings)
        if folder is None or not folder.is_dir():
            raise CommandError("TENANTRY_MAIL_URL is not set: no mail is sent here", ExitCode.USAGE)
        settings = settings.model_copy(update={"mail_url": folder.absolute().as_uri()})
    message_id = f"test-{uuid7()}"
    try:
        asyncio.run(Mailer(settings).send("test", {}, to=address, message_id=message_id, branding=Branding("Tenantry")))
    except MailRefusedError as error:
        raise CommandError(str(error)) from None
    except MailUnavailableError as error:
        raise CommandError(str(error), ExitCode.UNAVAILABLE) from None
    except (TemplateProblem, ValueError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    where = redact_url(settings.mail_url or "")
    if as_json:
        print_json({"id": message_id, "to": address, "transport": where})
    elif not quiet:
        click.echo(f"{where} has taken a mail to {address}: {message_id}")


def _kept() -> list[KeptMail]:
    settings = load_settings()
    folder = folder_of(settings)
    if folder is None:
        raise CommandError(f"mail goes to {redact_url(settings.mail_url or '')}, and none is kept here", ExitCode.USAGE)
    return list_mail(folder)


def _as_json(kept: KeptMail) -> dict[str, object]:
    return {
        "id": kept.id,
        "keptAt": kept.kept_at,
        "to": kept.to,
        "subject": kept.subject,
        "links": kept.links,
        "text": kept.text,
        "path": str(kept.path),
    }
