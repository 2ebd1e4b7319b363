"""The settings as they are shown to an operator."""

from __future__ import annotations

from dataclasses import dataclass

from tenantry.kernel.settings.fields import expected, shown, variable_of
from tenantry.kernel.settings.model import Settings

__all__ = ("SettingDoc", "describe")


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One setting as it is shown to an operator. `default` and `value` are text, without secrets; None when unset."""

    name: str
    variable: str
    type: str
    default: str | None
    value: str | None
    description: str
    is_set: bool


def describe(settings: Settings) -> list[SettingDoc]:
    """Document every setting, in the order of the fields, with the value that `settings` has, without secrets."""
    return [
        SettingDoc(
            name=name,
            variable=variable_of(name),
            type=expected(field),
            default=shown(name, field.default),
            value=shown(name, getattr(settings, name)),
            description=field.description or "",
            is_set=name in settings.model_fields_set,
        )
        for name, field in Settings.model_fields.items()
    ]
