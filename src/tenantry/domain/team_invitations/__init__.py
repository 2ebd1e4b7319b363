"""Invitations to teams, of users of the organization and of people who become that by one."""

from tenantry.domain.team_invitations.controller import (
    OwnTeamInvitationController,
    TeamInvitationController,
    TeamInvitationTokenController,
)
from tenantry.domain.team_invitations.dashboard import TEAM_INVITATIONS_PART
from tenantry.domain.team_invitations.handlers import forget_address, meant_for
from tenantry.domain.team_invitations.jobs import forget_old_team_invitations
from tenantry.domain.team_invitations.models import TeamInvitation
from tenantry.domain.team_invitations.schemas import TeamInvitationCopy, TeamInvitationMade, TeamInvitationOf
from tenantry.events.definition import Event
from tenantry.events.notification import NamedIn, NotificationKind
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="team_invitations",
    controllers=(TeamInvitationController, OwnTeamInvitationController, TeamInvitationTokenController),
    models=(TeamInvitation,),
    identifiers={"team_invitation_id": TeamInvitation},
    personal_data=(
        PersonalData("teamInvitationsReceived", TeamInvitation, TeamInvitationCopy, by=("user_id",), where=meant_for),
        PersonalData("teamInvitationsSent", TeamInvitation, TeamInvitationCopy, by=("invited_by_id",)),
    ),
    erasing=forget_address,
    jobs=(forget_old_team_invitations,),
    schedules=(Schedule(forget_old_team_invitations, "0 3 * * *", jitter=7200),),
    events=(
        Event("team_invitation.created", "Somebody was asked into a team.", TeamInvitationMade),
        Event("team_invitation.resent", "An invitation to a team was renewed.", TeamInvitationMade),
        Event("team_invitation.revoked", "An invitation to a team was taken back.", TeamInvitationOf),
        Event("team_invitation.accepted", "Somebody has joined a team by an invitation.", TeamInvitationMade),
        Event("team_invitation.declined", "Somebody does not want to join a team.", TeamInvitationOf),
    ),
    notifications=(
        NotificationKind("team_invitation.created", "You were asked to join a team.", NamedIn("user_id")),
        NotificationKind("team_invitation.resent", "You were asked again to join a team.", NamedIn("user_id")),
    ),
    dashboard=(TEAM_INVITATIONS_PART,),
)
