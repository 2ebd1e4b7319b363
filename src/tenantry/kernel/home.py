"""Where the servers are: two files in the home folder, which `tenantry up` writes and every command reads.

The owner's address is in a file of its own, so that a process that serves requests never has it in memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from pydantic import SecretStr

from tenantry.kernel.settings import SettingsError, redact_url

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings

__all__ = (
    "HomeAddresses",
    "OwnerAddresses",
    "complete",
    "read_addresses",
    "read_owner_addresses",
    "write_addresses",
)

_FILE = "addresses.json"
_OWNER_FILE = "owner.json"

StructT = TypeVar("StructT", bound=msgspec.Struct)


class HomeAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """What a serving process needs, passwords included."""

    database_url: str
    redis_url: str
    made_from: str | None = None
    """The administrator's address from which `tenantry up` made the roles, without its password."""

    def replaces(self, url: str | None) -> bool:
        """Whether `database_url` is to be used where the settings have `url`.

        An administrator's address is good for making the roles and for nothing else, but it is the one that
        TENANTRY_DATABASE_URL may hold in the shell in which `tenantry up` was typed, and the other commands after it.
        """
        return url is None or (self.made_from is not None and redact_url(url) == self.made_from)


class OwnerAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """What migrations and the provisioner need; `superuser_url` is known for embedded servers alone."""

    database_owner_url: str
    superuser_url: str | None = None


def read_addresses(home: Path) -> HomeAddresses | None:
    """What the last `tenantry up` wrote, or None if there was none.

    Raises:
        SettingsError: the file cannot be read.
    """
    return _read(home / _FILE, HomeAddresses)


def read_owner_addresses(home: Path) -> OwnerAddresses | None:
    """The other half; not for processes that serve requests.

    Raises:
        SettingsError: the file cannot be read.
    """
    return _read(home / _OWNER_FILE, OwnerAddresses)


def write_addresses(home: Path, addresses: HomeAddresses, owner: OwnerAddresses) -> None:
    """Write them for this user alone, each file in one piece."""
    _write(home / _OWNER_FILE, owner)
    _write(home / _FILE, addresses)


def complete(settings: Settings, *, owner: bool = False, redis: bool = True) -> Settings:
    """The settings with the addresses that they leave out, taken from the home folder.

    With `owner`, the owner's address is needed too (and only then read); without `redis`, Redis' is not.

    Raises:
        SettingsError: an address is in neither.
    """
    known = read_addresses(settings.home)
    update: dict[str, object] = {}
    if known is not None:
        if settings.redis_url is None:
            update["redis_url"] = known.redis_url
        if known.replaces(settings.database_url):
            update["database_url"] = known.database_url
            if owner and settings.database_owner_url is None:
                owners = read_owner_addresses(settings.home)
                update["database_owner_url"] = None if owners is None else SecretStr(owners.database_owner_url)
    completed = settings.model_copy(update=update)
    needed: list[tuple[str, object]] = [("TENANTRY_DATABASE_URL", completed.database_url)]
    if owner:
        needed.append(("TENANTRY_DATABASE_OWNER_URL", completed.database_owner_url))
    if redis:
        needed.append(("TENANTRY_REDIS_URL", completed.redis_url))
    missing = [
        f"{variable}: expected an address, since no `tenantry up` has left one in {settings.home}"
        for variable, value in needed
        if value is None
    ]
    if missing:
        raise SettingsError(missing)
    return completed


def _read(path: Path, kind: type[StructT]) -> StructT | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError([f"{path} cannot be read: {error}"]) from error


def _write(path: Path, addresses: msgspec.Struct) -> None:
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(addresses)))
    partial.replace(path)
