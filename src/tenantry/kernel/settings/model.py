"""The settings as one whole, of groups that each have a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tenantry.kernel.settings.backups import Backups
from tenantry.kernel.settings.bulkheads import Bulkheads
from tenantry.kernel.settings.control import ControlPlane, Rollouts, Storage
from tenantry.kernel.settings.credentials import Passwords, Tokens
from tenantry.kernel.settings.factors import SecondFactors
from tenantry.kernel.settings.fields import PREFIX, is_address, shown
from tenantry.kernel.settings.mail import Mail
from tenantry.kernel.settings.observing import Observing
from tenantry.kernel.settings.outbound import Outbound
from tenantry.kernel.settings.rates import Rates
from tenantry.kernel.settings.servers import PostgreSQL, Redis, Transactions
from tenantry.kernel.settings.serving import Edge, Logs, Process, Streams
from tenantry.kernel.settings.signup import SignUp
from tenantry.kernel.settings.workers import Workers

__all__ = ("Settings",)


class Settings(
    # From the bottom up: pydantic lists the fields of the last base first, and that is the order operators see.
    Observing,
    Logs,
    SecondFactors,
    Passwords,
    Outbound,
    SignUp,
    Mail,
    Workers,
    Rollouts,
    Backups,
    Storage,
    ControlPlane,
    Bulkheads,
    Transactions,
    Streams,
    Rates,
    Edge,
    Tokens,
    Redis,
    PostgreSQL,
    Process,
    BaseSettings,
):
    """What the service runs with; frozen. Made by `load_settings`; `Settings(port=8001)` reads no environment.

    Times are in seconds, sizes in bytes unless a description says otherwise.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        validate_default=True,
        # A ValidationError prints what it was given, and that may be an address with a password.
        hide_input_in_errors=True,
    )

    @property
    def database_pool_size(self) -> int:
        """Connections of one serving process' pool: its share, without those that it keeps for itself."""
        return self.database_connections // self.workers - (1 if self.database_replica_url is None else 2)

    @property
    def keyring_path(self) -> Path:
        """The keyring's file, wherever it was put."""
        return self.keyring if self.keyring is not None else self.home / "keyring.json"

    @property
    def vault_path(self) -> Path:
        """The vault's file, wherever it was put."""
        return self.vault_file if self.vault_file is not None else self.keyring_path.with_name("vault.json")

    def public_page(self, path: str) -> str:
        """The address of a page for people who have no organization yet.

        Raises:
            ValueError: neither TENANTRY_PUBLIC_APP_URL nor TENANTRY_APP_URL is set.
        """
        return f"{self.public_app_url}/{path}" if self.public_app_url is not None else self.page(path, tenant="www")

    @property
    def storage_address(self) -> str:
        """URL of the store of archives, wherever it was put; a folder's path is absolute and percent-encoded."""
        return self.storage_url if self.storage_url is not None else (self.home.absolute() / "storage").as_uri()

    @property
    def backup_address(self) -> str:
        """URL of the place of backups, likewise."""
        return self.backup_url if self.backup_url is not None else (self.home.absolute() / "backups").as_uri()

    @property
    def backup_key_path(self) -> Path:
        """The file of keys of backups, wherever it was put."""
        return self.backup_key_file if self.backup_key_file is not None else self.home / "backup-keys.json"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load_settings` alone reads the environment: a test that builds Settings() is not changed by the shell it
        # runs in.
        return (init_settings,)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name in type(self).model_fields:
            value = getattr(self, name)
            yield name, shown(name, value) if is_address(name) else value
