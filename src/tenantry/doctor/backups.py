"""Backups: there, whole, and of last night."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tenantry.doctor.findings import Finding, critical, note, ok, some, warning
from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.security.keyfile import KeyFileError
from tenantry.platform.backups.store import BackupStore
from tenantry.tenancy.revision_files import HAS_SCHEMA

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.doctor.site import Site
    from tenantry.kernel.settings import Settings
    from tenantry.platform.backups.format import BackupName

__all__ = ("check_backups",)

# Those that were there when the last backup should have been made.
_TENANTS = f"""
SELECT t.id, t.slug FROM platform.tenant t
 WHERE {HAS_SCHEMA} AND t.created_at < now() - make_interval(secs => $1) ORDER BY t.slug
"""  # noqa: S608 - a constant
_CREATE = "Run `tenantry backup create --all`, every night."


async def check_backups(site: Site) -> list[Finding]:
    settings = site.settings
    if not _is_known(settings):
        return [
            note(
                "backups.unknown",
                "This machine knows no backups",
                seen=f"neither TENANTRY_BACKUP_URL nor keys at {settings.backup_key_path}",
                expected="a place of backups, here or where they are made",
                remedy="Look where they are made; docs/backups.md says how.",
            )
        ]
    try:
        store = BackupStore.open(settings)
        latest = (await store.list()).latest()
        whole = None not in latest or await store.is_whole(latest[None])
    except (KeyFileError, UnavailableException) as error:
        return [
            critical(
                "backups.unusable",
                "Nobody here can reach the backups, or read one",
                seen=str(error),
                expected="the place answers, and the file of keys is there",
                remedy="Bring back the file of keys from its copy, or the place; see docs/backups.md.",
            )
        ]
    if not latest:
        return [
            warning("backups.none", "There is no backup", seen="none", expected="one of last night", remedy=_CREATE)
        ]
    return _judge(settings, latest, await _tenants(site), whole=whole)


def _is_known(settings: Settings) -> bool:
    """Whether a place was named, or there is one already; nothing is made by looking."""
    if settings.backup_url is not None:
        return True
    folder = Path(unquote(urlsplit(settings.backup_address).path))
    return folder.is_dir() and settings.backup_key_path.exists()


async def _tenants(site: Site) -> dict[UUID, str]:
    return {row["id"]: row["slug"] for row in await site.control(_TENANTS, float(site.settings.backup_max_age))}


def _judge(
    settings: Settings, latest: dict[UUID | None, BackupName], tenants: dict[UUID, str], *, whole: bool
) -> list[Finding]:
    found: list[Finding] = []
    hours = settings.backup_max_age / 3600
    oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=settings.backup_max_age)
    if not whole:
        found.append(
            critical(
                "backups.damaged",
                "The last backup of the shared schema cannot be read",
                seen=latest[None].id,
                expected="one that `tenantry backup verify --latest` finds good",
                remedy=f"{_CREATE} Then find out who has changed that file, or which key is missing.",
            )
        )
    behind = [slug for tenant_id, slug in tenants.items() if _is_old(latest.get(tenant_id), oldest)]
    if _is_old(latest.get(None), oldest):
        behind.insert(0, "the shared schema")
    if behind:
        found.append(
            warning(
                "backups.old",
                f"No backup of the last {hours:,.0f} hours",
                seen=f"{len(behind):,}: {some(behind)}",
                expected="one of each tenant and of the shared schema (TENANTRY_BACKUP_MAX_AGE)",
                remedy=f"See why the last `tenantry backup create --all` did not end with 0. {_CREATE}",
            )
        )
    return found or [
        ok(
            "backups.fresh",
            "There is a backup of everything",
            seen=f"{len(tenants) + 1:,}, none older than {hours:,.0f} h",
        )
    ]


def _is_old(name: BackupName | None, oldest: datetime.datetime) -> bool:
    return name is None or name.moment < oldest
