"""Teams and their members."""

from tenantry.domain.teams.controller import TeamController, TeamMemberController
from tenantry.domain.teams.models import Team, TeamMember
from tenantry.kernel.feature import Feature, Permission

FEATURE = Feature(
    name="teams",
    controllers=(TeamController, TeamMemberController),
    models=(Team, TeamMember),
    permissions=(
        Permission("teams:read", "See teams and who is in them.", roles=("admin", "member", "viewer")),
        Permission("teams:write", "Make teams, and run those that one owns.", roles=("admin", "member")),
        Permission("teams:manage", "Run every team, whoever owns it."),
    ),
    identifiers={"team_id": Team},
)
