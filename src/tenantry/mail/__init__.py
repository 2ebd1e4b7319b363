"""Mail of tenants: what features write to people, and the job that sends it."""

from __future__ import annotations

from tenantry.kernel.feature import Feature
from tenantry.mail.jobs import send_mail, send_platform_mail

FEATURE = Feature(name="mail", jobs=(send_mail, send_platform_mail))
