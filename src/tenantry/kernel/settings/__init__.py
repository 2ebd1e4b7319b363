"""Every setting of the service: read from the environment once, at start; refused as a whole if anything is wrong.

A variable is `TENANTRY_` and the field's name in capitals. Nothing else is read: no `.env` file, no configuration
file, so that what a container was given is what runs.
"""

from tenantry.kernel.settings.addresses import redact_url
from tenantry.kernel.settings.describe import SettingDoc, describe
from tenantry.kernel.settings.fields import PREFIX
from tenantry.kernel.settings.load import SettingsError, load_settings
from tenantry.kernel.settings.model import Settings

__all__ = ("PREFIX", "SettingDoc", "Settings", "SettingsError", "describe", "load_settings", "redact_url")
