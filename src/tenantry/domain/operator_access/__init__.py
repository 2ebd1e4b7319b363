"""Operators of the platform come in with the organization's consent, or tell its owners at once."""

from tenantry.domain.operator_access.controller import OperatorAccessController
from tenantry.domain.operator_access.door import OWNERS
from tenantry.domain.operator_access.mails import ACCESS_REQUESTED_MAIL, GLASS_BROKEN_MAIL
from tenantry.domain.operator_access.models import (
    OperatorAccessGrant,
    OperatorAccessNotice,
    OperatorAccessRequest,
    OperatorAccessSession,
)
from tenantry.domain.operator_access.schemas import (
    AccessClosed,
    AccessGranted,
    AccessOpened,
    AccessRequested,
    AccessRequestOf,
    AccessUsed,
    GrantOf,
)
from tenantry.events.definition import Event
from tenantry.events.notification import NotificationKind
from tenantry.kernel.feature import Feature, Permission
from tenantry.kernel.personal import NotCopied

_ACTS = "who has decided it for the organization; the act is in the person's section `acts`"

FEATURE = Feature(
    name="operator_access",
    controllers=(OperatorAccessController,),
    models=(OperatorAccessGrant, OperatorAccessRequest, OperatorAccessSession, OperatorAccessNotice),
    permissions=(
        # Not for operators: what the organization has granted to others is not theirs to know.
        Permission("operator_access:read", "See which operators of the platform were let in.", operators=False),
        # The owners' alone to give, and in no built-in role besides.
        Permission("operator_access:manage", "Let operators of the platform in, and put them out.", roles=()),
    ),
    identifiers={
        "grant_id": OperatorAccessGrant,
        "access_request_id": OperatorAccessRequest,
        "access_session_id": OperatorAccessSession,
    },
    personal_data=(
        NotCopied(OperatorAccessGrant, ("granted_by_id", "revoked_by_id"), _ACTS),
        NotCopied(OperatorAccessRequest, ("answered_by_id",), _ACTS),
        NotCopied(OperatorAccessNotice, ("user_id",), "that they were written to; what of is the organization's"),
    ),
    mails=(ACCESS_REQUESTED_MAIL, GLASS_BROKEN_MAIL),
    events=(
        Event("operator_access.granted", "An owner has let operators of the platform in.", AccessGranted),
        Event("operator_access.revoked", "A grant was taken back, and whom it let in put out.", GrantOf),
        Event("operator_access.requested", "An operator of the platform has asked to be let in.", AccessRequested),
        Event("operator_access.declined", "What an operator had asked for was declined.", AccessRequestOf),
        Event("operator_access.opened", "An operator has come in, by a grant.", AccessOpened),
        Event("operator_access.glass_broken", "An operator has come in without a grant.", AccessOpened),
        Event("operator_access.used", "An operator who was let in has sent a request.", AccessUsed),
        Event("operator_access.closed", "An operator has left, or was put out.", AccessClosed),
    ),
    notifications=(
        NotificationKind("operator_access.granted", "Somebody has let operators of the platform in.", OWNERS),
        NotificationKind("operator_access.requested", "An operator of the platform asks to be let in.", OWNERS),
        NotificationKind("operator_access.opened", "An operator of the platform has come in, by a grant.", OWNERS),
        NotificationKind(
            "operator_access.glass_broken",
            "An operator of the platform has come in without your consent, in an emergency.",
            OWNERS,
        ),
    ),
)
