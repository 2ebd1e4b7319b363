"""Sign-ups of strangers, what they have asked for, and in which organizations an address has an account.

Revision: 0006
Written: 2026-11-23
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The two blocks that HMAC begins with (RFC 2104, section 2), of a key that nothing outside of the database ever has.
# gen_random_uuid() has 122 random bits, from the system's generator: five of them fill 256 bits twice over.
_KEY = """
DO $do$
DECLARE
    secret bytea := sha256(convert_to(gen_random_uuid()::text || gen_random_uuid() || gen_random_uuid()
                                      || gen_random_uuid() || gen_random_uuid(), 'UTF8'))
                    || decode(repeat('00', 32), 'hex');
    inner_block bytea := secret;
    outer_block bytea := secret;
BEGIN
    FOR i IN 0..63 LOOP
        inner_block := set_byte(inner_block, i, get_byte(secret, i) # 54);
        outer_block := set_byte(outer_block, i, get_byte(secret, i) # 92);
    END LOOP;
    INSERT INTO platform.account_directory_key (id, inner_block, outer_block) VALUES (1, inner_block, outer_block);
END
$do$
"""

# HMAC-SHA-256 of a text: the one way in which the control plane may use the key.
_DIGEST = """
CREATE FUNCTION platform.keyed_digest(value text) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT sha256(k.outer_block || sha256(k.inner_block || convert_to(value, 'UTF8')))
      FROM platform.account_directory_key k
$function$
"""

# Asking for one address is all that there is: nobody who serves can read the directory.
_LOOK_UP = """
CREATE FUNCTION platform.account_tenants(address text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
    SELECT d.tenant_id FROM platform.account_directory d WHERE d.digest = platform.keyed_digest(address)
$function$
"""

# The tenant is the one whose schema the table is in: neither an argument nor a setting, which a caller could choose.
# A trigger of every tenant's user_account, so that whoever writes there (the API, a clone, an import, a directory's
# provisioning, somebody in psql) writes here, in the same transaction.
_KEEP = """
CREATE FUNCTION platform.keep_account_directory() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    own uuid;
BEGIN
    IF TG_TABLE_SCHEMA !~ '^t_[0-9a-f]{32}$' THEN
        RAISE EXCEPTION 'not a schema of a tenant';
    END IF;
    own := substr(TG_TABLE_SCHEMA, 3)::uuid;
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM platform.account_directory
         WHERE digest = platform.keyed_digest(OLD.email) AND tenant_id = own;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        IF NEW.is_active THEN
            INSERT INTO platform.account_directory (digest, tenant_id)
            VALUES (platform.keyed_digest(NEW.email), own) ON CONFLICT DO NOTHING;
        END IF;
    END IF;
    RETURN NULL;
END
$function$
"""

# In one statement, and so of one moment. Without a schema (archived) the entries stay as they were when it had one.
_REPAIR = """
CREATE FUNCTION platform.repair_account_directory(tenant uuid) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    accounts regclass := to_regclass('t_' || replace(tenant::text, '-', '') || '.user_account');
    changed integer;
BEGIN
    IF accounts IS NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format(
        'WITH wanted AS MATERIALIZED (
             SELECT sha256(k.outer_block || sha256(k.inner_block || convert_to(u.email, ''UTF8''))) AS digest
               FROM %s u, platform.account_directory_key k WHERE u.is_active
         ), gone AS (
             DELETE FROM platform.account_directory d
              WHERE d.tenant_id = $1 AND d.digest NOT IN (SELECT w.digest FROM wanted w) RETURNING 1
         ), made AS (
             INSERT INTO platform.account_directory (digest, tenant_id)
             SELECT w.digest, $1 FROM wanted w ON CONFLICT DO NOTHING RETURNING 1
         )
         SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM made)', accounts
    ) INTO changed USING tenant;
    RETURN changed;
END
$function$
"""

_GRANTS = (
    "REVOKE EXECUTE ON FUNCTION platform.keyed_digest(text), platform.account_tenants(text),"
    " platform.repair_account_directory(uuid), platform.keep_account_directory() FROM PUBLIC",
    # The trigger's function is nobody's to call: a trigger runs it whoever writes.
    "GRANT EXECUTE ON FUNCTION platform.keyed_digest(text), platform.account_tenants(text),"
    " platform.repair_account_directory(uuid) TO tenantry_control",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON platform.signup, platform.public_request TO tenantry_control",
)


def upgrade() -> None:
    op.create_table(
        "signup",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("char_length(organization) BETWEEN 1 AND 200", name=op.f("ck_signup_organization_length")),
        sa.CheckConstraint("slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'", name=op.f("ck_signup_slug_form")),
        sa.CheckConstraint("char_length(email) BETWEEN 3 AND 254", name=op.f("ck_signup_email_length")),
        sa.CheckConstraint("char_length(name) <= 100", name=op.f("ck_signup_name_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signup")),
        sa.UniqueConstraint("digest", name="uq_signup_digest"),
        schema="platform",
    )
    op.create_index("ix_signup_slug", "signup", ["slug"], schema="platform")
    op.create_index("ix_signup_expires_at", "signup", ["expires_at"], schema="platform")
    op.create_index(
        "ix_signup_tenant_id",
        "signup",
        ["tenant_id"],
        schema="platform",
        postgresql_where=sa.text("tenant_id IS NOT NULL"),
    )
    op.create_table(
        "public_request",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("client", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('sign-up', 'organizations')", name=op.f("ck_public_request_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_public_request")),
        schema="platform",
    )
    op.create_index("ix_public_request_created_at_kind", "public_request", ["created_at", "kind"], schema="platform")
    op.create_table(
        "account_directory_key",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("inner_block", sa.LargeBinary(), nullable=False),
        sa.Column("outer_block", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_account_directory_key_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_directory_key")),
        schema="platform",
    )
    op.create_table(
        "account_directory",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "tenant_id", name=op.f("pk_account_directory")),
        schema="platform",
    )
    op.create_index("ix_account_directory_tenant_id", "account_directory", ["tenant_id"], schema="platform")
    for statement in (_KEY, _DIGEST, _LOOK_UP, _KEEP, _REPAIR, *_GRANTS):
        op.execute(statement)


def downgrade() -> None:
    # Refused while a tenant's trigger calls the function: tenants go back first.
    op.execute("DROP FUNCTION platform.keep_account_directory()")
    op.execute("DROP FUNCTION platform.repair_account_directory(uuid)")
    op.execute("DROP FUNCTION platform.account_tenants(text)")
    op.execute("DROP FUNCTION platform.keyed_digest(text)")
    for table in ("account_directory", "account_directory_key", "public_request", "signup"):
        op.drop_table(table, schema="platform")
