"""Plans and tenants as files: `plans.toml` and one `<slug>.toml` per tenant.

Every file of a folder is read and checked before anything is compared or done, and every mistake is named with its
file and line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.http.fields import collect_errors, field_error
from tenantry.kernel.schema import Email, ShortText, Slug, normalize_email
from tenantry.platform.tenants.schemas import TenantName
from tenantry.platform.tenants.service import check_slug
from tenantry.tenancy.plan import (
    Concurrency,
    ConnectionCount,
    IdleTimeout,
    JobConcurrency,
    JobWeight,
    LockTimeout,
    Rate,
    RequestBurst,
    StatementTimeout,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.tenancy.entitlements import Entitlements

__all__ = (
    "FilesError",
    "LimitsTable",
    "PlanFile",
    "TenantFile",
    "TenantFiles",
    "TenantOwner",
    "key_lines",
    "read_folder",
)

PLANS = "plans.toml"

LimitsT = TypeVar("LimitsT", bound="LimitsTable")

_SYNTAX = re.compile(r"(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)", re.DOTALL)


class FilesError(Exception):
    """Files are not as expected; nothing was done. The text has a line for each mistake, which names the file."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class LimitsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The table `[limits]` of a tenant's file; what is not named is as the tenant's plan says."""

    statement_timeout: StatementTimeout | None = None
    lock_timeout: LockTimeout | None = None
    idle_in_transaction_timeout: IdleTimeout | None = None
    request_rate: Rate | None = None
    request_burst: RequestBurst | None = None
    user_rate: Rate | None = None
    user_burst: RequestBurst | None = None
    key_rate: Rate | None = None
    key_burst: RequestBurst | None = None
    concurrent_requests: Concurrency | None = None
    connections: ConnectionCount | None = None
    job_weight: JobWeight | None = None
    job_concurrency: JobConcurrency | None = None
    quotas: dict[str, Any] = {}
    """Amounts, by the names that the packages' manifests declare."""
    features: dict[str, Any] = {}

    def stored(self) -> dict[str, Any]:
        """As the tenant's row has them: only what is said."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class PlanFile(LimitsTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of `plans.toml`."""

    name: TenantName
    description: Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00]*$")] | None = None
    job_weight: JobWeight = 1.0
    job_concurrency: JobConcurrency = 8


