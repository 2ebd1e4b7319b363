"""The people and teams of the demo organizations, made through the services once and then left alone.

The passwords are in this file, for everyone to read. So there is a demo only where nobody else is: in a deployment
that has no operators yet, or has had the demo from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.domain.identity.users.models import User
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.teams.models import Team
from tenantry.domain.teams.service import TeamMemberService, TeamService
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.operators.models import Operator
from tenantry.platform.operators.service import OperatorService
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.cli.control import ControlPlane

__all__ = (
    "OPERATOR_EMAIL",
    "DemoLogin",
    "make_operator",
    "make_organizations",
    "owner_passwords",
    "working_logins",
)

OPERATOR_EMAIL = "operator@tenantry.example"
_OPERATOR_PASSWORD = "operator-demo-password"  # noqa: S105 - known to everybody


@dataclass(frozen=True, slots=True)
class _Person:
    email: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class _Team:
    name: str
    description: str
    tags: tuple[str, ...]
    members: tuple[str, ...] = ()
    """Addresses of people; the organization's owner owns the team."""


@dataclass(frozen=True, slots=True)
class _Organization:
    password: str
    people: tuple[_Person, ...]
    teams: tuple[_Team, ...]


_ORGANIZATIONS: Mapping[str, _Organization] = {
    "acme": _Organization(
        password="acme-demo-password",  # noqa: S106 - known to everybody
        people=(
            _Person("bob@acme.example", "Bob Baker", "member"),
            _Person("vera@acme.example", "Vera Vance", "viewer"),
        ),
        teams=(
            _Team("Rockets", "Propulsion, and what is left of it.", ("hardware", "go live"), ("bob@acme.example",)),
            _Team("Anvils", "Heavy things that fall.", ("hardware",)),
            _Team("Sales", "Deliveries to the desert.", ("go live",), ("bob@acme.example", "vera@acme.example")),
        ),
    ),
    "globex": _Organization(
        password="globex-demo-password",  # noqa: S106 - known to everybody
        people=(_Person("mia@globex.example", "Mia Mori", "member"),),
        teams=(
            _Team("Rockets", "No relation to anybody else's.", ("secret",), ("mia@globex.example",)),
            _Team("Hammocks", "Well-being.", ("people",)),
        ),
    ),
}


class DemoLogin(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody to log in as; `organization` is None for the operator."""

    organization: str | None
    email: str
    password: str
    role: str


def owner_passwords() -> dict[str, str]:
    """The passwords of the demo organizations' owners, by slug."""
    return {slug: organization.password for slug, organization in _ORGANIZATIONS.items()}


async def make_operator(control: ControlPlane) -> bool:
    """Make the demo's operator in a deployment without operators; whether it may have the demo.

    The operator comes first: a start that is cut short goes on with the demo the next time.
    """
    async with control.database.transaction(control.read_scope) as transaction:
        present = set(await transaction.session.scalars(select(Operator.email)))
    if present:
        return OPERATOR_EMAIL in present
    hashed = await control.hasher.hash(_OPERATOR_PASSWORD)
    async with control.database.transaction(control.write_scope) as transaction:
        await OperatorService(session=transaction.session).add(
            email=OPERATOR_EMAIL, hashed_password=hashed, role="owner", actor=cli_actor()
        )
    return True


async def make_organizations(control: ControlPlane) -> None:
    """Give the demo organizations people and teams, those that have none yet.

    What was made once and then changed or deleted stays so.
    """
    for tenant in await _tenants(control):
        context, organization = control.context(tenant), _ORGANIZATIONS[tenant.slug]
        async with control.database.transaction(context.read_scope) as transaction:
            if not await _is_untouched(transaction.session):
                continue
        # Hashed once, with no transaction open; that the demo's people share a salt tells nothing that is secret.
        hashed = await control.hasher.hash(organization.password)
        async with control.database.transaction(context.write_scope) as transaction:
            await _fill(transaction.session, tenant, organization, hashed)


async def working_logins(control: ControlPlane) -> list[DemoLogin]:
    """The demo's log-ins whose password is still the one in this file."""
    found: list[DemoLogin] = []
    verified: dict[str | None, bool] = {}

    async def check(stored: str | None, password: str) -> bool:
        if stored not in verified:
            verified[stored] = stored is not None and await control.hasher.verify(stored, password)
        return verified[stored]

    for tenant in await _tenants(control):
        organization = _ORGANIZATIONS[tenant.slug]
        people = [_Person(tenant.owner_email, "", "owner"), *organization.people]
        async with control.database.transaction(control.context(tenant).read_scope) as transaction:
            rows = await transaction.session.execute(
                select(User.email, User.hashed_password).where(
                    User.email.in_([person.email for person in people]), User.is_active
                )
            )
            hashes = {row.email: row.hashed_password for row in rows}
        found += [
            DemoLogin(organization=tenant.slug, email=person.email, password=organization.password, role=person.role)
            for person in people
            if await check(hashes.get(person.email), organization.password)
        ]
    async with control.database.transaction(control.read_scope) as transaction:
        operator = await OperatorService(session=transaction.session).get_one_or_none(email=OPERATOR_EMAIL)
    if operator is not None and operator.is_active and await check(operator.hashed_password, _OPERATOR_PASSWORD):
        found.append(
            DemoLogin(organization=None, email=OPERATOR_EMAIL, password=_OPERATOR_PASSWORD, role=operator.role)
        )
    return found


async def _tenants(control: ControlPlane) -> list[Tenant]:
    async with control.database.transaction(control.read_scope) as transaction:
        rows = await transaction.session.scalars(
            select(Tenant).where(Tenant.slug.in_(_ORGANIZATIONS), Tenant.status == "active").order_by(Tenant.slug)
        )
        return list(rows)


async def _is_untouched(session: AsyncSession) -> bool:
    people = await session.scalar(select(func.count()).select_from(User))
    teams = await session.scalar(select(func.count()).select_from(Team))
    return people == 1 and teams == 0


async def _fill(session: AsyncSession, tenant: Tenant, organization: _Organization, hashed: str) -> None:
    users, teams, members = (
        UserService(session=session),
        TeamService(session=session),
        TeamMemberService(session=session),
    )
    owner = await users.credentials(tenant.owner_email)
    if owner is None:
        return
    if owner.hashed_password is None:
        # Made by a start without the demo: invited, and never came.
        owner.hashed_password = hashed
    ids = {
        person.email: (
            await users.add(email=person.email, hashed_password=hashed, name=person.name, roles=[person.role])
        ).id
        for person in organization.people
    }
    for team in organization.teams:
        made = await teams.found(
            name=team.name, slug=None, description=team.description, tags=list(team.tags), owner_id=owner.id
        )
        for email in team.members:
            await members.join(made.id, ids[email], "member", as_owner=True)
