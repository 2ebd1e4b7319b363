"""What one transaction may see: a role, a search path and its time limits, all of them gone at its end."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

__all__ = (
    "CONTROL_ROLE",
    "EMPTY_SCOPE",
    "HEALTH_ACCOUNT",
    "SHARED_SCHEMA",
    "Scope",
    "ScopeError",
    "label_clause",
    "schema_name",
)

SHARED_SCHEMA = "platform"
CONTROL_ROLE = "tenantry_control"
HEALTH_ACCOUNT = "health"
"""The account of the health check's connection: a process that is busy is not to be taken for dead."""

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TENANT_ROLE = re.compile(r"t_[0-9a-f]{32}")
_MODE = re.compile(r"[A-Z ]*")
_NOT_OF_A_LABEL = re.compile(r"[^A-Za-z0-9 _./{}:-]")
_LABEL_LENGTH = 63
"""Characters: NAMEDATALEN less one, beyond which pg_stat_activity cuts it off."""

# PostgreSQL remembers the memberships of one role at a time (roles_is_member_of in acl.c), so that asking for another's
# makes it forget those of the application. Both are roles that every server has; the answer is of no interest.
_FORGET_MEMBERSHIPS = "SELECT pg_catalog.pg_has_role('pg_monitor', 'pg_read_all_data', 'SET')"


def schema_name(tenant_id: UUID) -> str:
    """The name of a tenant's schema and of its role: after the id, never the slug, so that renaming costs nothing."""
    return f"t_{tenant_id.hex}"


@lru_cache(maxsize=8192)
def label_clause(program: str, tenant: str, work: str) -> str:
    """What the message that opens a transaction ends with, so that the server can say whose it is.

    `SET LOCAL application_name`, of what the connection is called, a tenant's slug, and a route or a job. It is in
    pg_stat_activity and in the server's log (%a) for every statement of the transaction, and in none of their texts:
    with a comment there, each tenant's statements would be others to the caches of prepared ones. All of it is ours (a
    slug's form is checked by the database, a route is a template); what could end the text is taken out all the same.
    """
    label = _NOT_OF_A_LABEL.sub("?", f"{program}:{tenant or '-'} {work or '-'}")[:_LABEL_LENGTH]
    return f"; SET LOCAL application_name TO '{label}'"


class ScopeError(RuntimeError):
    """A transaction was about to begin, or go on, without a scope: refused, since the alternative is a leak."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The rights of one transaction.

    Times are in milliseconds; 0 leaves the server's own setting. `role` and `search_path` must be plain lower-case
    identifiers, so that nothing in the statement that opens the transaction needs quoting rules.
    """

    role: str
    search_path: str
    read_only: bool = False
    statement_timeout: int = 0
    lock_timeout: int = 0
    idle_in_transaction_timeout: int = 0
    account: str = field(default="", compare=False)
    """On whose account its connection is, where that is not the role: see `tenantry.tenancy.bulkheads`."""
    connections: int = field(default=0, compare=False)
    """How many connections that account may have of a process at a time; 0: as the deployment's setting says."""
    tenant: str = field(default="", repr=False, compare=False)
    """Whose it is, for people: the slug, or `platform`. What it may see is the role's alone to say."""
    plan: str = field(default="", repr=False, compare=False)
    """For metrics."""
    plane: str = field(init=False, repr=False, compare=False)
    """`tenant`, `platform` or `none`."""
    _settings: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in (self.role, self.search_path):
            if name and not _IDENTIFIER.fullmatch(name):
                raise ScopeError(f"not a plain identifier: {name!r}")
        if not self.account:
            object.__setattr__(self, "account", self.role)
        # Without a role, none is said as well: an injected SET ROLE may have outlived the transaction that it was in.
        parts = [f'SET LOCAL ROLE "{self.role}"' if self.role else "SET LOCAL ROLE NONE"]
        parts.append(
            f'SET LOCAL search_path TO "{self.search_path}"' if self.search_path else "SET LOCAL search_path TO ''"
        )
        for name, value in (
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction_timeout),
        ):
            if value:
                parts.append(f"SET LOCAL {name} TO {int(value)}")
        object.__setattr__(self, "_settings", "; ".join(parts))
        plane = "tenant" if self.is_tenant else "platform" if self.role == CONTROL_ROLE else "none"
        object.__setattr__(self, "plane", plane)

    def with_times_of(self, other: Scope) -> Scope:
        """The same rights for as long as `other` has: for operators, who must not be bound by what a plan allows."""
        return replace(
            self,
            statement_timeout=other.statement_timeout,
            lock_timeout=other.lock_timeout,
            idle_in_transaction_timeout=other.idle_in_transaction_timeout,
        )

    @property
    def is_tenant(self) -> bool:
        """Whether the role is one tenant's, and the path leads to its schema alone."""
        return self.role == self.search_path and _TENANT_ROLE.fullmatch(self.role) is not None

    def enter(self, *, again: bool = False) -> str:
        """The message that takes the scope inside an open transaction, and leaves it as it was where it cannot.

        With `again`, the message to send after that was denied: it has the server read memberships anew.
        """
        first = f"ROLLBACK TO entering; {_FORGET_MEMBERSHIPS}" if again else "SAVEPOINT entering"
        return f"{first}; {self._settings}; RELEASE entering"

    def begin(self, mode: str = "", *, again: bool = False, label: str = "") -> str:
        """The one message that opens the transaction and scopes it.

        `mode` is the isolation part of a BEGIN statement (`ISOLATION LEVEL SERIALIZABLE`), or empty. One message, not
        two: a second round trip would cost as much as a small read. With `again`, the message to send after that was
        denied: it ends what was begun, and has the server read memberships anew. `label` is a `label_clause`, or empty.
        """
        if not _MODE.fullmatch(mode):
            raise ScopeError(f"not a transaction mode: {mode!r}")
        if self.read_only and "READ ONLY" not in mode:
            mode = f"{mode} READ ONLY" if mode else "READ ONLY"
        begin = f"BEGIN {mode}" if mode else "BEGIN"
        if again:
            return f"ROLLBACK; {begin}; {_FORGET_MEMBERSHIPS}; {self._settings}{label}"
        return f"{begin}; {self._settings}{label}"


EMPTY_SCOPE = Scope(role="", search_path="")
"""No role and no path: what the engine's first connection and a ping may have. It can read nothing of anybody's."""
