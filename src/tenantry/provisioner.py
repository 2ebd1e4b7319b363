"""Composition root of the provisioner: what it can carry out, and what it does by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.domain.organization.owners import adopt_owner
from tenantry.features import PROVISION_HOOKS, SEED_HOOKS, TENANT_METADATA
from tenantry.kernel.redis import create_redis
from tenantry.kernel.security import Keyring
from tenantry.kernel.storage import Storage
from tenantry.platform.archives.format import ArchiveTables
from tenantry.platform.deletion.chore import DuePurges
from tenantry.platform.deletion.purge import PurgeHandler
from tenantry.platform.gauges import DeploymentGauges
from tenantry.platform.lifecycle.archiving import ArchiveHandler
from tenantry.platform.lifecycle.chore import ExpiredFiles
from tenantry.platform.lifecycle.cloning import CloneHandler
from tenantry.platform.lifecycle.exporting import ExportHandler
from tenantry.platform.lifecycle.importing import ImportHandler
from tenantry.platform.lifecycle.restoring import RestoreHandler
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
    tables = ArchiveTables.of(TENANT_METADATA)
    return Provisioner(
        owner_url,
        handlers=(
            CreateHandler(seeds=SEED_HOOKS, hooks=PROVISION_HOOKS),
            PurgeHandler(redis=redis, storage=storage, keyring=keyring, issuer=settings.token_issuer),
            ArchiveHandler(storage=storage, tables=tables),
            RestoreHandler(storage=storage),
            CloneHandler(tables=tables, adopt_owner=adopt_owner),
            ExportHandler(storage=storage, tables=tables, ttl=settings.export_ttl),
            ImportHandler(storage=storage, adopt_owner=adopt_owner, size_limit=settings.import_size_limit),
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
            ExpiredFiles(storage=storage, upload_ttl=settings.export_ttl),
            DeploymentGauges(warm_schemas=settings.warm_pool_size),
        ),
        listener=listener,
        closers=(redis.aclose,),
    )
