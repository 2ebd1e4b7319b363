"""Connections to providers: which, for whom, and with which rights; and who people are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import delete, select
from sqlalchemy.orm import joinedload, selectinload
from uuid_utils.compat import uuid7

from tenantry.domain.identity.sso.models import SsoConnection, SsoDomain, SsoGrant, SsoIdentity
from tenantry.domain.identity.sso.schemas import SsoConnectionRead, SsoIdentityRead, SsoRole, SsoUser
from tenantry.domain.identity.users.authority import require_may_grant
from tenantry.domain.roles.models import Role
from tenantry.domain.roles.service import require_held
from tenantry.events.record import record_event
from tenantry.kernel.errors import (
    ConflictException,
    ResourceNotFoundException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.outbound import RefusedAddressError, check_url
from tenantry.kernel.service import Service, changed_fields, create_service_provider

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.domain.roles.catalogue import PermissionCatalogue
    from tenantry.kernel.outbound import Network
    from tenantry.kernel.security import Vault
    from tenantry.tenancy.guards import Principal

__all__ = (
    "MOST_CONNECTIONS",
    "TOO_MANY_CONNECTIONS",
    "Keeper",
    "SsoConnectionService",
    "SsoIdentityService",
    "provide_connections",
    "provide_identities",
    "read_connection",
    "read_identity",
    "secret_purpose",
)

MOST_CONNECTIONS = 20
"""Of an organization; most have one."""

TOO_MANY_CONNECTIONS = define_problem(
    "too-many-connections",
    409,
    "Too many connections",
    "An organization has so many connections to providers at most (`allowed`). Delete one.",
)

_LISTS = ("domains", "default_roles", "role_mapping")


def secret_purpose(tenant_id: UUID) -> str:
    """For the vault. Of the organization, so that a copy of it under another id is not the original's client."""
    return f"sso-client-secret:{tenant_id.hex}"


@dataclass(frozen=True, slots=True)
class Keeper:
    """Who keeps connections, and what is needed for it."""

    principal: Principal
    catalogue: PermissionCatalogue
    tenant_id: UUID
    vault: Vault
    besides: tuple[Network, ...]


