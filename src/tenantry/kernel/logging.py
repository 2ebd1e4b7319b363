"""Logs: one line an event, structured, and without secrets whoever wrote them.

Everything goes through the standard library's root logger, our own events (structlog) and those of libraries alike, so
that both are rendered, and redacted, by one formatter at the very end: after `%s` has been filled in and after an
exception has become text. Redaction is the second line of defence; the first is not to log a secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TextIO
from uuid import UUID

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ("REDACTED", "configure_logging", "log_access", "redact", "scrub")

REDACTED: Final = "***"

_MAX_DEPTH = 8
_MAX_TEXT = 32_768
"""Characters of one text. A stack trace fits; a body that was logged by mistake does not fill the disk."""

_WORDS: Final = (
    "password|passwd|passphrase|pwd|secret|token|authorization|cookie|api[_-]?key|private[_-]?key|credential|jwt|otp"
)
# `token`, `access_token`, `x-api-key`, `newPassword2`, `password_hash`; not `token_type`, `password_min_length`.
_SECRET: Final = rf"(?:{_WORDS})s?(?:_?(?:hash|digest|value|confirm|confirmation|repeat|\d{{1,3}}))?"
_SECRET_NAME = re.compile(rf"(?:^|.*_){_SECRET}")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class _Pattern(NamedTuple):
    """What to look for, what to put in its place, and a lowercase text without which it cannot be there.

    Asking for the text first keeps a plain event at a microsecond; the ten expressions take twenty. Each expression is
    linear in the text: no nested repetition, and what could run on is bounded.
    """

    hint: str
    expression: re.Pattern[str]
    replacement: str


def _pattern(hint: str, expression: str, replacement: str) -> _Pattern:
    return _Pattern(hint, re.compile(expression, re.IGNORECASE), replacement)


_PATTERNS: Final = (
    # scheme://user:password@host, to the last @ within the word: a password may hold an @ that was not escaped.
    _pattern("://", r"(?<=://)([^\s:/@]{0,256}):\S{0,1024}@", r"\1:***@"),
    _pattern(
        "private key-----",
        r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[^-]{0,16384}(?:-----END [A-Z ]{0,32}-----)?",
        REDACTED,
    ),
    # A JWT (three parts) or a JWE (five); its header begins with `{"`.
    _pattern("eyj", r"\beyJ[A-Za-z0-9_=-]{4,}(?:\.[A-Za-z0-9_=-]*){1,4}", REDACTED),
    _pattern("_", r"\b([a-z]{2,8}_[0-9a-f]{32})_[0-9a-f]{16,}", r"\1_***"),
    _pattern("$argon2", r"(\$argon2(?:id|i|d))\$[\w$=,+/.]+", r"\1$***"),
    _pattern("bearer", r"\b(bearer)\s+[A-Za-z0-9._~+/=-]{16,}", r"\1 ***"),
    # Headers as text: `Authorization: Basic …`, `Cookie: a=b; c=d`.
    _pattern("authorization:", r"(authorization:\s*)(?:\w+\s+)?[^\s'\",\\]+", r"\1***"),
    _pattern("cookie:", r"(cookie:\s*)[^\r\n'\"]+", r"\1***"),
    # `'password': 'x'`, `"token":"x"`; and headers as pairs of a list, `('authorization', 'x')`.
    *(
        _pattern(
            hint,
            rf"(['\"][\w-]{{0,64}}{_SECRET}['\"]\s{{0,8}}{hint}\s{{0,8}}b?)"
            r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&)}\]'\"]+)",
            r"\1***",
        )
        for hint in (":", ",")
    ),
    # `password='x'`, `?token=x&`.
    _pattern(
        "=",
        rf"(\b[\w-]{{0,64}}{_SECRET}=b?)(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&)}}\]'\"]+)",
        r"\1***",
    ),
)


def configure_logging(
    level: str = "INFO",
    format: Literal["json", "console"] = "json",  # noqa: A002
    *,
    stream: TextIO | None = None,
) -> None:
    """Send every log event of the process to `stream` (default: stderr, so that a command's output stays its own).

    May be called again: it replaces what it set up before, and leaves the handlers of others alone, except plain
    stream handlers of the root logger, which would print each event a second time and unredacted.

    Raises:
        ValueError: the level or the format is unknown.
    """
    if format not in ("json", "console"):
        raise ValueError(f"unknown log format {format!r}")
    stream = sys.stderr if stream is None else stream
    renderer: Processor = _render_json
    if format == "console":
        # Plain tracebacks: the pretty ones show local variables.
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_COMMON, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.setLevel(level)
    for other in list(root.handlers):
        if isinstance(other, _Handler) or type(other) is logging.StreamHandler:
            root.removeHandler(other)
    root.addHandler(handler)
    global _access
    _access = _access_writer(handler) if format == "json" and root.isEnabledFor(logging.INFO) else None
    # A warning printed by itself would be several lines between our events.
    logging.captureWarnings(True)
    # Rendering is the formatter's: a logger that was cached before the second call is right after it as well.
    structlog.configure(
        processors=_PROCESSORS,
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_access(values: dict[str, Any]) -> bool:
    """Write a request's line without the machinery; False where logging is not configured for that.

    The machinery (a record, the caller's frame, redaction at any depth) cost a fifth of a request's CPU. The line
    needs none of it: whoever calls names its fields one by one, and none of them is a client's text.
    """
    if _access is None:
        return False
    _access(values)
    return True


_access: Callable[[dict[str, Any]], None] | None = None


def _access_writer(handler: logging.StreamHandler[TextIO]) -> Callable[[dict[str, Any]], None]:
    encode = msgspec.json.Encoder().encode

    def write(values: dict[str, Any]) -> None:
        now = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        line = encode(
            {"timestamp": now, "level": "info", "logger": "tenantry.access", "event": "request", **values}
        ).decode()
        with handler.lock or contextlib.nullcontext():
            try:
                handler.stream.write(f"{line}\n")
                handler.stream.flush()
            except (OSError, ValueError):
                # As in `_Handler.handleError`: the stream is gone, and the request shall not go with it.
                return

    return write


def redact(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    """structlog processor: the event without secrets, and made of what JSON has, at any depth.

    Values under a name that sounds like a secret become `***`; every text is scrubbed; other objects become their
    fields (dataclasses, structs) or their scrubbed repr.
    """
    return {str(key): value if key in _OURS else _clean(str(key), value, 0) for key, value in event_dict.items()}


def scrub(text: str) -> str:
    """`text` without what looks like a secret: passwords in addresses, bearer tokens, JWTs, credentials, keys."""
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}… ({len(text)} characters)"
    if not text.isascii():
        # A lone surrogate (a file name, a header) is no UTF-8 and would lose the whole event.
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    lower = text.lower()
    for pattern in _PATTERNS:
        if pattern.hint in lower:
            text = pattern.expression.sub(pattern.replacement, text)
    return text


def _add_logger_name(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    record = event_dict.get("_record")
    event_dict["logger"] = logger.name if record is None else record.name
    return event_dict


_COMMON: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    _add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)
_OURS: Final = ("timestamp", "level", "logger")
_FIRST: Final = (*_OURS, "event")


def _render_json(logger: WrappedLogger, method: str, event_dict: EventDict) -> str:
    ordered = {key: event_dict.pop(key) for key in _FIRST if key in event_dict}
    ordered.update(event_dict)
    return msgspec.json.encode(ordered).decode("utf-8")


def _clean_args(args: Any) -> Any:
    """The values of `%s`: a dict or a list among them is redacted by its keys while it still has any."""
    if isinstance(args, Mapping):
        return {key: _clean_arg(str(key), value) for key, value in args.items()}
    return tuple(_clean_arg("", value) for value in args)


def _clean_arg(name: str, value: Any) -> Any:
    # Anything else keeps its type, for `%d` and `%r`, and becomes text that is scrubbed.
    return _clean(name, value, 0) if isinstance(value, (Mapping, list, tuple, set)) or _names_secret(name) else value


def _redact_positional(logger: WrappedLogger, method: str, event_dict: EventDict) -> EventDict:
    if event_dict.get("positional_args"):
        event_dict["positional_args"] = _clean_args(event_dict["positional_args"])
    return event_dict


class _Handler(logging.StreamHandler[TextIO]):
    def format(self, record: logging.LogRecord) -> str:
        # A copy: the record belongs to other handlers as well. What their formatters left on it, the finished message,
        # would be taken for a field of the event.
        fields = {key: value for key, value in record.__dict__.items() if key not in ("message", "asctime")}
        if record.args:
            fields["args"] = _clean_args(record.args)
        return super().format(logging.makeLogRecord(fields))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        # The standard one prints the message and its arguments as they are, secrets included.
        error = sys.exc_info()[1]
        line = {
            "timestamp": dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z"),
            "level": "error",
            "logger": __name__,
            "event": "an event could not be logged",
            "of": record.name,
            "at": f"{record.filename}:{record.lineno}",
            "reason": type(error).__name__,
        }
        try:
            self.stream.write(msgspec.json.encode(line).decode("utf-8") + self.terminator)
            self.flush()
        except (OSError, ValueError):
            # The stream itself is gone (a closed pipe); there is nowhere left to say so, and logging must not
            # take the request down with it.
            return


@lru_cache(maxsize=4096)
def _names_secret(name: str) -> bool:
    return _SECRET_NAME.fullmatch(_CAMEL.sub("_", name).lower().replace("-", "_")) is not None


# One list for good: a logger that was used before keeps the list of its time, and whoever puts a processor in for a
# while (`structlog.testing.capture_logs`) would not reach it in another.
_PROCESSORS: Final[list[Processor]] = [
    structlog.stdlib.filter_by_level,
    *_COMMON,
    _redact_positional,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]


def _clean(name: str, value: Any, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if _names_secret(name):
        return REDACTED
    if isinstance(value, str):
        return scrub(str.__str__(value))
    if isinstance(value, int):
        # Beyond 64 bits it is no number to most readers of JSON.
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (UUID, dt.datetime, dt.date, dt.time, dt.timedelta)):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return scrub(bytes(value).decode("utf-8", "backslashreplace"))
    return _clean_object(value, depth + 1)


def _clean_object(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {_text(key): _clean(_text(key), item, depth) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        return {key: _clean(key, getattr(value, key), depth) for key in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _clean(field.name, getattr(value, field.name, None), depth)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, (Sequence, AbstractSet)):
        items = list(value)
        if isinstance(value, tuple) and len(items) == 2 and isinstance(items[0], (str, bytes)):
            # A header or a form field as a pair.
            return [_clean("", items[0], depth), _clean(_text(items[0]), items[1], depth)]
        return [_clean("", item, depth) for item in items]
    return scrub(repr(value))


def _text(key: object) -> str:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else scrub(str(key))
