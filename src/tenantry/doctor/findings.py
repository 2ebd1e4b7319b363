"""What a check has found, and what a whole examination has, as programs read it."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence

import msgspec

__all__ = (
    "Examination",
    "Finding",
    "Result",
    "Severity",
    "critical",
    "note",
    "ok",
    "some",
    "warning",
    "worst_of",
)

_NAMED = 5


class Severity(enum.StrEnum):
    """From good to bad."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """Something will go wrong, or does for some."""
    CRITICAL = "critical"
    """The isolation of tenants, their data, or the service is at stake."""

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    code: str
    """Which thing, for programs: stays the same from release to release; docs/doctor.md lists them by check."""
    severity: Severity
    summary: str
    seen: str | None = None
    expected: str | None = None
    remedy: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one check."""

    check: str
    title: str
    status: str
    """The worst of its findings, or `skipped`."""
    skipped: str | None
    """Why it was not made."""
    seconds: float
    page: str
    """Where it is documented."""
    findings: list[Finding]


class Examination(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `tenantry doctor --json` prints. `version` goes up when a field changes its meaning or goes."""

    version: int = 1
    release: str
    started_at: datetime.datetime
    seconds: float
    worst: Severity
    reachable: bool
    """Whether every server that has an address answered."""
    checks: list[Result]


def ok(code: str, summary: str, *, seen: str | None = None) -> Finding:
    return Finding(code=code, severity=Severity.OK, summary=summary, seen=seen)


def note(
    code: str, summary: str, *, seen: str | None = None, expected: str | None = None, remedy: str | None = None
) -> Finding:
    return Finding(code=code, severity=Severity.NOTE, summary=summary, seen=seen, expected=expected, remedy=remedy)


def warning(code: str, summary: str, *, seen: str | None, expected: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.WARNING, summary=summary, seen=seen, expected=expected, remedy=remedy)


def critical(code: str, summary: str, *, seen: str | None, expected: str, remedy: str) -> Finding:
    return Finding(code=code, severity=Severity.CRITICAL, summary=summary, seen=seen, expected=expected, remedy=remedy)


def worst_of(severities: Sequence[Severity]) -> Severity:
    """The worst; of none, ok."""
    return max(severities, key=lambda severity: severity.rank, default=Severity.OK)


def some(names: Sequence[object]) -> str:
    """The first few of many, and how many there are besides."""
    shown = ", ".join(map(str, names[:_NAMED]))
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"
