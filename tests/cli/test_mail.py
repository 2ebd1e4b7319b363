"""`tenantry mail`: reading the development outbox, and trying the transport."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenantry.cli.mailbox import Mailbox
from tenantry.cli.problems import ExitCode
from tenantry.cli.progress import Progress
from tenantry.kernel.mail import Message
from tenantry.kernel.mail.message import build_message
from tenantry.kernel.mail.transport import FolderTransport
from tests.cli.support import answer, refused, run
from tests.mailserver import MailServer, open_mail_server

LINK = "https://app.example/accept-invitation#token=inv_0_0"
APP = {"TENANTRY_APP_URL": "https://app.example", "TENANTRY_MAIL_FROM": "no-reply@mail.example"}


def keep(folder: Path, message_id: str, text: str = "Hello\n") -> None:
    message = build_message(
        Message(f"Subject {message_id}", text, "<p>Hello</p>"),
        sender="no-reply@mail.example",
        to="ann@people.example",
        message_id=message_id,
        language="en",
    )
    asyncio.run(FolderTransport(folder).deliver(message))


@contextmanager
def serving() -> Iterator[MailServer]:
    """A mail server in a thread of its own, since a command has an event loop of its own."""
    ready, done = threading.Event(), threading.Event()
    found: list[MailServer] = []

    async def serve() -> None:
        async with open_mail_server() as opened:
            found.append(opened)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield found[0]
    finally:
        done.set()
        thread.join()


def test_the_newest_mail_is_shown_with_its_link(tmp_path: Path) -> None:
    env = {"TENANTRY_HOME": str(tmp_path)}
    assert refused(run("mail", "show", env=env), ExitCode.NOT_FOUND) == "no mail was kept yet"
    assert answer(run("mail", "list", "--json", env=env)) == []
    keep(tmp_path / "mail", "one")
    keep(tmp_path / "mail", "two", f"Accept here:\n\n{LINK}\n")
    shown = run("mail", "show", env=env)
    assert shown.exit_code == 0
    assert f"link     {LINK}\n" in shown.stdout
    assert "Accept here:" in shown.stdout
    assert "Subject one" in run("mail", "show", "one", env=env).stdout
    found = answer(run("mail", "show", "two", "--json", env=env))
    assert (found["to"], found["subject"], found["links"]) == ("ann@people.example", "Subject two", [LINK])
    assert [row["id"] for row in answer(run("mail", "list", "--json", env=env))] == ["two", "one"]
    assert [row["id"] for row in answer(run("mail", "list", "--limit", "1", "--json", env=env))] == ["two"]
    assert "Subject one" in run("mail", "list", env=env).stdout
    assert "no mail three" in refused(run("mail", "show", "three", env=env), ExitCode.NOT_FOUND)


def test_where_a_server_takes_the_mail_there_is_none_to_read() -> None:
    env = APP | {"TENANTRY_MAIL_URL": "smtp://user:s3cret@mail.example"}
    said = refused(run("mail", "list", env=env), ExitCode.USAGE)
    assert said == "mail goes to smtp://user:***@mail.example, and none is kept here"


def test_a_test_mail_goes_the_way_that_the_settings_say(tmp_path: Path) -> None:
    with serving() as server:
        env = APP | {"TENANTRY_HOME": str(tmp_path), "TENANTRY_MAIL_URL": server.url()}
        sent = answer(run("mail", "test", "ann@people.example", "--json", env=env))
        [taken] = server.taken
        assert taken.recipients == ("ann@people.example",)
        assert taken.message["Message-ID"] == f"<{sent['id']}@mail.example>"
        assert "mail arrives" in taken.part("plain")
        assert run("mail", "test", "ann@people.example", "--quiet", env=env).output == ""
        server.on_recipient = lambda _: "550 5.1.1 unknown"
        said = refused(run("mail", "test", "ann@people.example", env=env), ExitCode.FAILED)
        assert said == "the server refuses the recipient: 550 5.1.1"
        assert "not an address" in refused(run("mail", "test", "ann", env=env), ExitCode.USAGE)
    said = refused(run("mail", "test", "ann@people.example", env=env), ExitCode.UNAVAILABLE)
    assert "cannot be spoken to" in said


def test_without_a_transport_a_test_says_what_is_missing(tmp_path: Path) -> None:
    env = {"TENANTRY_HOME": str(tmp_path)}
    said = refused(run("mail", "test", "ann@people.example", env=env), ExitCode.USAGE)
    assert said == "TENANTRY_MAIL_URL is not set: no mail is sent here"
    # Beside `tenantry up`, whose outbox is there, it goes where everything goes.
    (tmp_path / "mail").mkdir()
    assert run("mail", "test", "ann@people.example", env=env).exit_code == 0
    assert "A test of Tenantry's mail" in run("mail", "show", env=env).stdout


def test_a_mistake_in_a_template_is_told_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "test.txt").write_text("{% block subject %}", encoding="utf-8")
    env = APP | {"TENANTRY_MAIL_TEMPLATES": str(tmp_path), "TENANTRY_MAIL_URL": (tmp_path / "mail").as_uri()}
    assert "test.txt:1: " in refused(run("mail", "test", "ann@people.example", env=env), ExitCode.USAGE)


def test_up_shows_each_mail_once_as_it_comes(tmp_path: Path) -> None:
    lines: list[str] = []

    class Told(Progress):
        def say(self, text: str, style: str = "") -> None:
            lines.append(text)

    keep(tmp_path, "before")
    mailbox = Mailbox(tmp_path, Told())
    mailbox.watch()
    keep(tmp_path, "after", f"{LINK}\n")
    mailbox._next = 0.0
    mailbox.watch()
    mailbox._next = 0.0
    mailbox.watch()
    assert lines == [f"Mail to ann@people.example: Subject after  {LINK}"]