class TenantOwner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[owner]` of a tenant's file."""

    email: Email
    name: ShortText | None = None


class TenantFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant's file."""

    name: TenantName
    plan: Slug
    owner: TenantOwner
    """Read when the tenant is made, and never again."""
    limits: LimitsTable | None = None
    """All that it has in place of its plan's; without the table, what operators have given it stays as it is."""


class Place(NamedTuple):
    """Where something is written."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class TenantFiles:
    """What a folder declares, by slug."""

    plans: Mapping[str, PlanFile] = field(default_factory=dict)
    tenants: Mapping[str, TenantFile] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    """Of the line that names each tenant's plan, by the tenant's slug."""


def read_folder(folder: Path, entitlements: Entitlements) -> TenantFiles:
    """Read and check every `*.toml` of a folder; `entitlements` are what plans can say something of.

    Raises:
        FilesError: a file cannot be read, or is not as expected.
        FileNotFoundError: there is no such folder.
    """
    problems: list[str] = []
    plans: dict[str, PlanFile] = {}
    tenants: dict[str, TenantFile] = {}
    places: dict[str, Place] = {}
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    for path in sorted(folder.glob("*.toml")):
        if (file := _File.read(path, problems)) is None:
            continue
        if path.name == PLANS:
            plans = _plans(file, entitlements)
        elif file.is_slug(path.stem) and (found := file.convert(file.content, TenantFile)) is not None:
            if found.limits is not None:
                found = msgspec.structs.replace(found, limits=file.check(found.limits, "limits", entitlements))
            try:
                check_slug(path.stem)
                normalize_email(found.owner.email, field="owner.email")
            except ValidationFailedException as error:
                for item in error.errors:
                    file.complain(item.field, item.message)
            tenants[path.stem] = found
            places[path.stem] = Place(path, file.line(("plan",)))
    if problems:
        raise FilesError(problems)
    return TenantFiles(plans=plans, tenants=tenants, places=places)


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line on which each key and table of a TOML document is first named, from 1.

    The standard library's parser tells no lines. Where the document up to a line can be parsed, a statement has ended
    there, and what is new in it stands on the lines since the one before. Quadratic, for files that people write.

    Raises:
        tomllib.TOMLDecodeError: the document is no TOML.
    """
    tomllib.loads(text)
    found: dict[tuple[str, ...], int] = {}
    begun, read = 1, ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        read += line
        try:
            parsed = tomllib.loads(read)
        except tomllib.TOMLDecodeError:
            continue
        for path in _paths(parsed, ()):
            found.setdefault(path, begun)
        begun = number + 1
    return found


def _paths(value: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*above, key)
            yield from _paths(inner, (*above, key))


@dataclass
class _File:
    """One file, and what is wrong with it."""

    path: Path
    content: dict[str, Any]
    lines: Mapping[tuple[str, ...], int]
    problems: list[str]

    @classmethod
    def read(cls, path: Path, problems: list[str]) -> _File | None:
        try:
            text = path.read_text(encoding="utf-8")
            return cls(path, tomllib.loads(text), key_lines(text), problems)
        except tomllib.TOMLDecodeError as error:
            if match := _SYNTAX.fullmatch(str(error)):
                problems.append(f"{path}:{match['line']}:{match['column']}: {match['what']}")
            else:
                problems.append(f"{path}: {error}")
        except UnicodeDecodeError as error:
            problems.append(f"{path}: not UTF-8 at byte {error.start}")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
        return None

    def line(self, keys: tuple[str, ...]) -> int:
        """The line of a key, or of what it should be in: what is missing is on no line."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def complain(self, name: str, message: str) -> None:
        self.problems.append(f"{self.path}:{self.line(tuple(name.split('.')))}: {name}: {message}")

    def is_slug(self, slug: str, name: tuple[str, ...] = ()) -> bool:
        try:
            msgspec.convert(slug, Slug)
        except msgspec.ValidationError as error:
            self.problems.append(f"{self.path}:{self.line(name)}: {slug!r}: {field_error(str(error)).message}")
            return False
        return True

    def convert(self, content: Any, kind: type[Any], prefix: str = "") -> Any:
        try:
            return msgspec.convert(content, kind)
        except msgspec.ValidationError as error:
            for item in collect_errors(kind, content, str(error)):
                self.complain(".".join(part for part in (prefix, item.field) if part), item.message)
            return None

    def check(self, table: LimitsT, prefix: str, entitlements: Entitlements) -> LimitsT:
        """A table whose quotas and features are such as there are, its amounts as numbers."""
        amounts, wrong = entitlements.check(table.quotas, table.features)
        for name, said in wrong:
            self.complain(f"{prefix}.{name}", said)
        return msgspec.structs.replace(table, quotas=amounts)


def _plans(file: _File, entitlements: Entitlements) -> dict[str, PlanFile]:
    tables = file.content.get("plans", {})
    for name in file.content.keys() - {"plans"}:
        file.complain(name, "Unknown field")
    if not isinstance(tables, dict):
        file.complain("plans", "Expected tables such as [plans.free]")
        return {}
    return {
        slug: _without_unlimited(file.check(found, f"plans.{slug}", entitlements))
        for slug, table in tables.items()
        if file.is_slug(slug, ("plans", slug)) and (found := file.convert(table, PlanFile, f"plans.{slug}")) is not None
    }


def _without_unlimited(plan: PlanFile) -> PlanFile:
    """A plan whose quotas are those with a limit: there is nothing below it that could have another."""
    quotas = {name: amount for name, amount in plan.quotas.items() if amount is not None}
    return msgspec.structs.replace(plan, quotas=quotas)
