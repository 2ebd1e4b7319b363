"""Invitations: how a person without a password gets one."""

from tenantry.domain.identity.invitations.controller import AcceptController, InvitationController
from tenantry.domain.identity.invitations.dashboard import INVITATIONS_PART
from tenantry.domain.identity.invitations.handlers import whoever_invited
from tenantry.domain.identity.invitations.jobs import forget_old_invitations
from tenantry.domain.identity.invitations.mails import INVITATION_MAIL
from tenantry.domain.identity.invitations.models import Invitation
from tenantry.domain.identity.invitations.schemas import InvitationCopy, InvitationOf
from tenantry.domain.identity.invitations.service import invite_owner
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="invitations",
    controllers=(AcceptController, InvitationController),
    models=(Invitation,),
    personal_data=(PersonalData("invitations", Invitation, InvitationCopy, by=("user_id",)),),
    provision=invite_owner,
    jobs=(forget_old_invitations,),
    schedules=(Schedule(forget_old_invitations, "0 3 * * *", jitter=7200),),
    identifiers={"invitation_id": Invitation},
    events=(
        Event("invitation.created", "A person was invited.", InvitationOf),
        Event("invitation.resent", "An invitation was sent again, with another link.", InvitationOf),
        Event("invitation.revoked", "An invitation was made worthless.", InvitationOf),
        Event("invitation.accepted", "An invited person has set a password.", InvitationOf),
    ),
    mails=(INVITATION_MAIL,),
    notifications=(
        NotificationKind("invitation.accepted", "Somebody whom you have invited is here.", whoever_invited),
    ),
    dashboard=(INVITATIONS_PART,),
)
