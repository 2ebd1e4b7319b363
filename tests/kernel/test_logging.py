from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import logging
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tenantry.kernel.logging import configure_logging, redact, scrub

SECRET = "hunter2-s3cret"
JWT = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


class Lines:
    """What was logged, one parsed JSON object a line."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n") if line]

    def one(self) -> dict[str, Any]:
        (line,) = self.read()
        return line


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers, configuration = root.level, list(root.handlers), structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**configuration)
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines() -> Lines:
    lines = Lines()
    configure_logging("INFO", "json", stream=lines.stream)
    return lines


def log() -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("tenantry.test")
    return logger


def test_an_event_is_one_line_of_json_with_time_level_and_logger(lines: Lines) -> None:
    log().info("tenant created\nat once", slug="acme", count=3)
    line = lines.one()
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "logger": "tenantry.test",
        "event": "tenant created\nat once",
        "slug": "acme",
        "count": 3,
    }


def test_what_libraries_log_takes_the_same_way(lines: Lines) -> None:
    structlog.contextvars.bind_contextvars(request_id="r1", tenant="acme", user_id="u1")
    log().info("ours")
    logging.getLogger("asyncpg.pool").warning("lost %s of %d", "one", 2, extra={"pool": "main"})
    ours, theirs = lines.read()
    assert (theirs["logger"], theirs["level"], theirs["event"]) == ("asyncpg.pool", "warning", "lost one of 2")
    assert theirs["pool"] == "main"
    for line in (ours, theirs):
        assert (line["request_id"], line["tenant"], line["user_id"]) == ("r1", "acme", "u1")
        assert line["timestamp"].endswith("Z")


def test_a_warning_of_python_is_an_event_like_any_other(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        configure_logging("INFO", "json", stream=lines.stream)
        warnings.warn("old ways", stacklevel=1)
        logging.captureWarnings(False)
    assert lines.one()["logger"] == "py.warnings"


def test_events_below_the_level_are_not_logged(lines: Lines) -> None:
    configure_logging("WARNING", "json", stream=lines.stream)
    log().info("quiet")
    logging.getLogger("library").info("quiet")
    log().error("loud")
    assert lines.one()["event"] == "loud"


def test_configuring_again_replaces_and_does_not_double(lines: Lines) -> None:
    bound = log()
    bound.info("before")
    logging.getLogger().addHandler(logging.StreamHandler(lines.stream))
    for _ in range(3):
        configure_logging("INFO", "json", stream=lines.stream)
    bound.info("after")
    assert [line["event"] for line in lines.read() if line["event"] == "after"] == ["after"]
    configure_logging("INFO", "console", stream=lines.stream)
    bound.info("for people")
    last = lines.text.splitlines()[-1]
    assert "for people" in last
    assert not last.startswith("{")
    assert "\x1b[" not in last


def test_handlers_of_others_stay(lines: Lines) -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure_logging("INFO", "json", stream=lines.stream)
    assert other in logging.getLogger().handlers


def test_an_unknown_level_or_format_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("LOUD")
    with pytest.raises(ValueError, match="xml"):
        configure_logging("INFO", "xml")  # type: ignore[arg-type]


class Login(msgspec.Struct):
    email: str
    password: str


@dataclasses.dataclass
class Session:
    user: str
    refresh_token: str


@pytest.mark.parametrize(
    "fields",
    [
        {"password": SECRET},
        {"Authorization": f"Bearer {SECRET}"},
        {"x-api-key": SECRET},
        {"accessToken": SECRET, "refreshToken": SECRET, "newPassword2": SECRET, "API_KEY": SECRET},
        {"password_hash": SECRET, "token_digest": SECRET, "clientSecret": SECRET, "cookies": {"a": SECRET}},
        {"body": {"user": {"credentials": [{"secret": SECRET}]}}},
        {"headers": [(b"authorization", SECRET.encode()), ("set-cookie", SECRET)]},
        {"headers": {b"cookie": SECRET.encode()}},
        {"login": Login("a@b.c", SECRET)},
        {"session": [Session("a", SECRET)]},
        {"secret": SecretStr(SECRET)},
        {"dsn": f"postgresql://app:{SECRET}@db/tenantry"},
        {"dsn": f"postgresql://app:a@b/{SECRET}@db/tenantry"},
        {"redis": [f"redis://:{SECRET}@cache/0"]},
        {"query": f"/reset?token={SECRET}&page=1"},
        {"dump": f"{{'user': 'a', 'password': '{SECRET} with blanks'}}"},
        {"dump": f'{{"apiKey":"{SECRET}","a":1}}'},
        {"dump": f"Login(email='a', password='{SECRET}')"},
        {"dump": f"[(b'cookie', b'session={SECRET}')]"},
        {"dump": f"Authorization: Basic {SECRET}\r\nCookie: a=1; b={SECRET}"},
        {"dump": f"sent Bearer {SECRET}{SECRET}"},
        {"dump": f"$argon2id$v=19$m=64,t=1,p=1${SECRET.replace('-', '')}"},
        {"dump": f"-----BEGIN PRIVATE KEY-----\n{SECRET.replace('-', '')}\n-----END PRIVATE KEY-----"},
    ],
)
def test_no_secret_is_logged_wherever_it_stands(lines: Lines, fields: dict[str, Any]) -> None:
    log().info("login", **fields)
    logging.getLogger("library").warning("login %s", fields)
    logging.getLogger("library").warning("login", extra=fields)
    log().warning("login %s", fields)
    log().warning("login %(a)s", {"a": fields})
    assert len(lines.read()) == 5
    for form in (SECRET, SECRET.replace("-", "")):
        assert form not in lines.text
    configure_logging("INFO", "console", stream=lines.stream)
    log().info("login", **fields)
    assert SECRET not in lines.text


def test_tokens_and_credentials_are_known_by_their_look(lines: Lines) -> None:
    credential = f"rt_{'0a' * 16}_{'f1' * 32}"
    log().info(f"got {JWT} and {credential}", also=[JWT])
    logging.getLogger("library").error("refused: %s", JWT)
    assert JWT.split(".")[2] not in lines.text
    assert "f1f1" not in lines.text
    # Whose it was stays readable.
    assert f"rt_{'0a' * 16}_***" in lines.text


@pytest.mark.parametrize("format_", ["json", "console"])
def test_an_exception_is_logged_with_its_trace_and_without_its_secrets(lines: Lines, format_: Any) -> None:
    configure_logging("INFO", format_, stream=lines.stream)
    try:
        local = SECRET.upper()
        raise ConnectionError(f"postgresql://app:{SECRET}@db refused {JWT} of " + local[:0])  # noqa: TRY301
    except ConnectionError:
        log().exception("no database")
        logging.getLogger("library").exception("no database")
    assert "Traceback" in lines.text
    assert "ConnectionError: postgresql://app:***@db refused *** of" in lines.text
    assert SECRET not in lines.text
    # No local variables either.
    assert SECRET.upper() not in lines.text
    if format_ == "json":
        assert len(lines.read()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "InvalidToken: expired",
        "bearer authentication required",
        "GET http://127.0.0.1:8000/api/teams?page=2 from a@b.c",
        "0192f1d0-1111-7222-8333-444455556666",
        "https://user@example.com/path",
        "token_type=Bearer",
    ],
)
def test_what_is_no_secret_stays_readable(text: str) -> None:
    assert scrub(text) == text


def test_numbers_and_names_about_secrets_stay_readable() -> None:
    event = {"token_type": "Bearer", "password_min_length": 8, "has_password": True, "tokenize": "a", "status": 200}
    assert redact(None, "info", dict(event)) == event | {"has_password": True}


class Awkward:
    def __repr__(self) -> str:
        return f"Awkward(token='{SECRET}')"


def test_everything_that_can_be_logged_becomes_json(lines: Lines) -> None:
    deep: list[Any] = []
    deep.append(deep)
    log().info(
        "values",
        identity=UUID(int=1),
        at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        big=2**70,
        nan=float("nan"),
        raw=b"\xff",
        surrogate="\ud800",
        deep=deep,
        items={1, 2},
        keys={1: "a", None: "b"},
        other=Awkward(),
        error=ValueError("x"),
    )
    line = lines.one()
    assert line["identity"] == "00000000-0000-0000-0000-000000000001"
    assert line["big"] == str(2**70)
    assert line["nan"] is None
    assert line["raw"] == "\\xff"
    assert line["surrogate"] == "\\ud800"
    assert line["items"] == [1, 2]
    assert line["keys"] == {"1": "a", "None": "b"}
    assert line["other"] == "Awkward(token=***)"
    assert line["error"] == "ValueError('x')"
    assert SECRET not in lines.text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.uuids() | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), anything, max_size=3))
def test_no_value_keeps_an_event_from_being_logged(fields: dict[str, Any]) -> None:
    lines = Lines()
    configure_logging("INFO", "json", stream=lines.stream)
    logging.getLogger("library").warning("%s", fields)
    log().info("event", data=fields)
    assert [line["event"] for line in lines.read()][1] == "event"


def test_an_event_that_cannot_be_rendered_is_reported_without_its_content(lines: Lines) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError(SECRET)

    # pytest's own handlers raise where an event cannot be rendered.
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if type(handler).__module__ == "tenantry.kernel.logging"]
    logging.getLogger("library").warning("%d bottles", SECRET)
    log().warning("broken", value=Broken())
    first, second = lines.read()
    assert (first["of"], first["reason"], first["level"]) == ("library", "TypeError", "error")
    assert first["at"].startswith("test_logging.py:")
    assert (second["of"], second["reason"]) == ("tenantry.test", "RuntimeError")
    assert SECRET not in lines.text


def test_a_closed_stream_does_not_take_the_request_down(lines: Lines) -> None:
    lines.stream.close()
    log().info("to nobody")


def test_a_very_long_text_is_cut() -> None:
    assert len(scrub("x" * 10_000_000)) < 40_000


@pytest.mark.parametrize(
    "hostile",
    [
        "://:",
        "'password",
        "eyJaaaa.",
        "a_",
        "-----BEGIN PRIVATE KEY-----",
        "cookie:",
        "'cookie',",
        "bearer ",
        'password="\\',
        "password=",
        "authorization: ",
        "$argon2id$",
    ],
)
def test_no_text_makes_redaction_slow(hostile: str) -> None:
    text = hostile * (32_768 // len(hostile))
    started = time.process_time()
    scrub(text)
    # Linear: a few milliseconds each; a quadratic expression takes seconds.
    assert time.process_time() - started < 0.5
