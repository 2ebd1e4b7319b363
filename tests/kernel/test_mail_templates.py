"""Templates and the messages made of them: nothing that people have written becomes a header, markup or a paragraph."""

from __future__ import annotations

import re
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.features import MAILS
from tenantry.kernel.mail import Branding, Message, TemplateProblem, Templates
from tenantry.kernel.mail.message import build_message, one_line

TEMPLATES = Templates(MAILS.folders)
ACME = Branding("Acme")
LINK = "https://app.example/accept#token=inv_0_0"
GIVEN: dict[str, Any] = {
    "email": "ann@people.example",
    "name": "Ann",
    "link": LINK,
    "days": 7,
    "minutes": 60,
    "hours": 24,
    "has_password": True,
    "old_email": "ann@people.example",
    "new_email": "ann@elsewhere.example",
    "cancel": "https://app.example/cancel#token=inv_0_1",
    "device": "Firefox on Windows",
    "address": "203.0.113.9",
    "moment": "23 November 2026, 19:05 UTC",
    "operator": "Olga Operator",
    "reason": "Ticket 7",
    "access": "read",
    "until": "23 November 2026, 19:20 UTC",
}


def given_to(name: str) -> dict[str, Any]:
    return {field: GIVEN[field] for field in MAILS.mails[name].text.__struct_fields__}


