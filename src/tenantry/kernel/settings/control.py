"""Settings of the control plane: the registry, the warm pool, a tenant's life, the store of archives, rollouts."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationInfo, field_validator

from tenantry.kernel.settings.addresses import HTTP_FORM, STORAGE_FORM, check_http_url, check_storage_url
from tenantry.kernel.settings.fields import expected, seconds, text, whole

__all__ = ("ControlPlane", "Rollouts", "Storage")

_REGION = re.compile(r"[a-z0-9][a-z0-9_\-]{0,62}", re.IGNORECASE)
_KEY = re.compile(r"[!-~]{1,255}")


class ControlPlane(BaseModel):
    """The registry of tenants, and making and removing them."""

    registry_poll_interval: float = seconds(
        0.5, most=60, description="How often each process asks for changed tenants; suspension takes at most this long."
    )
    registry_stale_after: float = seconds(
        5.0, most=300, description="Age at which an unrefreshed registry stops answering; above registry_poll_interval."
    )
    provision_wait: float = seconds(
        20.0, most=300, description="How long creating a tenant waits for it to be ready before it answers 202."
    )
    warm_pool_size: int = whole(
        8,
        least=0,
        most=1000,
        description="Schemas kept ready for tenants to come; 0: none, and each tenant waits for its own to be made.",
        unit="schemas",
    )
    warm_pool_batch: int = whole(
        8,
        least=1,
        most=100,
        description="Schemas of the warm pool made in one transaction: more refill it faster, and hold locks longer.",
        unit="schemas",
    )
    warm_pool_interval: float = seconds(
        1.0, most=3600, description="How often the provisioner looks whether the warm pool is full."
    )
    deletion_grace: int = whole(
        2_592_000,
        least=0,
        most=315_360_000,
        description="How long a deleted tenant can be undeleted before it is purged; 0: purged at once.",
        unit="seconds",
    )

    @field_validator("registry_stale_after")
    @classmethod
    def _check_stale_after(cls, age: float, info: ValidationInfo) -> float:
        poll = info.data.get("registry_poll_interval")
        if poll is not None and age <= poll:
            raise ValueError(f"more than TENANTRY_REGISTRY_POLL_INTERVAL ({poll:g})")
        return age


class Storage(BaseModel):
    """Archives, exports and purge records: where they are kept, and for how long."""

    storage_url: str | None = text(
        None,
        expects=STORAGE_FORM,
        description="Where archives, exports and purge records are kept; unset: the folder storage in the home folder.",
    )
    storage_s3_endpoint: str | None = text(
        None,
        expects=HTTP_FORM,
        description="Server of the bucket that storage_url names, where it is not Amazon's; http:// is not encrypted.",
    )
    storage_s3_region: str | None = text(
        None,
        expects="a region's name such as eu-central-1",
        description="Region of the bucket; unset: as AWS_REGION says.",
    )
    storage_s3_access_key_id: str | None = text(
        None,
        expects="a key's id without spaces",
        description="Id of the access key to the bucket; unset: AWS' default chain (AWS_… variables, the role).",
    )
    storage_s3_secret_access_key: SecretStr | None = text(
        None,
        expects="a secret without spaces",
        description="The access key's secret; given together with its id, or neither.",
    )
    export_ttl: int = whole(
        604_800,
        least=1,
        most=31_536_000,
        description="How long a tenant's export is kept to be fetched.",
        unit="seconds",
    )
    import_size_limit: int = whole(
        10 * 1024**3,
        least=1024,
        most=16 * 1024**4,
        description="Largest tenant archive that is imported, measured unpacked.",
        unit="bytes",
    )

    @field_validator("storage_url")
    @classmethod
    def _check_storage_url(cls, url: str | None) -> str | None:
        return None if url is None else check_storage_url(url)

    @field_validator(
        "storage_s3_endpoint", "storage_s3_region", "storage_s3_access_key_id", "storage_s3_secret_access_key"
    )
    @classmethod
    def _check_bucket_is_named(cls, value: Any, info: ValidationInfo) -> Any:
        # Otherwise a forgotten storage_url would put the archives into the container's home, and lose them with it.
        if value is not None and "storage_url" in info.data and not (info.data["storage_url"] or "").startswith("s3:"):
            raise ValueError("TENANTRY_STORAGE_URL to be an address of the form s3://bucket/prefix as well")
        return value

    @field_validator("storage_s3_endpoint")
    @classmethod
    def _check_s3_endpoint(cls, url: str | None) -> str | None:
        return None if url is None else check_http_url(url)

    @field_validator("storage_s3_region")
    @classmethod
    def _check_s3_region(cls, region: str | None) -> str | None:
        if region is not None and _REGION.fullmatch(region) is None:
            raise ValueError(expected(cls.model_fields["storage_s3_region"]))
        return region

    @field_validator("storage_s3_access_key_id")
    @classmethod
    def _check_s3_key_id(cls, key_id: str | None) -> str | None:
        if key_id is not None and _KEY.fullmatch(key_id) is None:
            raise ValueError(expected(cls.model_fields["storage_s3_access_key_id"]))
        return key_id

    @field_validator("storage_s3_secret_access_key")
    @classmethod
    def _check_s3_secret(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        wanted = expected(cls.model_fields["storage_s3_secret_access_key"])
        # A line's end, left from the file that the secret was read from, would make every signature wrong.
        if secret is not None and _KEY.fullmatch(secret.get_secret_value()) is None:
            raise ValueError(wanted)
        if "storage_s3_access_key_id" in info.data:
            key_id = info.data["storage_s3_access_key_id"]
            if secret is None and key_id is not None:
                raise ValueError(f"{wanted}, since TENANTRY_STORAGE_S3_ACCESS_KEY_ID is set")
            if secret is not None and key_id is None:
                raise ValueError("TENANTRY_STORAGE_S3_ACCESS_KEY_ID to be set as well")
        return secret


class Rollouts(BaseModel):
    """Migrating every tenant."""

    rollout_concurrency: int = whole(
        4, least=1, most=64, description="Tenants that a rollout migrates at once.", unit="tenants"
    )
    rollout_lock_timeout: float = seconds(
        2.0,
        most=600,
        description="Longest that a migration waits for a lock; the tenant's requests queue up behind it meanwhile.",
    )
    rollout_attempts: int = whole(
        5,
        least=1,
        most=20,
        description="How often a tenant's migration is tried, where locks keep it out, before it counts as failed.",
        unit="attempts",
    )