class SsoConnectionService(Service[SsoConnection]):
    """The connections of one organization.

    Whoever keeps one can be whom they like, as far as its domains and its roles go: so they must be allowed all of that
    themselves.
    """

    class Repo(SQLAlchemyAsyncRepository[SsoConnection]):
        model_type = SsoConnection

    repository_type = Repo

    async def add(self, fields: dict[str, Any], keeper: Keeper) -> SsoConnection:
        """A new connection; `fields` are those of `SsoConnectionCreate`.

        Raises:
            PermissionDeniedException: it could do more than the keeper.
            ValidationFailedException: a value is not acceptable; the error says which.
            ConflictException: there are `MOST_CONNECTIONS`.
        """
        connection_id = uuid7()
        _check_issuer(fields["issuer"], keeper.besides)
        if await self.count() >= MOST_CONNECTIONS:
            raise ConflictException(
                f"There are {MOST_CONNECTIONS} connections already.",
                problem=TOO_MANY_CONNECTIONS,
                allowed=MOST_CONNECTIONS,
            )
        lists = {name: fields.pop(name) for name in _LISTS}
        secret = fields.pop("client_secret")
        connection = SsoConnection(
            id=connection_id,
            **fields | {"scopes": _scopes(fields["scopes"])},
            client_secret=_seal(secret, connection_id, keeper),
            domains=[],
            grants=[],
        )
        await self._set_domains(connection, lists["domains"])
        await self._set_grants(connection, lists["default_roles"], lists["role_mapping"])
        await self._require_may_keep(connection, keeper)
        self.repository.session.add(connection)
        await self.flush()
        await record_event(self.repository.session, "sso_connection.created", subject=connection_id)
        return connection

    async def find(self, connection_id: UUID, *, lock: bool = False) -> SsoConnection:
        """A connection with its domains and grants.

        Raises:
            ResourceNotFoundException: there is none.
        """
        wanted = select(SsoConnection).where(SsoConnection.id == connection_id).options(*_WHOLE)
        if lock:
            wanted = wanted.with_for_update(of=SsoConnection)
        found: SsoConnection | None = await self.repository.session.scalar(wanted)
        if found is None:
            raise ResourceNotFoundException("There is no such connection.")
        return found

    async def change(self, connection_id: UUID, changes: dict[str, Any], keeper: Keeper) -> SsoConnection:
        """Change what is in `changes`, of the fields of `SsoConnectionUpdate`.

        Raises:
            PermissionDeniedException: the connection could do more than the keeper, before or after.
            ResourceNotFoundException: there is no such connection.
            ValidationFailedException: as `add`; or another issuer would be sent the secret of the one before.
        """
        session = self.repository.session
        connection = await self.find(connection_id, lock=True)
        await self._require_may_keep(connection, keeper)
        lists = {name: changes.pop(name) for name in _LISTS if name in changes}
        secret = changes.pop("client_secret", None)
        if "issuer" in changes and changes["issuer"] != connection.issuer:
            _check_issuer(changes["issuer"], keeper.besides)
            if secret is None:
                raise ValidationFailedException.of(
                    "clientSecret",
                    "Expected the secret that the other issuer has given: it is not sent that of another.",
                )
            # Whom one issuer calls by a name is not whom another does.
            await session.execute(delete(SsoIdentity).where(SsoIdentity.connection_id == connection_id))
        if "scopes" in changes:
            changes["scopes"] = _scopes(changes["scopes"])
        before = read_connection(connection, None)
        changed = changed_fields(connection, changes)
        for name, value in changes.items():
            setattr(connection, name, value)
        if secret is not None:
            connection.client_secret = _seal(secret, connection_id, keeper)
            changed.append("client_secret")
        if "domains" in lists:
            await self._set_domains(connection, lists["domains"])
        if lists.keys() & {"default_roles", "role_mapping"}:
            await self._set_grants(
                connection,
                lists.get("default_roles", before.default_roles),
                lists.get("role_mapping", before.role_mapping),
            )
        await self._require_may_keep(connection, keeper)
        await self.flush()
        after = read_connection(connection, None)
        changed += [name for name in lists if getattr(before, name) != getattr(after, name)]
        if changed:
            await record_event(session, "sso_connection.updated", subject=connection_id, payload={"fields": changed})
        return connection

    async def remove(self, connection_id: UUID, keeper: Keeper) -> None:
        """Delete a connection, with who people are at its provider. Their accounts and sessions stay.

        Raises:
            PermissionDeniedException: it could do more than the keeper.
            ResourceNotFoundException: there is no such connection.
        """
        connection = await self.find(connection_id, lock=True)
        await self._require_may_keep(connection, keeper)
        await self.repository.session.delete(connection)
        await self.flush()
        await record_event(self.repository.session, "sso_connection.deleted", subject=connection_id)

    async def require_may_keep(self, connection_id: UUID, keeper: Keeper) -> None:
        """Refuse whoever may not keep this connection.

        Raises:
            PermissionDeniedException: it could do more than they.
            ResourceNotFoundException: there is no such connection.
        """
        await self._require_may_keep(await self.find(connection_id), keeper)

    async def _require_may_keep(self, connection: SsoConnection, keeper: Keeper) -> None:
        # By an address of one of its domains, its provider signs in whoever has the account: administrators, too.
        require_held(keeper.principal.permissions, keeper.catalogue.all, "Whoever keeps a connection may do")
        roles = {grant.role.id: grant.role for grant in connection.grants}
        if connection.owners_allowed:
            owner = await self.repository.session.scalars(select(Role).where(Role.is_builtin, Role.slug == "owner"))
            roles |= {role.id: role for role in owner}
        require_may_grant(keeper.principal, roles.values(), keeper.catalogue)
        if not connection.owners_allowed and any(_is_owner(grant.role) for grant in connection.grants):
            raise ValidationFailedException.of(
                "roleMapping", "Expected no owners to be made of a claim, unless `ownersAllowed` is true."
            )

    async def _set_domains(self, connection: SsoConnection, domains: Sequence[str]) -> None:
        wanted = list(dict.fromkeys(domain.lower() for domain in domains))
        taken = await self.repository.session.scalars(
            select(SsoDomain.domain).where(SsoDomain.domain.in_(wanted), SsoDomain.connection_id != connection.id)
        )
        if others := sorted(taken):
            raise ValidationFailedException.of("domains", f"Another connection is for {', '.join(others)}.")
        held = {each.domain: each for each in connection.domains}
        connection.domains = [held.get(domain) or SsoDomain(domain=domain) for domain in wanted]

    async def _set_grants(
        self, connection: SsoConnection, default_roles: Sequence[str], mapping: Iterable[SsoRole]
    ) -> None:
        pairs = dict.fromkeys((each.value, each.role) for each in mapping)
        by_slug = await self._roles(default_roles, "defaultRoles") | await self._roles(
            [slug for _, slug in pairs], "roleMapping"
        )
        if "owner" in default_roles:
            raise ValidationFailedException.of("defaultRoles", "Expected no owners to be made of whoever comes.")
        connection.grants = [
            *(SsoGrant(claim_value=None, role=by_slug[slug]) for slug in dict.fromkeys(default_roles)),
            *(SsoGrant(claim_value=value, role=by_slug[slug]) for value, slug in pairs),
        ]

    async def _roles(self, slugs: Sequence[str], field: str) -> dict[str, Role]:
        found = {
            role.slug: role for role in await self.repository.session.scalars(select(Role).where(Role.slug.in_(slugs)))
        }
        if missing := [slug for slug in dict.fromkeys(slugs) if slug not in found]:
            raise ValidationFailedException.of(field, f"There is no role named {', '.join(missing)}.")
        return found


