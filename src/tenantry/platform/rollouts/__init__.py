"""Migrating every tenant."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantry.kernel.feature import Feature

    FEATURE: Feature


def __getattr__(name: str) -> Feature:
    """The manifest, when somebody asks for it.

    `tenantry migrate tenants` runs the engine that is in this package, and does without the routes: with Litestar and
    the models it would take twice as long as migrating a thousand tenants. `tests/cli/test_migrate.py` watches it.
    """
    if name != "FEATURE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: Feature = importlib.import_module(f"{__name__}.manifest").FEATURE
    return found
