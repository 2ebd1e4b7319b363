"""Teams as SCIM's groups.

A directory that makes a team is in charge of who is in it, so its teams have no owner among their members: they are
run by the directory, and by whoever may run every team. Whether it may take out, or delete, what people made is told
at `delete` and `_take_out`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from uuid import UUID

from scim2_models import InvalidValueException, Meta, NotFoundException, Reference
from sqlalchemy import ColumnElement, Select, String, and_, cast, delete, func, literal, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import raiseload

from tenantry.domain.identity.users.models import User as Account
from tenantry.domain.scim.filters import Attribute, AttributeMap, Many
from tenantry.domain.scim.models import DirectoryGroup, DirectoryUser
from tenantry.domain.scim.resources import Group, Member
from tenantry.domain.scim.users import is_visible_user
from tenantry.domain.scim.values import id_of, line_of, tag_of
from tenantry.domain.teams.models import Team, TeamMember
from tenantry.domain.teams.service import LAST_TEAM_OWNER, TeamService
from tenantry.events.record import record_event
from tenantry.kernel.errors import ConflictException

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ("GROUP_ATTRIBUTES", "DirectoryGroups", "is_visible_group", "member_of")

_AT_ONCE = 1000
"""Ids that one statement names."""
_MOST_SHOWN = 5000
"""Members of all groups on a page together."""


def is_visible_group() -> ColumnElement[bool]:
    """Of teams with their directory rows beside them: those that the directory has not let go of."""
    return DirectoryGroup.removed_at.is_(None)


def _with_member(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    found = (
        select(TeamMember.id)
        .join(Account, Account.id == TeamMember.user_id)
        .outerjoin(DirectoryUser, DirectoryUser.user_id == Account.id)
    )
    return found.where(TeamMember.team_id == Team.id, is_visible_user(), condition).correlate(Team).exists()


GROUP_ATTRIBUTES: AttributeMap = {
    "id": Attribute(cast(Team.id, String), exact=True),
    "externalid": Attribute(DirectoryGroup.external_id.expression, exact=True),
    "displayname": Attribute(Team.name.expression),
    "members": Many(
        _with_member,
        {
            "value": Attribute(cast(Account.id, String), exact=True),
            "type": Attribute(literal("User")),
        },
    ),
    "meta.created": Attribute(Team.created_at.expression, kind=datetime.datetime),
    "meta.lastmodified": Attribute(func.greatest(Team.updated_at, DirectoryGroup.updated_at), kind=datetime.datetime),
    "meta.resourcetype": Attribute(literal("Group"), exact=True),
}


class DirectoryGroups:
    """Reads and writes groups in one transaction."""

    def __init__(self, session: AsyncSession, *, lock: bool) -> None:
        """`lock` the rows that are read, as a request that writes does: of two changes the second sees the first."""
        self._session = session
        self._lock = lock
        self._teams = TeamService(session=session)

    # Reading.

    def query(self) -> Select[Any, Any]:
        """Groups that are there, each with what the directory says of them."""
        return (
            select(Team, DirectoryGroup)
            .outerjoin(DirectoryGroup, DirectoryGroup.team_id == Team.id)
            .options(raiseload(Team.tags))
            .where(is_visible_group())
        )

    async def get(self, group_id: str, *, members: bool = True) -> Group:
        """One group, with its members unless nobody is shown them.

        Raises:
            NotFoundException: there is none of that id, or the directory let go of it.
        """
        team, record = await self._find(group_id)
        return (await self.read([(team, record)], members=members))[0]

    async def read(self, rows: Sequence[tuple[Team, DirectoryGroup | None]], *, members: bool = True) -> list[Group]:
        """These rows on the wire. With their members, as many of them, and at least one, as have `_MOST_SHOWN`.

        A page may be shorter than it was asked to be (RFC 7644 §3.4.2.4); what comes of groups is unbounded otherwise.
        """
        if not rows:
            return []
        digest = func.md5(func.string_agg(cast(Account.id, String), aggregate_order_by(literal(","), Account.id)))
        tallied = self._members_of([team.id for team, _ in rows], TeamMember.team_id, func.count(), digest)
        tallies = {
            team_id: (count, found)
            for team_id, count, found in await self._session.execute(tallied.group_by(TeamMember.team_id))
        }
        inside: dict[UUID, list[Member]] = {}
        if members:
            shown = accumulate(tallies.get(team.id, (0, ""))[0] for team, _ in rows)
            rows = [
                row
                for number, (row, sum_) in enumerate(zip(rows, shown, strict=True))
                if not number or sum_ <= _MOST_SHOWN
            ]
            listed = self._members_of([team.id for team, _ in rows], TeamMember.team_id, Account.id)
            for team_id, user_id in await self._session.execute(listed.order_by(Account.id)):
                inside.setdefault(team_id, []).append(member_of(str(user_id)))
        return [_read(team, record, inside.get(team.id, []), tallies.get(team.id, (0, ""))[1]) for team, record in rows]

    @staticmethod
    def _members_of(team_ids: list[UUID], *columns: Any) -> Select[Any]:
        return (
            select(*columns)
            .select_from(TeamMember)
            .join(Account, Account.id == TeamMember.user_id)
            .outerjoin(DirectoryUser, DirectoryUser.user_id == Account.id)
            .where(TeamMember.team_id.in_(team_ids), is_visible_user())
        )

    # Writing.

    async def create(self, sent: Group) -> Group:
        """A new team; or one of that name that the directory had let go of, taken up again.

        Raises:
            InvalidValueException: something of it is not acceptable, or a member is nobody of the organization.
        """
        name = _name_of(sent)
        row = (
            await self._session.execute(
                select(Team, DirectoryGroup)
                .join(DirectoryGroup, DirectoryGroup.team_id == Team.id)
                .options(raiseload(Team.tags))
                .where(DirectoryGroup.removed_at.is_not(None), Team.name == name)
                .order_by(Team.id)
                .limit(1)
                .with_for_update()
            )
        ).one_or_none()
        if row is None:
            team = await self._teams.found(name=name, slug=None, description=None, tags=[], owner_id=None)
            record = DirectoryGroup(team_id=team.id, is_provisioned=True)
            self._session.add(record)
        else:
            team, record = row
            record.removed_at = None
        record.external_id = line_of(sent.external_id, "externalId", most=255)
        await self._session.flush()
        await self._set_members(team.id, _member_ids(sent))
        return await self.get(str(team.id))

    async def update(self, sent: Group) -> Group:
        """Bring the team to this state; what is as it was is not touched.

        Raises:
            NotFoundException: there is none.
            InvalidValueException: something of it is not acceptable, or a member is nobody of the organization.
            ConflictException: the team would be left without its last owner.
        """
        team, record = await self._find(str(sent.id))
        name = _name_of(sent)
        if name != team.name:
            await self._teams.change(team.id, {"name": name})
        external_id = line_of(sent.external_id, "externalId", most=255)
        if record is None:
            record = DirectoryGroup(team_id=team.id, is_provisioned=False)
            self._session.add(record)
        record.external_id = external_id
        await self._session.flush()
        await self._set_members(team.id, _member_ids(sent))
        return await self.get(str(team.id))

    async def delete(self, group_id: str) -> None:
        """Delete a team that the directory made. One that people made stays theirs, and the directory lets go of it.

        Raises:
            NotFoundException: there is none.
            advanced_alchemy.exceptions.IntegrityError: something holds on to the team.
        """
        team, record = await self._find(group_id)
        if record is not None and record.is_provisioned:
            await self._teams.remove(team.id)
            return
        if record is None:
            record = DirectoryGroup(team_id=team.id, is_provisioned=False)
            self._session.add(record)
        record.removed_at = datetime.datetime.now(datetime.UTC)
        await self._session.flush()

    async def _find(self, group_id: str) -> tuple[Team, DirectoryGroup | None]:
        wanted = self.query().where(Team.id == id_of(group_id)).execution_options(populate_existing=True)
        if self._lock:
            # The lock of the teams' own service, behind which owners leave one after the other.
            wanted = wanted.with_for_update(of=Team)
        row = (await self._session.execute(wanted)).one_or_none()
        if row is None:
            raise NotFoundException(detail="There is no such group.")
        team, record = row
        return team, record

    async def _set_members(self, team_id: UUID, wanted: set[UUID]) -> None:
        there = set(
            await self._session.scalars(
                select(TeamMember.user_id)
                .join(Account, Account.id == TeamMember.user_id)
                .outerjoin(DirectoryUser, DirectoryUser.user_id == Account.id)
                # Whom the directory deleted it does not see, so leaving them out says nothing of them.
                .where(TeamMember.team_id == team_id, is_visible_user())
            )
        )
        await self._put_in(team_id, wanted - there)
        await self._take_out(team_id, there - wanted)

    async def _put_in(self, team_id: UUID, user_ids: set[UUID]) -> None:
        known: set[UUID] = set()
        for some in _batches(user_ids):
            known |= set(
                await self._session.scalars(
                    select(Account.id)
                    .outerjoin(DirectoryUser, DirectoryUser.user_id == Account.id)
                    .where(Account.id.in_(some), is_visible_user())
                )
            )
        if user_ids - known:
            raise InvalidValueException(detail="members.value: expected ids of users of the organization")
        self._session.add_all(
            [TeamMember(team_id=team_id, user_id=user_id, role="member") for user_id in sorted(user_ids)]
        )
        await self._session.flush()
        for user_id in sorted(user_ids):
            payload = {"user_id": user_id, "role": "member"}
            await record_event(self._session, "team.member_added", subject=team_id, payload=payload)

    async def _take_out(self, team_id: UUID, user_ids: set[UUID]) -> None:
        """Take members out, owners included: who runs every team may do so as well. The last active one stays."""
        if not user_ids:
            return
        owners = (
            await self._session.execute(
                select(TeamMember.user_id, Account.is_active)
                .join(Account, Account.id == TeamMember.user_id)
                .where(TeamMember.team_id == team_id, TeamMember.role == "owner")
            )
        ).all()
        leaving = {owner for owner, _ in owners} & user_ids
        if leaving and not any(is_active and owner not in leaving for owner, is_active in owners):
            raise ConflictException("This is the team's last owner.", problem=LAST_TEAM_OWNER)
        for some in _batches(user_ids):
            await self._session.execute(
                delete(TeamMember).where(and_(TeamMember.team_id == team_id, TeamMember.user_id.in_(some))),
                execution_options={"synchronize_session": False},
            )
        for user_id in sorted(user_ids):
            await record_event(self._session, "team.member_removed", subject=team_id, payload={"user_id": user_id})


def _batches(user_ids: Iterable[UUID]) -> Iterable[list[UUID]]:
    ordered = sorted(user_ids)
    return (ordered[start : start + _AT_ONCE] for start in range(0, len(ordered), _AT_ONCE))


def _name_of(sent: Group) -> str:
    name = line_of(sent.display_name, "displayName")
    if name is None:
        raise InvalidValueException(detail="displayName: expected text on one line that is not blank")
    return name


def _member_ids(sent: Group) -> set[UUID]:
    if any((member.type or "User").lower() != "user" for member in sent.members or []):
        raise InvalidValueException(detail="members.type: groups hold users, and no groups")
    return {id_of(member.value or "") for member in sent.members or []}


def member_of(user_id: str) -> Member:
    """A member on the wire; not validated once more, since a group may have thousands."""
    return Member.model_construct(value=user_id, ref=Reference(f"Users/{user_id}"), type="User")


def _read(team: Team, record: DirectoryGroup | None, members: list[Member], digest: str) -> Group:
    external_id = record.external_id if record is not None else None
    found = Group(id=str(team.id), external_id=external_id, display_name=team.name)
    found.meta = Meta(
        resource_type="Group",
        created=team.created_at,
        last_modified=max(team.updated_at, record.updated_at) if record is not None else team.updated_at,
        version=tag_of([team.name, external_id, digest]),
    )
    # Past the validation of an assignment, likewise.
    found.__dict__["members"] = members or None
    return found
