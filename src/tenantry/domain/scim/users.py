"""Accounts as SCIM's users."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from advanced_alchemy.exceptions import DuplicateKeyError
from scim2_models import InvalidValueException, Meta, NotFoundException, Reference, UniquenessException
from sqlalchemy import ColumnElement, Select, String, cast, exists, func, literal, or_, select, text, true

from tenantry.domain.identity.users.models import User as Account
from tenantry.domain.identity.users.service import UserService
from tenantry.domain.roles.models import Role, UserRole
from tenantry.domain.scim.authority import DEFAULT_ROLE
from tenantry.domain.scim.filters import Attribute, AttributeMap, Many
from tenantry.domain.scim.models import DirectoryUser
from tenantry.domain.scim.resources import EmailAddress, MemberOf, Name, RoleHeld, User
from tenantry.domain.scim.values import id_of, line_of, version_of
from tenantry.domain.teams.models import Team, TeamMember
from tenantry.events.record import record_event
from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.schema import normalize_email

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.scim.authority import DirectoryAuthority

__all__ = ("USER_ATTRIBUTES", "DirectoryUsers", "derived_name", "is_visible_user")


def is_visible_user() -> ColumnElement[bool]:
    """Of accounts with their directory rows beside them: those that the directory has not deleted.

    One that it has is there again as soon as somebody lets it in again (RFC 7644 §3.6 wants it gone until then).
    """
    return or_(DirectoryUser.removed_at.is_(None), Account.is_active)


def _in_group(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    # Joined, not only compared: a condition that is always false takes the comparisons with it.
    found = select(TeamMember.id).join(Team, Team.id == TeamMember.team_id)
    return found.where(TeamMember.user_id == Account.id, condition).correlate(Account).exists()


def _holding(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    found = select(UserRole.id).join(Role, Role.id == UserRole.role_id)
    return found.where(UserRole.user_id == Account.id, condition).correlate(Account).exists()


_address = Attribute(Account.email.expression, folded=True)

USER_ATTRIBUTES: AttributeMap = {
    "id": Attribute(cast(Account.id, String), exact=True),
    "externalid": Attribute(DirectoryUser.external_id.expression, exact=True),
    "username": _address,
    "displayname": Attribute(Account.name.expression),
    "name.givenname": Attribute(DirectoryUser.given_name.expression),
    "name.familyname": Attribute(DirectoryUser.family_name.expression),
    "active": Attribute(Account.is_active.expression, kind=bool),
    "emails": Many(
        lambda condition: condition,
        {
            "value": _address,
            "type": Attribute(literal("work")),
            "primary": Attribute(true(), kind=bool),
        },
    ),
    "groups": Many(
        _in_group,
        {"value": Attribute(cast(Team.id, String), exact=True), "display": Attribute(Team.name.expression)},
    ),
    "roles": Many(_holding, {"value": Attribute(Role.slug.expression, folded=True)}),
    "meta.created": Attribute(Account.created_at.expression, kind=datetime.datetime),
    "meta.lastmodified": Attribute(func.greatest(Account.updated_at, DirectoryUser.updated_at), kind=datetime.datetime),
    "meta.resourcetype": Attribute(literal("User"), exact=True),
}


def derived_name(given: str | None, family: str | None) -> str | None:
    """What others see of a person of whom the directory sends the parts of the name alone."""
    return " ".join(part for part in (given, family) if part)[:100].strip() or None


class DirectoryUsers:
    """Reads and writes users in one transaction."""

    def __init__(self, session: AsyncSession, authority: DirectoryAuthority, *, lock: bool) -> None:
        """`lock` the rows that are read, as a request that writes does: of two changes the second sees the first."""
        self._session = session
        self._authority = authority
        self._lock = lock
        self._accounts = UserService(session=session)

    # Reading.

    def query(self) -> Select[Any, Any]:
        """Users that are there, each with what the directory says of them."""
        return (
            select(Account, DirectoryUser)
            .outerjoin(DirectoryUser, DirectoryUser.user_id == Account.id)
            .where(is_visible_user())
        )

    async def get(self, user_id: str) -> User:
        """One user.

        Raises:
            NotFoundException: there is none of that id, or the directory deleted it.
        """
        account, record = await self._find(user_id)
        return (await self.read([(account, record)]))[0]

    async def read(self, rows: Sequence[tuple[Account, DirectoryUser | None]]) -> list[User]:
        """These rows on the wire."""
        groups: dict[UUID, list[MemberOf]] = {account.id: [] for account, _ in rows}
        found = (
            select(TeamMember.user_id, Team.id, Team.name)
            .join(Team, Team.id == TeamMember.team_id)
            .where(TeamMember.user_id.in_(groups))
            .order_by(Team.name, Team.id)
        )
        for user_id, team_id, name in await self._session.execute(found) if groups else ():
            groups[user_id].append(MemberOf(value=str(team_id), ref=Reference(f"Groups/{team_id}"), display=name))
        return [_read(account, record, groups[account.id]) for account, record in rows]

    # Writing.

    async def create(self, sent: User) -> User:
        """A new account without a password; or the one that the directory had deleted, taken up again.

        Raises:
            UniquenessException: there is a user of that name.
            InvalidValueException: something of it is not acceptable.
            PermissionDeniedException: a role permits more than the directory may hand out.
        """
        email = _address_of(sent)
        given, family = _parts(sent)
        name = line_of(sent.display_name, "displayName") or derived_name(given, family)
        slugs = [DEFAULT_ROLE] if sent.roles is None else _slugs(sent)
        await self._grantable(slugs)
        earlier = await self._session.scalar(select(Account).where(Account.email == email).with_for_update())
        if earlier is None:
            account = await self._open(email, name, slugs)
        else:
            account = await self._take_up(earlier, name, slugs)
        record = await self._record(account.id)
        record.external_id = line_of(sent.external_id, "externalId", most=255)
        record.given_name, record.family_name = given, family
        record.removed_at = None
        await self._session.flush()
        if sent.active is False:
            await self._accounts.change(account.id, {"is_active": False})
        return await self.get(str(account.id))

    async def update(self, sent: User) -> User:
        """Bring the account to this state; what is as it was is not touched.

        Raises:
            NotFoundException: there is none.
            UniquenessException: there is another user of that name.
            InvalidValueException: something of it is not acceptable.
            PermissionDeniedException: it would give somebody more than the directory may.
            ConflictException: the organization would be left without an active owner.
        """
        account, found = await self._find(str(sent.id))
        email, (given, family) = _address_of(sent), _parts(sent)
        name = line_of(sent.display_name, "displayName")
        record = found or await self._record(account.id)
        if name == account.name == derived_name(record.given_name, record.family_name):
            # Put together from the parts, and so it stays.
            name = derived_name(given, family)
        record.external_id = line_of(sent.external_id, "externalId", most=255)
        record.given_name, record.family_name = given, family
        record.removed_at = None
        wanted: dict[str, Any] = {"name": name}
        slugs = _slugs(sent)
        if set(slugs) != {held.role.slug for held in account.roles}:
            await self._authority.require_reach(account)
            await self._grantable(slugs)
            wanted["roles"] = slugs
        if sent.active is not account.is_active:
            if sent.active:
                await self._authority.require_reach(account)
            wanted["is_active"] = bool(sent.active)
        if email != account.email:
            await self._authority.require_reach(account)
            await self._rename(account, email)
        await self._accounts.change(account.id, wanted)
        return await self.get(str(account.id))

    async def delete(self, user_id: str) -> None:
        """Shut the account out, and take it out of the teams that it does not own; to the directory it is gone.

        Raises:
            NotFoundException: there is none.
            ConflictException: it is the organization's last active owner.
        """
        account, found = await self._find(user_id)
        record = found or await self._record(account.id)
        record.removed_at = datetime.datetime.now(datetime.UTC)
        await self._accounts.change(account.id, {"is_active": False})
        places = await self._session.scalars(
            select(TeamMember)
            .where(TeamMember.user_id == account.id, TeamMember.role != "owner")
            .order_by(TeamMember.team_id)
            .with_for_update()
        )
        for place in places.all():
            await self._session.delete(place)
            await record_event(
                self._session, "team.member_removed", subject=place.team_id, payload={"user_id": account.id}
            )
        await self._session.flush()

    async def _find(self, user_id: str) -> tuple[Account, DirectoryUser | None]:
        wanted = self.query().where(Account.id == id_of(user_id)).execution_options(populate_existing=True)
        if self._lock:
            wanted = wanted.with_for_update(of=Account, key_share=True)
        row = (await self._session.execute(wanted)).one_or_none()
        if row is None:
            raise NotFoundException(detail="There is no such user.")
        account, record = row
        return account, record

    async def _record(self, user_id: UUID) -> DirectoryUser:
        found: DirectoryUser | None = await self._session.scalar(
            select(DirectoryUser).where(DirectoryUser.user_id == user_id)
        )
        if found is None:
            found = DirectoryUser(user_id=user_id)
            self._session.add(found)
        return found

    async def _open(self, email: str, name: str | None, slugs: list[str]) -> Account:
        try:
            return await self._accounts.add(email=email, hashed_password=None, name=name, roles=slugs)
        except DuplicateKeyError:
            # Another request was a moment earlier.
            raise _is_taken() from None

    async def _take_up(self, account: Account, name: str | None, slugs: list[str]) -> Account:
        record = await self._record(account.id)
        if account.is_active or record.removed_at is None:
            raise _is_taken()
        # What they were before, they are not again by itself: somebody who comes back gets what the directory says.
        await self._accounts.change(account.id, {"roles": slugs})
        await self._authority.require_reach(account)
        await self._accounts.change(account.id, {"name": name, "is_active": True})
        return account

    async def _grantable(self, slugs: list[str]) -> None:
        self._authority.require_grant(await self._accounts.roles_by_slug(slugs))

    async def _rename(self, account: Account, email: str) -> None:
        """Give the account another address: links that were mailed to the one before are worth nothing any more."""
        if await self._session.scalar(select(exists().where(Account.email == email))):
            raise _is_taken()
        account.email, account.is_verified, account.verified_at = email, False, None
        try:
            await self._accounts.flush()
        except DuplicateKeyError:
            raise _is_taken() from None
        for statement in _VOID_LINKS:
            await self._session.execute(statement, {"user_id": account.id})
        await record_event(self._session, "user.updated", subject=account.id, payload={"fields": ["email"]})


# By table name: whoever mails links is beside this package, not below it.
_VOID_LINKS = (
    text("UPDATE password_reset SET used_at = now() WHERE user_id = :user_id AND used_at IS NULL"),
    text(
        "UPDATE invitation SET expires_at = now()"
        " WHERE user_id = :user_id AND accepted_at IS NULL AND expires_at > now()"
    ),
)


def _is_taken() -> UniquenessException:
    return UniquenessException(attribute="userName", detail="There is a user of that userName already.")


def _address_of(sent: User) -> str:
    try:
        return normalize_email(sent.user_name or "", field="userName")
    except ValidationFailedException as error:
        raise InvalidValueException(detail=f"userName: {error.errors[0].message}") from error


def _parts(sent: User) -> tuple[str | None, str | None]:
    name = sent.name
    if not isinstance(name, Name):
        return None, None
    return (
        line_of(name.given_name, "name.givenName"),
        line_of(name.family_name, "name.familyName"),
    )


def _slugs(sent: User) -> list[str]:
    slugs = [held.value for held in sent.roles or []]
    if not all(slugs):
        raise InvalidValueException(detail="roles.value: expected the slug of a role of the organization")
    return list(dict.fromkeys(slug for slug in slugs if slug))


def _read(account: Account, record: DirectoryUser | None, groups: list[MemberOf]) -> User:
    given, family = (record.given_name, record.family_name) if record is not None else (None, None)
    found = User(
        id=str(account.id),
        external_id=record.external_id if record is not None else None,
        user_name=account.email,
        name=Name(given_name=given, family_name=family) if given or family else None,
        display_name=account.name,
        active=account.is_active,
        emails=[EmailAddress(value=account.email, type="work", primary=True)],
        groups=groups or None,
        roles=[RoleHeld(value=held.role.slug) for held in sorted(account.roles, key=lambda held: held.role.slug)]
        or None,
    )
    found.meta = Meta(
        resource_type="User",
        created=account.created_at,
        last_modified=max(account.updated_at, record.updated_at) if record is not None else account.updated_at,
        version=version_of(found),
    )
    return found
