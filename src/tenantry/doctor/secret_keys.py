"""Key files: there, readable, and not too old."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tenantry.doctor.findings import Finding, critical, note, ok, warning
from tenantry.kernel.security import Keyring, Vault
from tenantry.kernel.security.keyfile import KeyFileError

if TYPE_CHECKING:
    from pathlib import Path

    from tenantry.doctor.site import Site

__all__ = ("check_keys",)

_DAY = 86_400
_SIGNING, _SEALING = 365, 730
"""Days. A key that signs is good for everything as long as it is not rotated; nobody knows who has a copy by then."""


async def check_keys(site: Site) -> list[Finding]:
    settings, now = site.settings, time.time()
    found: list[Finding] = []
    if settings.keyring_path.exists():
        try:
            ring = Keyring.open(settings.keyring_path, retain=settings.keyring_retain, create=False).keys()
        except KeyFileError as error:
            found.append(_unusable(error, "no access token is signed or verified"))
        else:
            signing = ring[0]
            what = f"The key that signs access tokens, {signing.kid}"
            found.append(_aged(what, now - signing.created_at, _SIGNING, "tenantry keys rotate"))
    else:
        found.append(_absent("keyring", settings.keyring_path, named=settings.keyring is not None))
    if settings.vault_path.exists():
        vault = Vault(settings.vault_path)
        try:
            sealing = [info for info in vault.keys() if info.seals]  # noqa: SIM118 - no mapping
        except KeyFileError as error:
            found.append(_unusable(error, "no stored secret is sealed or opened"))
        else:
            for info in sealing:
                what = f"The key that seals stored secrets, {info.key_id}"
                found.append(_aged(what, now - info.created_at, _SEALING, "tenantry keys rotate --sealing"))
    else:
        found.append(_absent("vault", settings.vault_path, named=settings.vault_file is not None))
    return found


def _aged(what: str, age: float, most: int, command: str) -> Finding:
    """`age` in seconds, `most` in days."""
    days = age / _DAY
    if days < -1:
        return warning(
            "keys.clock",
            f"{what}, is of the future",
            seen=f"in {-days:,.0f} days",
            expected="a moment in the past",
            remedy="Correct this machine's clock, or the one that made it: tokens are refused where they differ.",
        )
    if days <= most:
        return ok("keys.good", f"{what}, is not old", seen=f"{max(0.0, days):,.0f} days")
    return warning(
        "keys.old",
        f"{what}, is old",
        seen=f"{days:,.0f} days",
        expected=f"at most {most}",
        remedy=f"Run `{command}`; nothing has to be restarted, and what is signed or sealed stays good.",
    )


def _unusable(error: KeyFileError, consequence: str) -> Finding:
    return critical(
        "keys.unusable",
        f"A file of keys cannot be used: {consequence}",
        seen=str(error),
        expected="a file that this user alone can read and write",
        remedy="Do as it says, or put back a copy of it.",
    )


def _absent(what: str, path: Path, *, named: bool) -> Finding:
    if named:
        return critical(
            "keys.missing",
            f"The {what} that the settings name is not there",
            seen=str(path),
            expected="a file",
            remedy="Mount it; a new one knows nothing of what the old one has signed or sealed.",
        )
    return note(
        "keys.elsewhere",
        f"There is no {what} here, so its age is not known",
        seen=str(path),
        remedy="Run this where the API runs, with its settings.",
    )
