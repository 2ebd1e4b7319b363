"""Composition root of the provisioner: what it can carry out, and what it does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.features import PROVISION_HOOKS, SEED_HOOKS
from tenantry.platform.provisioning.creation import CreateHandler
from tenantry.platform.provisioning.worker import Provisioner

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings
    from tenantry.platform.provisioning.operations import StepListener

__all__ = ("create_provisioner",)


def create_provisioner(settings: Settings, owner_url: str, *, listener: StepListener | None = None) -> Provisioner:
    """The provisioner of a deployment; `run` it.

    Args:
        owner_url: where it logs in as `tenantry_owner`.
        listener: is told of every step of every operation, for progress and for tests.
    """
    return Provisioner(
        owner_url,
        handlers=(CreateHandler(seeds=SEED_HOOKS, hooks=PROVISION_HOOKS),),
        listener=listener,
    )
