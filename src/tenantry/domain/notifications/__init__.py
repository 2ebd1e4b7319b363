"""What people are told, in the application, of what concerns them: made of the events that manifests name."""

from tenantry.domain.notifications.controller import NotificationController
from tenantry.domain.notifications.dashboard import NOTIFICATIONS_PART
from tenantry.domain.notifications.jobs import end_streams, forget_old_notifications, notify
from tenantry.domain.notifications.models import Notification, NotificationInbox, NotificationPreference
from tenantry.domain.notifications.schemas import NotificationPreferenceCopy, NotificationRead
from tenantry.events.definition import NOTIFIED
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature
from tenantry.kernel.personal import NotCopied, PersonalData

FEATURE = Feature(
    name="notifications",
    controllers=(NotificationController,),
    models=(NotificationInbox, Notification, NotificationPreference),
    identifiers={"notification_id": Notification},
    jobs=(forget_old_notifications,),
    schedules=(Schedule(forget_old_notifications, "0 3 * * *", jitter=7200),),
    handlers={NOTIFIED: notify, "user.deactivated": end_streams, "user.erased": end_streams},
    personal_data=(
        PersonalData("notifications", Notification, NotificationRead, by=("user_id",)),
        PersonalData("notificationPreferences", NotificationPreference, NotificationPreferenceCopy, by=("user_id",)),
        NotCopied(NotificationInbox, ("id",), "how many notifications there were, which are copied themselves"),
    ),
    dashboard=(NOTIFICATIONS_PART,),
)