def write(folder: Path, name: str, content: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def built_in() -> Templates:
    return Templates(MAILS.folders)


@pytest.mark.parametrize("name", sorted(MAILS.mails))
def test_every_mail_has_a_subject_a_text_and_html_that_fetches_nothing(name: str, built_in: Templates) -> None:
    MAILS.check(built_in)
    made = built_in.render(name, given_to(name), ACME)
    assert "Acme" in made.subject
    if "link" in given_to(name):
        assert made.text.split().count(LINK) == 1
        assert f'href="{LINK}"' in made.html
    # Nothing is loaded when it is opened: no pixel that tells, and nothing that a client has to block.
    assert not re.search(r"<(img|link|script|iframe|object|video)\b|src=|url\(|@import", made.html)
    assert ACME.accent in made.html


@given(st.text(min_size=1, max_size=60))
def test_no_name_of_an_organization_gets_out_of_its_place(name: str) -> None:
    plain = TEMPLATES.render("invitation", given_to("invitation"), ACME)
    made = TEMPLATES.render("invitation", given_to("invitation"), Branding(name))
    assert made.text.count("\n") == plain.text.count("\n")
    assert len(re.findall("<", made.html)) == len(re.findall("<", plain.html))
    sent = build_message(made, sender="no-reply@example.com", to="ann@people.example", message_id="m", language="en")
    headers = bytes(sent).partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = [line.partition(b":")[0] for line in headers if not line.startswith((b" ", b"\t"))]
    assert names == [
        *(b"From", b"To", b"Subject", b"Date", b"Message-ID"),
        *(b"Auto-Submitted", b"MIME-Version", b"Content-Type", b"Content-Language"),
    ]


@pytest.mark.parametrize(
    "name", ["A\r\nBcc: eve@evil.example", "A\nBcc: eve@evil.example", "A\x0b\x0c\x85\u2028\u2029Bcc: eve@evil.example"]
)
def test_a_header_cannot_be_injected(name: str, built_in: Templates) -> None:
    made = built_in.render("invitation", given_to("invitation"), Branding(name))
    sent = build_message(made, sender="no-reply@example.com", to="ann@people.example", message_id="m", language="en")
    assert sent["Bcc"] is None
    assert b"\nBcc:" not in sent.as_bytes(policy=SMTP)
    assert sent["Subject"] == "You are invited to A Bcc: eve@evil.example"


def test_names_are_text_and_no_markup(built_in: Templates) -> None:
    made = built_in.render("invitation", given_to("invitation"), Branding('<img src=x onerror="alert(1)">&'))
    assert "<img" not in made.html
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;&amp;" in made.html
    # The text is no HTML: there it stands as it is.
    assert '<img src=x onerror="alert(1)">&' in made.text


def test_a_name_cannot_turn_the_direction_of_writing() -> None:
    assert one_line("moc.\u202eelpmaxe\u2066 \t x") == "moc.elpmaxe x"


@pytest.mark.parametrize("colour", ["red", "#fff", "#ffffff;background:url(https://evil.example)", "#GGGGGG", ""])
def test_a_colour_is_a_colour_and_nothing_else(colour: str) -> None:
    with pytest.raises(ValueError, match="expected a colour"):
        Branding("Acme", accent=colour)


def test_an_id_with_other_characters_is_refused() -> None:
    message = Message("s", "t", "h")
    for message_id in ("a b", "a>\r\nBcc: x", ""):
        with pytest.raises(ValueError, match="message's id"):
            build_message(message, sender="a@b.example", to="c@d.example", message_id=message_id, language="en")


@pytest.mark.parametrize(
    "to", ["ann@people.example\r\nBcc: eve@evil.example", "ann@a.example, eve@b.example", "ann", ""]
)
def test_an_address_is_one_address(to: str) -> None:
    with pytest.raises(ValueError, match="not an address") as caught:
        build_message(Message("s", "t", "h"), sender="a@b.example", to=to, message_id="m", language="en")
    assert not to or to not in str(caught.value)


def test_a_team_replaces_one_template_and_keeps_the_rest(tmp_path: Path) -> None:
    write(
        tmp_path,
        "en/invitation.txt",
        "{% block subject %}Hi {{ name }}{% endblock %}{{ organization }} & {{ link }}\n",
    )
    templates = Templates(MAILS.folders, override=tmp_path)
    MAILS.check(templates)
    made = templates.render("invitation", given_to("invitation"), ACME)
    assert (made.subject, made.text) == ("Hi Ann", f"Hi AnnAcme & {LINK}\n")
    assert "Accept the invitation" in made.html
    assert "password" in templates.render("password_reset", given_to("password_reset"), ACME).text


def test_a_layout_of_ones_own_is_every_mails(tmp_path: Path) -> None:
    write(tmp_path, "en/layout.html", "<b>{{ organization }}, Inc.</b>{% block body %}{% endblock %}")
    templates = Templates(MAILS.folders, override=tmp_path)
    for name in MAILS.mails:
        assert templates.render(name, given_to(name), ACME).html.startswith("<b>Acme, Inc.</b>")


def test_another_language_is_taken_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, "de/invitation.txt", "{% block subject %}Einladung{% endblock %}{{ link }}")
    templates = Templates(MAILS.folders, override=tmp_path)
    MAILS.check(templates)
    made = templates.render("invitation", given_to("invitation"), ACME, language="de")
    assert made.subject == "Einladung"
    assert 'lang="de"' in made.html


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("en/invitation.txt", "{% block subject %}x{% endblock %}{{ lnk }}", "invitation.txt: uses lnk; there are "),
        ("en/invitation.html", "{{ password }}", "invitation.html: uses password; there are "),
        ("en/invitation.txt", "{{ link }}", "has no block 'subject'"),
        ("en/invitation.html", "\n{% if %}", "invitation.html:2: "),
        ("de/invitation.txt", "{% block subject %}{{ x }}{% endblock %}", "uses x"),
    ],
)
def test_a_mistake_in_a_template_is_found_before_it_is_used(tmp_path: Path, file: str, content: str, said: str) -> None:
    write(tmp_path, file, content)
    with pytest.raises(TemplateProblem) as caught:
        MAILS.check(Templates(MAILS.folders, override=tmp_path))
    assert said in str(caught.value)
    assert file.rpartition("/")[2] in str(caught.value)


def test_a_template_that_is_not_there_is_named(built_in: Templates) -> None:
    with pytest.raises(TemplateProblem, match=r"there is no template en/farewell\.txt"):
        built_in.render("farewell", {}, ACME)


def test_a_hole_in_a_mail_is_an_error(built_in: Templates) -> None:
    arguments = given_to("invitation")
    del arguments["link"]
    with pytest.raises(TemplateProblem, match="'link' is undefined"):
        built_in.render("invitation", arguments, ACME)
