"""How PostgreSQL lets in whom: only a superuser may read that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.doctor.findings import Finding, critical, ok, some, warning
from tenantry.doctor.site import Need
from tenantry.tenancy.bootstrap import APP_ROLE, OWNER_ROLE

if TYPE_CHECKING:
    from tenantry.doctor.site import Site

__all__ = ("check_logins",)

# What another machine can use; `trust` asks for nothing, `password` has the password sent as it is.
_RULES = """
SELECT format('line %s: %s %s %s %s %s', line_number, type, array_to_string(database, ','),
              array_to_string(user_name, ','), coalesce(address, ''), auth_method) AS rule,
       auth_method = 'trust' AS open
  FROM pg_hba_file_rules
 WHERE error IS NULL AND (auth_method = 'trust' OR (auth_method = 'password' AND type <> 'hostssl'))
   AND NOT (type = 'local' AND auth_method = 'password')
 ORDER BY line_number
"""
_WRONG_RULES = """
SELECT format('line %s: %s', line_number, error) AS rule FROM pg_hba_file_rules WHERE error IS NOT NULL
"""
_STORED = """
SELECT rolname::text AS name FROM pg_authid
 WHERE rolname = ANY($1::text[]) AND rolpassword LIKE 'md5%' ORDER BY 1
"""


async def check_logins(site: Site) -> list[Finding]:
    async with site.connect(Need.ADMIN) as connection, connection.transaction(readonly=True):
        if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            return [ok("logins.unknown", "The administrator is no superuser, and may not read how others are let in")]
        rules = await connection.fetch(_RULES)
        wrong = await connection.fetch(_WRONG_RULES)
        stored = await connection.fetch(_STORED, [APP_ROLE, OWNER_ROLE])
    found = []
    if opened := [row["rule"] for row in rules if row["open"]]:
        found.append(
            critical(
                "logins.trust",
                "PostgreSQL lets people in without a password",
                seen=some(opened),
                expected="scram-sha-256, peer or cert",
                remedy="Change pg_hba.conf, and SELECT pg_reload_conf().",
            )
        )
    if plain := [row["rule"] for row in rules if not row["open"]]:
        found.append(
            warning(
                "logins.plain",
                "PostgreSQL asks for passwords in the clear",
                seen=some(plain),
                expected="scram-sha-256",
                remedy="Change pg_hba.conf, and SELECT pg_reload_conf().",
            )
        )
    if wrong:
        found.append(
            warning(
                "logins.rules",
                "pg_hba.conf has mistakes: the rules that were loaded before are in force, until a restart",
                seen=some([row["rule"] for row in wrong]),
                expected="no mistake",
                remedy="Correct pg_hba.conf, and SELECT pg_reload_conf().",
            )
        )
    if md5 := [row["name"] for row in stored]:
        found.append(
            warning(
                "logins.md5",
                "Passwords are stored as MD5",
                seen=some(md5),
                expected="scram-sha-256",
                remedy="Set password_encryption = 'scram-sha-256', and the passwords anew (`tenantry bootstrap`).",
            )
        )
    return found or [ok("logins.good", "Whoever logs in at PostgreSQL has to prove who it is")]
