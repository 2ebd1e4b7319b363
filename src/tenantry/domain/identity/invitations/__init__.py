"""Invitations: how a person without a password gets one."""

from tenantry.domain.identity.invitations.controller import InvitationController
from tenantry.domain.identity.invitations.models import Invitation
from tenantry.domain.identity.invitations.service import invite_owner
from tenantry.kernel.feature import Feature

FEATURE = Feature(name="invitations", controllers=(InvitationController,), models=(Invitation,), provision=invite_owner)
