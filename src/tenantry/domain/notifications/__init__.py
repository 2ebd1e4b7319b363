"""What people are told, in the application, of what concerns them: made of the events that manifests name."""

from tenantry.domain.notifications.controller import NotificationController
from tenantry.domain.notifications.jobs import forget_old_notifications, notify
from tenantry.domain.notifications.models import Notification, NotificationInbox, NotificationPreference
from tenantry.events.definition import NOTIFIED
from tenantry.jobs.schedule import Schedule
from tenantry.kernel.feature import Feature

FEATURE = Feature(
    name="notifications",
    controllers=(NotificationController,),
    models=(NotificationInbox, Notification, NotificationPreference),
    identifiers={"notification_id": Notification},
    jobs=(forget_old_notifications,),
    schedules=(Schedule(forget_old_notifications, "0 3 * * *", jitter=7200),),
    handlers={NOTIFIED: notify},
)
