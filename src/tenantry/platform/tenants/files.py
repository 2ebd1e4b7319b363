"""Plans and tenants as files: `plans.toml` and one `<slug>.toml` per tenant, applied as often as one likes.

Everything is checked before anything is done. Plans and tenants are made and changed, never deleted: a file that
disappears says nothing.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import select

from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.http.fields import collect_errors, field_error
from tenantry.kernel.schema import Email, ShortText, Slug, normalize_email
from tenantry.platform.plans.models import Plan
from tenantry.platform.plans.service import PlanService
from tenantry.platform.tenants.schemas import TenantName
from tenantry.platform.tenants.service import TenantCreator, TenantService, check_slug
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("Applied", "FilesError", "PlanFile", "TenantFile", "TenantFiles", "TenantOwner", "apply", "read_folder")

PLANS = "plans.toml"

Action = Literal["created", "changed", "unchanged", "pending"]


class FilesError(Exception):
    """Files are not as expected; nothing was done. The text has a line for each mistake, which names the file."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class PlanFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of `plans.toml`."""

    name: TenantName
    description: Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00]*$")] | None = None
    statement_timeout: Annotated[int, Meta(ge=1, le=600_000)] | None = None
    """Milliseconds."""


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


@dataclass(frozen=True, slots=True)
class TenantFiles:
    """What a folder declares, by slug."""

    plans: Mapping[str, PlanFile] = field(default_factory=dict)
    tenants: Mapping[str, TenantFile] = field(default_factory=dict)


