"""Mail over real connections: encrypted or not, taken, refused, or not taken now."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from email.message import EmailMessage
from pathlib import Path

import pytest

from tenantry.kernel.mail import (
    MailRefusedError,
    MailUnavailableError,
    Message,
    RecipientRefusedError,
    open_transport,
)
from tenantry.kernel.mail.message import build_message
from tenantry.kernel.mail.outbox import folder_of, list_mail
from tenantry.kernel.settings import Settings
from tests.mailserver import MailServer, make_certificate, open_mail_server

SENDER = "Example <no-reply@example.com>"
ANN = "ann@people.example"
PASSWORD = "s3cret:@/"
ACCOUNT = "mailer%40example.com:s3cret%3A%40%2F@"


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with open_mail_server() as opened:
        yield opened


def message(to: str = ANN, message_id: str = "one") -> EmailMessage:
    text = Message(subject="Grüße", text="Hello Ünne\n.\nFrom here on\n" + "x" * 2000 + "\n", html="<p>Hello</p>")
    return build_message(text, sender=SENDER, to=to, message_id=message_id, language="en")


def settings(url: str, *, patience: float = 5) -> Settings:
    return Settings(app_url="https://app.example", mail_url=url, mail_from=SENDER, mail_timeout=patience)


async def deliver(url: str, sent: EmailMessage | None = None, *, patience: float = 5) -> None:
    await open_transport(settings(url, patience=patience)).deliver(sent or message())


async def test_a_message_arrives_as_it_was_written(server: MailServer) -> None:
    await deliver(server.url())
    [taken] = server.taken
    assert (taken.sender, taken.recipients) == ("no-reply@example.com", (ANN,))
    assert str(taken.message["Subject"]) == "Grüße"
    assert str(taken.message["Message-ID"]) == "<one@example.com>"
    assert taken.part("plain").splitlines() == ["Hello Ünne", ".", "From here on", "x" * 2000]
    assert taken.part("html").strip() == "<p>Hello</p>"
    assert max(map(len, taken.content.splitlines())) <= 998


def serving(
    tls: str, context: ssl.SSLContext, *, users: dict[str, str] | None = None
) -> AbstractAsyncContextManager[MailServer]:
    if tls == "starttls":
        return open_mail_server(starttls=context, users=users)
    return open_mail_server(implicit=context, users=users)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_password_goes_over_an_encrypted_connection_alone(
    tls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    users = {"mailer@example.com": PASSWORD}
    async with serving(tls, context, users=users) as server:
        await deliver(server.url(account=ACCOUNT, tls=tls))
        [taken] = server.taken
        assert taken.user == "mailer@example.com"
        assert taken.encrypted is (tls == "starttls")  # aiosmtpd does not know of the other kind


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_certificate_that_nobody_vouches_for_is_refused(tls: str, tmp_path: Path) -> None:
    _, context = make_certificate(tmp_path)
    async with serving(tls, context) as server:
        with pytest.raises(MailUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await deliver(server.url(tls=tls))
        assert server.taken == []


async def test_a_server_that_does_not_encrypt_gets_nothing(server: MailServer) -> None:
    with pytest.raises(MailUnavailableError):
        await deliver(server.url(account=ACCOUNT, tls="starttls"))
    assert server.taken == []


async def test_a_wrong_password_is_the_operators_to_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, context = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with open_mail_server(users={"mailer@example.com": "other"}, starttls=context) as server:
        with pytest.raises(MailUnavailableError, match="refuses the log-in: 535") as caught:
            await deliver(server.url(account=ACCOUNT, tls="starttls"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "answer", "kind", "said"),
    [
        ("recipient", "550 5.1.1 <{}> no such user", RecipientRefusedError, "550 5.1.1"),
        ("recipient", "551 <{}> has moved", RecipientRefusedError, "551"),
        ("recipient", "450 4.2.1 <{}> is busy", MailUnavailableError, "450 4.2.1"),
        ("recipient", "452 <{}> is over quota", MailUnavailableError, "452"),
        ("data", "554 5.7.1 spam for {}", MailRefusedError, "554 5.7.1"),
        ("data", "552 5.3.4 too big for {}", MailRefusedError, "552 5.3.4"),
        ("data", "451 4.3.0 try {} later", MailUnavailableError, "451 4.3.0"),
        ("sender", "550 5.7.1 not your address, {}", MailUnavailableError, "refuses TENANTRY_MAIL_FROM: 550 5.7.1"),
        ("sender", "421 4.3.2 closing for {}", MailUnavailableError, "421"),
    ],
)
async def test_what_a_server_says_is_known_by_its_codes_and_not_repeated(
    server: MailServer, where: str, answer: str, kind: type[Exception], said: str
) -> None:
    setattr(server, f"on_{where}", lambda _: answer.format(ANN))
    with pytest.raises(kind) as caught:
        await deliver(server.url())
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert ANN not in str(caught.value)
    # What a traceback would print.
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None
    assert server.taken == []


async def test_nobody_there_is_waited_for() -> None:
    async with open_mail_server() as server:
        url = server.url()
    with pytest.raises(MailUnavailableError, match=r"127\.0\.0\.1:\d+ .*cannot be spoken to"):
        await deliver(url)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    ended = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.set()

    listening = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(MailUnavailableError):
            await deliver(f"smtp://127.0.0.1:{port}?tls=none", patience=0.1)
        await ended.wait()


async def test_an_address_beyond_ascii_needs_a_server_that_knows_them() -> None:
    foreign = "用户@people.example"
    async with open_mail_server(smtputf8=True) as server:
        await deliver(server.url(), message(foreign))
        assert server.taken[0].recipients == (foreign,)
    async with open_mail_server() as server:
        with pytest.raises(RecipientRefusedError, match="SMTPUTF8"):
            await deliver(server.url(), message(foreign))


async def test_the_outbox_keeps_mail_for_its_owner_alone_and_each_message_once(tmp_path: Path) -> None:
    folder = tmp_path / "with space" / "mail"
    url = folder.as_uri()
    for message_id in ("one", "two", "one"):
        await deliver(url, message(message_id=message_id))
    assert sorted(path.name for path in folder.iterdir()) == ["one.eml", "two.eml"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    found = list_mail(folder)
    assert {(kept.id, kept.to, kept.subject) for kept in found} == {("one", ANN, "Grüße"), ("two", ANN, "Grüße")}
    assert folder_of(settings(url)) == folder
    assert folder_of(settings("smtp://mail.example")) is None


async def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MailUnavailableError, match="Not a directory"):
        await deliver((tmp_path / "file" / "mail").as_uri())
