"""Teams and their members."""

from sqlalchemy.orm import joinedload, load_only, raiseload

from tenantry.domain.teams.controller import TeamController, TeamMemberController
from tenantry.domain.teams.dashboard import TEAMS_PART
from tenantry.domain.teams.handlers import hand_over_teams
from tenantry.domain.teams.models import Team, TeamMember
from tenantry.domain.teams.queries import handed_over
from tenantry.domain.teams.schemas import (
    MemberLeft,
    MemberPlaced,
    MembershipCopy,
    OwnershipTransferred,
    TeamChanged,
    TeamFounded,
)
from tenantry.events.definition import Event
from tenantry.events.notification import NamedIn, NotificationKind
from tenantry.kernel.feature import Feature, Permission, Quota
from tenantry.kernel.personal import PersonalData
from tenantry.tenancy.entitlements import rows_of

FEATURE = Feature(
    name="teams",
    controllers=(TeamController, TeamMemberController),
    models=(Team, TeamMember),
    permissions=(
        Permission("teams:read", "See teams and who is in them.", roles=("admin", "member", "viewer")),
        Permission(
            "teams:write", "Make teams, and run those that one owns.", roles=("admin", "member"), operators=True
        ),
        Permission("teams:manage", "Run every team, whoever owns it.", operators=True),
    ),
    identifiers={"team_id": Team},
    personal_data=(
        PersonalData(
            "memberships",
            TeamMember,
            MembershipCopy,
            by=("user_id",),
            load=(
                joinedload(TeamMember.team, innerjoin=True).options(load_only(Team.slug, Team.name), raiseload("*")),
            ),
        ),
    ),
    leaving=hand_over_teams,
    events=(
        Event("team.created", "A team was made.", TeamFounded),
        Event("team.updated", "A team was changed.", TeamChanged),
        Event("team.deleted", "A team was deleted."),
        Event("team.member_added", "A user was put into a team.", MemberPlaced),
        Event("team.member_role_changed", "A member of a team was given another role in it.", MemberPlaced),
        Event("team.ownership_transferred", "A team was handed over to one of its members.", OwnershipTransferred),
        Event("team.member_removed", "A user was taken out of a team, or left it.", MemberLeft),
    ),
    notifications=(
        NotificationKind("team.member_added", "You were put into a team.", NamedIn("user_id")),
        NotificationKind("team.member_role_changed", "You were given another role in a team.", NamedIn("user_id")),
        NotificationKind("team.ownership_transferred", "A team was handed over to you, or by you.", handed_over),
        NotificationKind("team.member_removed", "You were taken out of a team.", NamedIn("user_id")),
    ),
    dashboard=(TEAMS_PART,),
    quotas=(Quota("teams", "Teams.", rows_of(Team)),),
)