class SsoIdentityService(Service[SsoIdentity]):
    """Who the organization's people are at its providers."""

    class Repo(SQLAlchemyAsyncRepository[SsoIdentity]):
        model_type = SsoIdentity

    repository_type = Repo

    async def unlink(self, connection_id: UUID, identity_id: UUID) -> None:
        """Forget who a user is there; the next who comes with their verified address is linked to the account anew.

        Raises:
            ResourceNotFoundException: there is no such identity of that connection.
        """
        session = self.repository.session
        user_id = await session.scalar(
            delete(SsoIdentity)
            .where(SsoIdentity.id == identity_id, SsoIdentity.connection_id == connection_id)
            .returning(SsoIdentity.user_id)
        )
        if user_id is None:
            raise ResourceNotFoundException("There is no such identity.")
        await record_event(session, "sso_identity.unlinked", subject=connection_id, payload={"user_id": user_id})


def read_connection(connection: SsoConnection, redirect_uri: str | None) -> SsoConnectionRead:
    """A connection on the wire; its domains and grants are loaded."""
    return SsoConnectionRead(
        id=connection.id,
        name=connection.name,
        issuer=connection.issuer,
        client_id=connection.client_id,
        scopes=list(connection.scopes),
        domains=sorted(each.domain for each in connection.domains),
        is_enabled=connection.is_enabled,
        is_enforced=connection.is_enforced,
        provisions_users=connection.provisions_users,
        owners_allowed=connection.owners_allowed,
        default_roles=sorted(grant.role.slug for grant in connection.grants if grant.claim_value is None),
        role_claim=connection.role_claim,
        role_mapping=sorted(
            (
                SsoRole(value=grant.claim_value, role=grant.role.slug)
                for grant in connection.grants
                if grant.claim_value is not None
            ),
            key=lambda each: (each.value, each.role),
        ),
        redirect_uri=redirect_uri,
        last_used_at=connection.last_used_at,
        last_failed_at=connection.last_failed_at,
        last_failure=connection.last_failure,
        created_at=connection.created_at,
        updated_at=connection.updated_at,
    )


def read_identity(identity: SsoIdentity, struct: type[SsoIdentityRead] = SsoIdentityRead) -> SsoIdentityRead:
    """An identity on the wire; its user is loaded."""
    user = identity.user
    return struct(
        id=identity.id,
        subject=identity.subject,
        user=SsoUser(id=user.id, email=user.email, name=user.name),
        last_login_at=identity.last_login_at,
        created_at=identity.created_at,
    )


def _is_owner(role: Role) -> bool:
    return role.is_builtin and role.slug == "owner"


def _check_issuer(issuer: str, besides: Iterable[Network]) -> None:
    try:
        check_url(issuer, besides)
    except RefusedAddressError as error:
        raise ValidationFailedException.of("issuer", str(error)) from None
    if "?" in issuer:
        raise ValidationFailedException.of("issuer", "Expected no query (OpenID Connect Discovery, section 3).")


def _scopes(scopes: Sequence[str]) -> list[str]:
    # Without it, it is no OpenID Connect.
    return list(dict.fromkeys(["openid", *scopes]))


def _seal(secret: str, connection_id: UUID, keeper: Keeper) -> bytes:
    return keeper.vault.seal(secret.encode(), purpose=secret_purpose(keeper.tenant_id), owner=connection_id)


_WHOLE = (selectinload(SsoConnection.domains), selectinload(SsoConnection.grants))

provide_connections = create_service_provider(
    SsoConnectionService,
    load=list(_WHOLE),
    error_messages={
        "duplicate_key": "One of the domains is another connection's.",
        "integrity": "The connection cannot be changed like this.",
        "not_found": "There is no such connection.",
    },
)

provide_identities = create_service_provider(SsoIdentityService, load=[joinedload(SsoIdentity.user, innerjoin=True)])
