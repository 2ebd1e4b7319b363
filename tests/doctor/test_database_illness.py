"""What is broken in a real database on purpose is found, told with a remedy, and in the exit code."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.doctor.support import Patient, codes, examine

Statements = Sequence[str]

_STRANGE = "t_" + "0" * 31 + "1"
_STRANGE_ID = "'00000000-0000-0000-0000-000000000001'"

# Check, finding, severity, what breaks it, what mends it.
ILLNESSES: list[tuple[str, str, str, Statements, Statements]] = [
    (
        "roles",
        "roles.attributes",
        "critical",
        ["ALTER ROLE tenantry_app CREATEDB"],
        ["ALTER ROLE tenantry_app NOCREATEDB"],
    ),
    (
        "roles",
        "roles.attributes",
        "critical",
        ["ALTER ROLE tenantry_control BYPASSRLS"],
        ["ALTER ROLE tenantry_control NOBYPASSRLS"],
    ),
    (
        "roles",
        "roles.attributes",
        "critical",
        ["ALTER ROLE tenantry_owner SUPERUSER"],
        ["ALTER ROLE tenantry_owner NOSUPERUSER"],
    ),
    (
        "roles",
        "roles.inherit",
        "critical",
        ["ALTER ROLE tenantry_app INHERIT"],
        ["ALTER ROLE tenantry_app NOINHERIT"],
    ),
    ("roles", "roles.tenant-attributes", "critical", ['ALTER ROLE "{acme}" LOGIN'], ['ALTER ROLE "{acme}" NOLOGIN']),
    (
        "roles",
        "roles.memberships",
        "critical",
        ['GRANT "{acme}" TO "{globex}"'],
        ['REVOKE "{acme}" FROM "{globex}"'],
    ),
    (
        "roles",
        "roles.memberships",
        "critical",
        ["GRANT pg_read_all_data TO tenantry_app"],
        ["REVOKE pg_read_all_data FROM tenantry_app"],
    ),
    (
        "roles",
        "roles.memberships",
        "critical",
        ['GRANT "{acme}" TO tenantry_app WITH INHERIT TRUE, SET TRUE GRANTED BY tenantry_owner'],
        ['GRANT "{acme}" TO tenantry_app WITH INHERIT FALSE, SET TRUE GRANTED BY tenantry_owner'],
    ),
    (
        "roles",
        "roles.strangers",
        "critical",
        ["CREATE ROLE stranger LOGIN", 'GRANT "{acme}" TO stranger'],
        ["DROP ROLE stranger"],
    ),
    (
        "roles",
        "roles.administrators",
        "note",
        ["CREATE ROLE chief CREATEROLE", "GRANT tenantry_owner TO chief"],
        ["DROP ROLE chief"],
    ),
    (
        "roles",
        "roles.not-granted",
        "critical",
        ['REVOKE "{acme}" FROM tenantry_app GRANTED BY tenantry_owner'],
        ['GRANT "{acme}" TO tenantry_app WITH INHERIT FALSE, SET TRUE GRANTED BY tenantry_owner'],
    ),
    (
        "roles",
        "roles.search-path",
        "warning",
        ["ALTER ROLE tenantry_app RESET search_path"],
        ["ALTER ROLE tenantry_app SET search_path = ''"],
    ),
    (
        "roles",
        "roles.settings",
        "warning",
        ["ALTER ROLE tenantry_app SET work_mem = '1GB'"],
        ["ALTER ROLE tenantry_app RESET work_mem"],
    ),
    (
        "roles",
        "roles.missing",
        "critical",
        ["ALTER ROLE tenantry_tenant RENAME TO somebody"],
        ["ALTER ROLE somebody RENAME TO tenantry_tenant"],
    ),
    (
        "privileges",
        "privileges.owned",
        "critical",
        ["CREATE TABLE platform.stray ()", 'ALTER TABLE platform.stray OWNER TO "{acme}"'],
        ["DROP TABLE platform.stray"],
    ),
    (
        "privileges",
        "privileges.held",
        "critical",
        ['GRANT SELECT ON "{acme}".user_account TO tenantry_app'],
        ['REVOKE SELECT ON "{acme}".user_account FROM tenantry_app'],
    ),
    (
        "privileges",
        "privileges.held",
        "critical",
        ['GRANT USAGE ON SCHEMA "{acme}" TO "{globex}"'],
        ['REVOKE USAGE ON SCHEMA "{acme}" FROM "{globex}"'],
    ),
    (
        "privileges",
        "privileges.held",
        "critical",
        ['GRANT SELECT (email) ON "{acme}".user_account TO tenantry_control'],
        ['REVOKE SELECT (email) ON "{acme}".user_account FROM tenantry_control'],
    ),
    (
        "privileges",
        "privileges.held",
        "critical",
        ["GRANT SELECT ON platform.tenant TO tenantry_tenant"],
        ["REVOKE SELECT ON platform.tenant FROM tenantry_tenant"],
    ),
    (
        "privileges",
        "privileges.held",
        "critical",
        ["CREATE ROLE reader", "GRANT SELECT ON platform.operator TO reader"],
        ["REVOKE SELECT ON platform.operator FROM reader", "DROP ROLE reader"],
    ),
    (
        "privileges",
        "privileges.public",
        "critical",
        ["GRANT USAGE ON SCHEMA public TO PUBLIC"],
        ["REVOKE USAGE ON SCHEMA public FROM PUBLIC"],
    ),
    (
        "privileges",
        "privileges.public",
        "critical",
        ['GRANT SELECT ON "{globex}".team TO PUBLIC'],
        ['REVOKE SELECT ON "{globex}".team FROM PUBLIC'],
    ),
    (
        "privileges",
        "privileges.public",
        "critical",
        ["GRANT EXECUTE ON FUNCTION platform.own_plan() TO PUBLIC"],
        ["REVOKE EXECUTE ON FUNCTION platform.own_plan() FROM PUBLIC"],
    ),
    (
        "privileges",
        "privileges.public",
        "critical",
        ["GRANT CONNECT ON DATABASE tenantry TO PUBLIC"],
        ["REVOKE CONNECT ON DATABASE tenantry FROM PUBLIC"],
    ),
    (
        "privileges",
        "privileges.shared",
        "critical",
        ["GRANT UPDATE ON platform.audit_entry TO tenantry_control"],
        ["REVOKE UPDATE ON platform.audit_entry FROM tenantry_control"],
    ),
    (
        "privileges",
        "privileges.shared",
        "critical",
        ["GRANT CREATE ON SCHEMA platform TO tenantry_control"],
        ["REVOKE CREATE ON SCHEMA platform FROM tenantry_control"],
    ),
    (
        "privileges",
        "privileges.definers",
        "critical",
        ["ALTER FUNCTION platform.own_plan() RESET search_path"],
        ["ALTER FUNCTION platform.own_plan() SET search_path = pg_catalog, pg_temp"],
    ),
    (
        "privileges",
        "privileges.definers",
        "critical",
        ["ALTER FUNCTION platform.own_plan() OWNER TO postgres"],
        ["ALTER FUNCTION platform.own_plan() OWNER TO tenantry_owner"],
    ),
    (
        "privileges",
        "privileges.defaults",
        "warning",
        [
            "ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA platform GRANT SELECT ON TABLES TO"
            " tenantry_control"
        ],
        [
            "ALTER DEFAULT PRIVILEGES FOR ROLE tenantry_owner IN SCHEMA platform REVOKE SELECT ON TABLES FROM"
            " tenantry_control"
        ],
    ),
    (
        "privileges",
        "privileges.database-owner",
        "warning",
        ["ALTER DATABASE tenantry OWNER TO postgres", "GRANT CONNECT ON DATABASE tenantry TO tenantry_owner"],
        ["REVOKE CONNECT ON DATABASE tenantry FROM tenantry_owner", "ALTER DATABASE tenantry OWNER TO tenantry_owner"],
    ),
    (
        "hardening",
        "hardening.open",
        "warning",
        ["GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO PUBLIC"],
        ["REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC"],
    ),
    ("public", "public.not-empty", "warning", ["CREATE TABLE public.stray ()"], ["DROP TABLE public.stray"]),
    ("public", "public.other-schemas", "warning", ["CREATE SCHEMA stray"], ["DROP SCHEMA stray"]),
    (
        "public",
        "public.extensions",
        "warning",
        ["CREATE EXTENSION dblink SCHEMA public"],
        ["DROP EXTENSION dblink"],
    ),
    ("schemas", "schemas.leftover", "warning", [f"CREATE SCHEMA {_STRANGE}"], [f"DROP SCHEMA {_STRANGE}"]),
    (
        "schemas",
        "schemas.leftover",
        "warning",
        [
            "INSERT INTO platform.warm_schema (id, revision, fingerprint, created_at, updated_at)"
            f" VALUES ({_STRANGE_ID}, '0001', 'x', now(), now())"
        ],
        ["DELETE FROM platform.warm_schema"],
    ),
    (
        "schemas",
        "schemas.missing",
        "critical",
        [
            "INSERT INTO platform.tenant (id, slug, name, status, status_changed_at, plan, owner_email, revision,"
            f" created_at, updated_at) VALUES ({_STRANGE_ID}, 'lost', 'Lost', 'active', now(), 'free', 'a@b.example',"
            " '0015', now(), now())"
        ],
        ["DELETE FROM platform.tenant WHERE slug = 'lost'"],
    ),
    (
        "schemas",
        "schemas.purged",
        "critical",
        ["UPDATE platform.tenant SET status = 'purged' WHERE slug = 'acme'"],
        ["UPDATE platform.tenant SET status = 'active' WHERE slug = 'acme'"],
    ),
    (
        "schemas",
        "schemas.leftover",
        "warning",
        ["UPDATE platform.tenant SET archive_key = 'x' WHERE slug = 'acme'"],
        ["UPDATE platform.tenant SET archive_key = NULL WHERE slug = 'acme'"],
    ),
    ("schemas", "schemas.roles", "note", [f"CREATE ROLE {_STRANGE}"], [f"DROP ROLE {_STRANGE}"]),
    (
        "fingerprints",
        "fingerprints.drift",
        "critical",
        ['CREATE TABLE "{acme}".stray ()'],
        ['DROP TABLE "{acme}".stray'],
    ),
    (
        "fingerprints",
        "fingerprints.drift",
        "critical",
        ['REVOKE DELETE ON "{globex}".team FROM "{globex}"'],
        ['GRANT DELETE ON "{globex}".team TO "{globex}"'],
    ),
    (
        "fingerprints",
        "fingerprints.unknown",
        "note",
        ["UPDATE platform.tenant SET revision = '9999' WHERE slug = 'acme'"],
        ["UPDATE platform.tenant SET revision = (SELECT max(revision) FROM platform.tenant WHERE slug = 'globex')"],
    ),
    (
        "revisions",
        "revisions.not-served",
        "critical",
        ["UPDATE platform.tenant SET revision = '0001' WHERE slug = 'acme'"],
        ["UPDATE platform.tenant SET revision = (SELECT max(revision) FROM platform.tenant WHERE slug = 'globex')"],
    ),
    (
        "shared-schema",
        "shared-schema.revision",
        "critical",
        ["UPDATE platform.alembic_version SET version_num = '0007'"],
        ["UPDATE platform.alembic_version SET version_num = '{head}'"],
    ),
    (
        "shared-schema",
        "shared-schema.revision",
        "warning",
        ["UPDATE platform.alembic_version SET version_num = '9999'"],
        ["UPDATE platform.alembic_version SET version_num = '{head}'"],
    ),
    (
        "postgresql",
        "postgresql.unlogged",
        "warning",
        ["CREATE UNLOGGED TABLE platform.stray ()"],
        ["DROP TABLE platform.stray"],
    ),
    (
        "postgresql",
        "postgresql.asynchronous",
        "warning",
        ["ALTER DATABASE tenantry SET synchronous_commit = off"],
        ["ALTER DATABASE tenantry RESET synchronous_commit"],
    ),
    (
        "postgresql",
        "postgresql.isolation",
        "warning",
        ["ALTER DATABASE tenantry SET default_transaction_isolation = 'serializable'"],
        ["ALTER DATABASE tenantry RESET default_transaction_isolation"],
    ),
    (
        "postgresql",
        "postgresql.idle-sessions",
        "warning",
        ["ALTER DATABASE tenantry SET idle_session_timeout = '1min'"],
        ["ALTER DATABASE tenantry RESET idle_session_timeout"],
    ),
    (
        "postgresql",
        "postgresql.read-only",
        "critical",
        ["ALTER DATABASE tenantry SET default_transaction_read_only = on"],
        ["SET default_transaction_read_only = off", "ALTER DATABASE tenantry RESET default_transaction_read_only"],
    ),
    (
        "postgresql",
        "postgresql.passwords",
        "warning",
        ["ALTER DATABASE tenantry SET password_encryption = md5"],
        ["ALTER DATABASE tenantry RESET password_encryption"],
    ),
    (
        "sessions",
        "sessions.slots",
        "warning",
        ["SELECT pg_create_physical_replication_slot('stray', true)"],
        ["SELECT pg_drop_replication_slot('stray')"],
    ),
]


@pytest.mark.parametrize(
    ("check", "code", "severity", "breaking", "mending"),
    ILLNESSES,
    ids=[f"{illness[1]}-{number}" for number, illness in enumerate(ILLNESSES)],
)
def test_what_is_broken_is_found(
    patient: Patient, check: str, code: str, severity: str, breaking: Statements, mending: Statements
) -> None:
    bad = severity in {"warning", "critical"}
    with patient.ailing(breaking, mending):
        found = examine(patient, "--only", check, code=1 if bad else 0)
        assert codes(found)[code]["severity"] == severity
        assert codes(found)[code]["remedy"]
        if severity == "warning":
            examine(patient, "--only", check, "--fail-on", "critical", code=0)
    mended = examine(patient, "--only", check, code=0)
    assert code not in codes(mended)
    assert mended["worst"] in {"ok", "note"}


def test_what_is_kept_of_an_organization_since_a_restore_is_no_strangers(patient: Patient) -> None:
    kept = f"kept_{patient.schemas[0].removeprefix('t_')}_20261124021500000000"
    as_owner = "SET ROLE tenantry_owner"
    making = (
        f'{as_owner}; CREATE SCHEMA "{kept}"; CREATE TABLE "{kept}".team ();'
        f'GRANT SELECT ON "{kept}".team TO "{{acme}}";'
        f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{kept}" GRANT SELECT ON TABLES TO "{{acme}}"'
    )
    with patient.ailing([making], [f'{as_owner}; DROP SCHEMA "{kept}" CASCADE']):
        found = examine(patient, "--only", "public", "--only", "privileges", "--only", "schemas", code=0)
        assert codes(found, "warning", "critical") == {}
        # Another organization's role has no business there.
        stray = f'GRANT SELECT ON "{kept}".team TO "{{globex}}"'
        with patient.ailing([stray], [f'REVOKE SELECT ON "{kept}".team FROM "{{globex}}"']):
            assert codes(examine(patient, "--only", "privileges", code=1), "critical")
