"""Where the embedded servers are: a file in the home folder, which `tenantry up` writes and every command reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from pydantic import SecretStr

from tenantry.kernel.settings import SettingsError

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings

__all__ = ("HomeAddresses", "complete", "read_addresses", "write_addresses")

_FILE = "addresses.json"


class HomeAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of one home's servers, passwords included; `superuser_url` is known for embedded servers alone."""

    database_url: str
    database_owner_url: str | None = None
    superuser_url: str | None = None
    redis_url: str


def read_addresses(home: Path) -> HomeAddresses | None:
    """What the last `tenantry up` wrote, or None if there was none.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        return msgspec.json.decode((home / _FILE).read_bytes(), type=HomeAddresses)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError([f"{home / _FILE} cannot be read: {error}"]) from error


def write_addresses(home: Path, addresses: HomeAddresses) -> None:
    """Write them for this user alone, in one piece."""
    path = home / _FILE
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(addresses)))
    partial.replace(path)


def complete(settings: Settings, *, owner: bool = False) -> Settings:
    """The settings with the addresses that they leave out, taken from the home folder.

    With `owner`, the owner's address is needed too.

    Raises:
        SettingsError: an address is in neither.
    """
    known = read_addresses(settings.home)
    update: dict[str, object] = {}
    if known is not None and settings.database_url is None:
        update["database_url"] = known.database_url
        if settings.database_owner_url is None and known.database_owner_url is not None:
            update["database_owner_url"] = SecretStr(known.database_owner_url)
    if known is not None and settings.redis_url is None:
        update["redis_url"] = known.redis_url
    completed = settings.model_copy(update=update)
    missing = [
        f"{variable}: expected an address, since no `tenantry up` has left one in {settings.home}"
        for variable, value in (
            ("TENANTRY_DATABASE_URL", completed.database_url),
            ("TENANTRY_REDIS_URL", completed.redis_url),
            *((("TENANTRY_DATABASE_OWNER_URL", completed.database_owner_url),) if owner else ()),
        )
        if value is None
    ]
    if missing:
        raise SettingsError(missing)
    return completed
