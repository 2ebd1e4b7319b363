"""Composition root of the provisioner: what it can carry out, and what it does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.features import PROVISION_HOOKS, SEED_HOOKS
from tenantry.kernel.redis import create_redis
from tenantry.kernel.security import Keyring
from tenantry.kernel.storage import Storage
from tenantry.platform.deletion.chore import DuePurges
from tenantry.platform.deletion.purge import PurgeHandler
from tenantry.platform.provisioning.creation import CreateHandler
from tenantry.platform.provisioning.warm import WarmPool
from tenantry.platform.provisioning.worker import Provisioner
from tenantry.platform.rollouts.chore import RolloutChore
from tenantry.tenancy.wiring import required

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
    # Patient, unlike the API's: nobody waits for an answer, and a SCAN over everybody's keys takes a while.
    redis = create_redis(required(settings.redis_url), timeout=5.0, max_connections=4)
    storage = Storage.open(settings)
    keyring = Keyring.open(settings.keyring_path, retain=settings.keyring_retain)
    return Provisioner(
        owner_url,
        handlers=(
            CreateHandler(seeds=SEED_HOOKS, hooks=PROVISION_HOOKS),
            PurgeHandler(redis=redis, storage=storage, keyring=keyring, issuer=settings.token_issuer),
        ),
        chores=(
            WarmPool(
                size=settings.warm_pool_size,
                batch=settings.warm_pool_batch,
                interval=settings.warm_pool_interval,
                seeds=SEED_HOOKS,
            ),
            RolloutChore(owner_url, settings),
            DuePurges(settle=settings.registry_stale_after),
        ),
        listener=listener,
        closers=(redis.aclose,),
    )
