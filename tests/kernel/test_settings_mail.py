from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.kernel.settings import describe
from tests.kernel.settings_support import load, problems

APP = "https://app.example.com"
SENDER = "Example <no-reply@example.com>"


def test_no_mail_is_sent_by_default() -> None:
    settings = load()
    assert (settings.mail_url, settings.app_url, settings.mail_from) == (None, None, None)
    with pytest.raises(ValueError, match="TENANTRY_APP_URL"):
        settings.page("accept", tenant="acme")


@pytest.mark.parametrize(
    "url",
    [
        "smtp://user:password@mail.example.com:587?tls=starttls",
        "smtp://user%40example.com:pass%2Fword@mail.example.com?tls=implicit",
        "smtp://mail.example.com",
        "smtp://[::1]:2525?tls=none",
        "smtp://u:p@localhost:2525?tls=none",
        "file:///var/mail",
    ],
)
def test_a_server_or_a_folder_is_taken_as_it_is_written(url: str) -> None:
    assert load(APP_URL=APP, MAIL_URL=url, MAIL_FROM=SENDER).mail_url == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("smtps://mail.example.com", "an address of the form smtp://"),
        ("smtp://", "an address of the form smtp://"),
        ("smtp://a.example,b.example", "an address of the form smtp://"),
        ("smtp://mail.example.com/path", "an address of the form smtp://"),
        ("smtp://user@mail.example.com", "with both a user and a password or neither"),
        ("smtp://user:@mail.example.com", "with both a user and a password or neither"),
        ("smtp://mail.example.com?tls=maybe", "tls being starttls, implicit or none"),
        ("smtp://mail.example.com?ssl=1", "tls being starttls, implicit or none"),
        ("smtp://user:pw@mail.example.com?tls=none", "tls other than none where a password is sent"),
        ("file://relative/folder", "or file:///absolute/folder"),
        ("mail.example.com", "an address of the form smtp://"),
    ],
)
def test_what_is_neither_is_refused(url: str, said: str) -> None:
    [problem] = problems(APP_URL=APP, MAIL_URL=url, MAIL_FROM=SENDER)
    assert problem.startswith("TENANTRY_MAIL_URL: got ")
    assert said in problem
    assert ":pw@" not in problem


def test_the_servers_password_is_never_shown() -> None:
    settings = load(APP_URL=APP, MAIL_URL="smtp://user:s3cret@mail.example.com", MAIL_FROM=SENDER)
    assert "s3cret" not in repr(settings)
    [shown] = [doc.value for doc in describe(settings) if doc.name == "mail_url"]
    assert shown == "smtp://user:***@mail.example.com"


def test_mail_needs_somewhere_for_its_links_to_lead_and_somebody_to_be_from() -> None:
    assert problems(MAIL_URL="smtp://mail.example.com", MAIL_FROM=SENDER) == (
        "TENANTRY_MAIL_URL: got smtp://mail.example.com, expected TENANTRY_APP_URL to be set as well: mail has links in"
        " it",
    )
    assert problems(APP_URL=APP, MAIL_URL="smtp://mail.example.com") == (
        "TENANTRY_MAIL_FROM: is not set, expected an address such as no-reply@example.com or "
        "Example <no-reply@example.com>, since TENANTRY_MAIL_URL is a server",
    )
    assert load(APP_URL=APP, MAIL_URL="file:///var/mail").mail_sender == "Tenantry <tenantry@localhost>"


@pytest.mark.parametrize(
    "sender", ["no-reply@example.com", "Example <no-reply@example.com>", '"Example, Inc." <a.b+c@example.com>']
)
def test_a_mailbox_is_taken_with_or_without_a_name(sender: str) -> None:
    assert load(MAIL_FROM=sender).mail_sender == sender


@pytest.mark.parametrize(
    "sender", ["nobody", "a@b.example, c@d.example", "A\nBcc: x <a@b.example>", "<a@b.example", "a@b_c.example"]
)
def test_what_is_no_mailbox_is_refused(sender: str) -> None:
    [problem] = problems(MAIL_FROM=sender)
    assert "expected an address such as no-reply@example.com" in problem


def test_links_lead_to_the_organizations_own_host_where_the_address_says_so() -> None:
    assert load(APP_URL="https://{tenant}.example.com/").page("a", tenant="acme") == "https://acme.example.com/a"
    assert load(APP_URL="https://example.com/app").page("a", tenant="acme") == "https://example.com/app/a"
    assert load(APP_URL="http://localhost:3000").page("a", tenant="acme") == "http://localhost:3000/a"


@pytest.mark.parametrize("url", ["example.com", "ftp://example.com", "https://{slug}.example.com/x?y", "https://"])
def test_what_is_no_address_of_a_front_end_is_refused(url: str) -> None:
    [problem] = problems(APP_URL=url)
    assert "perhaps with {tenant} in it" in problem


def test_a_folder_of_templates_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert load(MAIL_TEMPLATES=str(tmp_path)).mail_templates == tmp_path
    [problem] = problems(MAIL_TEMPLATES=str(tmp_path / "missing"))
    assert problem.endswith("expected a folder that is there")
