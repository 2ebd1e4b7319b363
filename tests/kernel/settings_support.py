"""Settings from variables without their prefix."""

from __future__ import annotations

import pytest

from tenantry.kernel.settings import PREFIX, Settings, SettingsError, load_settings


def problems(**variables: str) -> tuple[str, ...]:
    """What is wrong with an environment of these variables; fails if nothing is."""
    with pytest.raises(SettingsError) as caught:
        load(**variables)
    return caught.value.problems


def load(**variables: str) -> Settings:
    """The settings of an environment that has these variables and no other."""
    return load_settings({PREFIX + name: value for name, value in variables.items()})
