"""The checks, in the order in which they are shown. One more is a line here, and a section of docs/doctor.md."""

from __future__ import annotations

from tenantry.doctor.backups import check_backups
from tenantry.doctor.capacity import check_capacity
from tenantry.doctor.certificates import check_certificates
from tenantry.doctor.clocks import check_clocks
from tenantry.doctor.dangers import check_settings
from tenantry.doctor.examination import Check
from tenantry.doctor.logins import check_logins
from tenantry.doctor.pooler import check_pooler
from tenantry.doctor.postgresql import check_postgresql, check_vacuum
from tenantry.doctor.privileges import check_hardening, check_privileges
from tenantry.doctor.redis_server import check_redis
from tenantry.doctor.roles import check_roles
from tenantry.doctor.schemas import (
    check_fingerprints,
    check_public,
    check_revisions,
    check_schemas,
    check_shared_schema,
)
from tenantry.doctor.secret_keys import check_keys
from tenantry.doctor.sessions import check_connections, check_sessions
from tenantry.doctor.site import Need
from tenantry.doctor.work import check_audit_trails, check_jobs, check_operations

__all__ = ("CHECKS",)

_APP = (Need.APP,)

CHECKS: tuple[Check, ...] = (
    Check("pooler", "Two organizations on one backend see nothing of each other", _APP, check_pooler),
    Check("roles", "Roles and memberships are as designed", _APP, check_roles),
    Check("privileges", "Privileges are as designed", _APP, check_privileges, 300.0),
    Check("hardening", "Injected SQL cannot leave its organization", _APP, check_hardening),
    Check("logins", "PostgreSQL lets nobody in without proof", (Need.ADMIN,), check_logins),
    Check("public", "`public` is empty, no schema is a stranger's", _APP, check_public),
    Check("schemas", "Every schema has its organization", _APP, check_schemas),
    # The reference is made once for each revision that there is, which takes seconds; --all may take hours.
    Check("fingerprints", "Schemas are what their revisions make", (Need.APP, Need.OWNER), check_fingerprints, 600.0),
    Check("revisions", "This release can serve every organization", _APP, check_revisions),
    Check("shared-schema", "The shared schema is this release's", (Need.OWNER,), check_shared_schema),
    Check("clocks", "Clocks agree", _APP, check_clocks),
    Check("redis", "Redis keeps what it is told to", (Need.REDIS,), check_redis),
    Check("postgresql", "PostgreSQL's settings suit many schemas", _APP, check_postgresql),
    Check("vacuum", "Autovacuum keeps up", _APP, check_vacuum),
    Check("connections", "There are connections enough", _APP, check_connections),
    Check("sessions", "No session holds the others up", _APP, check_sessions),
    Check("capacity", "There is room for more organizations", _APP, check_capacity),
    Check("jobs", "Jobs do not wait", _APP, check_jobs),
    Check("operations", "Nothing waits for the provisioner", _APP, check_operations),
    Check("audit-trails", "Audit trails are sealed", _APP, check_audit_trails),
    Check("backups", "There is a backup of last night", _APP, check_backups),
    Check("keys", "Keys are there, and not old", (), check_keys),
    Check("certificates", "Certificates are good for a while", (), check_certificates),
    Check("settings", "No setting is dangerous", (), check_settings),
)