class Applied(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What became of one entry. `pending`: recorded, but the provisioner has not finished."""

    kind: Literal["plan", "tenant"]
    slug: str
    action: Action
    owner_invitation: str | None = None
    """Of a tenant made without a password for its owner; shown once, here."""


def read_folder(folder: Path) -> TenantFiles:
    """Read and check every `*.toml` of a folder.

    Raises:
        FilesError: a file cannot be read, or is not as expected.
        FileNotFoundError: there is no such folder.
    """
    problems: list[str] = []
    plans: dict[str, PlanFile] = {}
    tenants: dict[str, TenantFile] = {}
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    for path in sorted(folder.glob("*.toml")):
        if (content := _read(path, problems)) is None:
            continue
        if path.name == PLANS:
            plans = _plans(path, content, problems)
            continue
        if _slug_is_good(path, path.stem, problems) and (found := _convert(path, content, TenantFile, "", problems)):
            try:
                check_slug(path.stem)
                normalize_email(found.owner.email, field="owner.email")
            except ValidationFailedException as error:
                problems += [f"{path}: {item.field}: {item.message}" for item in error.errors]
            tenants[path.stem] = found
    if problems:
        raise FilesError(problems)
    return TenantFiles(plans=plans, tenants=tenants)


async def apply(
    files: TenantFiles,
    *,
    database: Database,
    read_scope: Scope,
    write_scope: Scope,
    creator: TenantCreator,
    requested_by: str,
    owner_passwords: Mapping[str, str] | None = None,
    wait: float = 20.0,
) -> list[Applied]:
    """Bring plans and tenants to what the files declare; plans first.

    Args:
        owner_passwords: passwords of the owners of tenants that are made now, by slug; the others are invited.
        wait: seconds to wait for the provisioner, for each tenant.

    Raises:
        FilesError: a tenant is on a plan that is neither declared nor there; nothing was done.
        UnavailableException: the provisioner tried to make a tenant, and failed.
    """
    async with database.transaction(read_scope) as transaction:
        present = set(await transaction.session.scalars(select(Plan.slug)))
    known = present | set(files.plans)
    problems = [
        f"{slug}.toml: plan: There is no plan {tenant.plan!r}; expected one of {', '.join(sorted(known)) or 'none'}"
        for slug, tenant in files.tenants.items()
        if tenant.plan not in known
    ]
    if problems:
        raise FilesError(problems)
    async with database.transaction(write_scope) as transaction:
        plans = PlanService(session=transaction.session)
        applied = [
            Applied(kind="plan", slug=slug, action=await _apply_plan(plans, slug, plan))
            for slug, plan in files.plans.items()
        ]
    for slug, tenant in files.tenants.items():
        async with database.transaction(write_scope) as transaction:
            action = await _change_tenant(TenantService(session=transaction.session), slug, tenant, actor=requested_by)
        if action == "pending" and await _settled(database, read_scope, slug, wait):
            # Asked for by somebody whose program then ended; the provisioner has made it since.
            action = "created"
        if action is not None:
            applied.append(Applied(kind="tenant", slug=slug, action=action))
            continue
        created = await creator.create(
            slug=slug,
            name=tenant.name,
            plan=tenant.plan,
            owner_email=tenant.owner.email,
            owner_name=tenant.owner.name,
            owner_password=(owner_passwords or {}).get(slug),
            requested_by=requested_by,
            wait=wait,
        )
        applied.append(
            Applied(
                kind="tenant",
                slug=slug,
                action="created" if created.done else "pending",
                owner_invitation=created.invitation,
            )
        )
    return applied


async def _apply_plan(plans: PlanService, slug: str, wanted: PlanFile) -> Action:
    values = msgspec.structs.asdict(wanted)
    plan = await plans.get_one_or_none(slug=slug)
    if plan is None:
        await plans.create({"slug": slug, **values})
        return "created"
    changed = {name: value for name, value in values.items() if getattr(plan, name) != value}
    for name, value in changed.items():
        setattr(plan, name, value)
    await plans.repository.session.flush()
    return "changed" if changed else "unchanged"


async def _change_tenant(tenants: TenantService, slug: str, wanted: TenantFile, *, actor: str) -> Action | None:
    """What was done to the tenant, or None if there is none."""
    tenant = await tenants.get_one_or_none(slug=slug)
    if tenant is None:
        return None
    values = {"name": wanted.name, "plan": wanted.plan}
    changed = {name: value for name, value in values.items() if getattr(tenant, name) != value}
    if changed:
        await tenants.change(slug, changed, actor=actor)
    if tenant.status == "provisioning":
        return "pending"
    return "changed" if changed else "unchanged"


async def _settled(database: Database, read_scope: Scope, slug: str, wait: float) -> bool:
    """Whether a tenant that was being made became active within `wait` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    while True:
        async with database.transaction(read_scope) as transaction:
            status = await transaction.session.scalar(select(Tenant.status).where(Tenant.slug == slug))
        if status != "provisioning":
            return status == "active"
        if loop.time() > deadline:
            return False
        await asyncio.sleep(0.1)


def _read(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        # It names line and column.
        problems.append(f"{path}: {error}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: not UTF-8 at byte {error.start}")
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
    return None


def _plans(path: Path, content: dict[str, Any], problems: list[str]) -> dict[str, PlanFile]:
    tables = content.pop("plans", {})
    problems += [f"{path}: {name}: Unknown field" for name in content]
    if not isinstance(tables, dict):
        problems.append(f"{path}: plans: Expected tables such as [plans.free]")
        return {}
    return {
        slug: found
        for slug, table in tables.items()
        if _slug_is_good(path, slug, problems)
        and (found := _convert(path, table, PlanFile, f"plans.{slug}", problems)) is not None
    }


def _slug_is_good(path: Path, slug: str, problems: list[str]) -> bool:
    try:
        msgspec.convert(slug, Slug)
    except msgspec.ValidationError as error:
        problems.append(f"{path}: {slug!r}: {field_error(str(error)).message}")
        return False
    return True


def _convert(path: Path, content: Any, kind: type[Any], prefix: str, problems: list[str]) -> Any:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        for item in collect_errors(kind, content, str(error)):
            name = ".".join(part for part in (prefix, item.field) if part)
            problems.append(f"{path}: {name}: {item.message}")
        return None
