"""Settings of backups: where they are kept, under which key, for how long, and how old the last one may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationInfo, field_validator

from tenantry.kernel.settings.addresses import HTTP_FORM, STORAGE_FORM, check_http_url, check_storage_url
from tenantry.kernel.settings.fields import text, whole

__all__ = ("Backups",)


class Backups(BaseModel):
    """Backups of tenants and of the shared schema; no serving process needs any of it."""

    backup_key_file: Path | None = text(
        None,
        expects="a file",
        description="File with the keys that encrypt backups, which must be there; unset: backup-keys.json in the home "
        "folder, made when first needed.",
    )
    backup_url: str | None = text(
        None,
        expects=STORAGE_FORM,
        description="Where backups are kept, apart from storage_url; unset: the folder backups in the home folder.",
    )
    backup_s3_endpoint: str | None = text(
        None,
        expects=HTTP_FORM,
        description="Server of the bucket that backup_url names, where it is not Amazon's; http:// is not encrypted.",
    )
    backup_s3_region: str | None = text(
        None,
        expects="a region's name such as eu-central-1",
        description="Region of the backups' bucket; unset: as AWS_REGION says.",
    )
    backup_s3_access_key_id: str | None = text(
        None,
        expects="a key's id without spaces",
        description="Id of the access key to that bucket; unset: AWS' default chain (AWS_… variables, the role).",
    )
    backup_s3_secret_access_key: SecretStr | None = text(
        None,
        expects="a secret without spaces",
        description="That access key's secret; given together with its id, or neither.",
    )
    backup_concurrency: int = whole(
        4, least=1, most=64, description="Tenants that are backed up, or restored, at once.", unit="tenants"
    )
    backup_keep_daily: int = whole(
        7, least=1, most=3660, description="Days of which the last backup is kept.", unit="days"
    )
    backup_keep_weekly: int = whole(
        5, least=0, most=520, description="Weeks of which the last backup is kept.", unit="weeks"
    )
    backup_keep_monthly: int = whole(
        12, least=0, most=120, description="Months of which the last backup is kept.", unit="months"
    )
    backup_keep_purged: int = whole(
        30,
        least=0,
        most=3660,
        description="Days after the purge of a tenant at which all of its backups are removed; 0: by the next prune.",
        unit="days",
    )
    backup_undo: int = whole(
        604_800,
        least=0,
        most=31_536_000,
        description="How long what a tenant had before a restore is kept for undoing it; 0: not at all.",
        unit="seconds",
    )
    backup_max_age: int = whole(
        93_600,
        least=60,
        most=31_536_000,
        description="Age of the last backup from which `tenantry doctor` complains; 26 hours, for one every night.",
        unit="seconds",
    )

    @field_validator("backup_key_file")
    @classmethod
    def _expand_key_file(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    @field_validator("backup_url")
    @classmethod
    def _check_backup_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        if "backup_key_file" in info.data and info.data["backup_key_file"] is None:
            # A key that was made in a container's home is gone with it, and every backup in the bucket for good.
            raise ValueError("TENANTRY_BACKUP_KEY_FILE to be set as well: without its keys nobody reads the backups")
        return check_storage_url(url)

    @field_validator("backup_s3_endpoint", "backup_s3_region", "backup_s3_access_key_id", "backup_s3_secret_access_key")
    @classmethod
    def _check_backup_bucket_is_named(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and "backup_url" in info.data and not (info.data["backup_url"] or "").startswith("s3:"):
            raise ValueError("TENANTRY_BACKUP_URL to be an address of the form s3://bucket/prefix as well")
        return value

    @field_validator("backup_s3_endpoint")
    @classmethod
    def _check_backup_endpoint(cls, url: str | None) -> str | None:
        return None if url is None else check_http_url(url)

    @field_validator("backup_s3_secret_access_key")
    @classmethod
    def _check_backup_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        # Never one of the two: signatures would be wrong in the night, and nobody there to see.
        key_id = info.data.get("backup_s3_access_key_id", secret)
        if (secret is None) != (key_id is None):
            raise ValueError("a secret together with TENANTRY_BACKUP_S3_ACCESS_KEY_ID, or neither")
        return secret
