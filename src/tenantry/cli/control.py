"""The control plane in this process: what a command needs to call the services that the API calls."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.home import complete
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import load_settings
from tenantry.platform.tenants.creation import TenantCreator
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.context import TenantContext, control_scope
from tenantry.tenancy.plan import PlanLimits
from tenantry.tenancy.wiring import create_database, create_hasher, open_vault, scope_times

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tenantry.kernel.security import PasswordHasher, Vault
    from tenantry.kernel.settings import Settings
    from tenantry.kernel.storage import Storage
    from tenantry.platform.lifecycle.service import Lifecycle
    from tenantry.platform.tenant_access.service import TenantAccess
    from tenantry.tenancy.context import ScopeTimes
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.models import Tenant
    from tenantry.tenancy.scope import Scope

__all__ = ("ControlPlane", "control_plane")


@dataclass
class ControlPlane:
    """A small pool, logged in as the application, and what is made of it."""

    settings: Settings
    database: Database
    times: ScopeTimes

    @property
    def read_scope(self) -> Scope:
        return control_scope(self.times, read_only=True)

    @property
    def write_scope(self) -> Scope:
        return control_scope(self.times, read_only=False)

    @cached_property
    def hasher(self) -> PasswordHasher:
        return create_hasher(self.settings)

    @property
    def creator(self) -> TenantCreator:
        # All the domains: what only looks at tenants need not wait for them.
        from tenantry.features import PROVISION_HOOKS

        return TenantCreator(
            database=self.database,
            times=self.times,
            hasher=self.hasher,
            settings=self.settings,
            hooks=PROVISION_HOOKS,
            vault=lambda: self.vault,
        )

    @cached_property
    def vault(self) -> Vault:
        """Seals what waits to be mailed.

        Raises:
            VaultError: there is none, or it is damaged or open to others.
        """
        vault = open_vault(self.settings, create=False)
        vault.open()
        return vault

    def require_mail(self) -> None:
        """See to it that something can be mailed, before anything is done.

        Raises:
            CommandError: there is no mail server.
            VaultError: nothing can be sealed.
        """
        if self.settings.mail_url is None:
            raise CommandError("--mail needs a mail server: TENANTRY_MAIL_URL is not set", ExitCode.USAGE)
        _ = self.vault

    @cached_property
    def storage(self) -> Storage:
        from tenantry.kernel.storage import Storage

        return Storage.open(self.settings)

    @property
    def lifecycle(self) -> Lifecycle:
        from tenantry.platform.lifecycle.service import Lifecycle

        return Lifecycle(
            database=self.database,
            read_scope=self.read_scope,
            write_scope=self.write_scope,
            hasher=self.hasher,
            settings=self.settings,
            storage=lambda: self.storage,
        )

    @cached_property
    def tenant_access(self) -> TenantAccess:
        # Its events and mails, and those of all domains.
        import tenantry.features  # noqa: F401
        from tenantry.domain.operator_access.door import OperatorDoor
        from tenantry.kernel.security import Keyring, Tokens
        from tenantry.platform.tenant_access.service import TenantAccess

        def tokens() -> Tokens:
            keyring = Keyring.open(self.settings.keyring_path, retain=self.settings.keyring_retain)
            return Tokens(keyring, self.settings.token_issuer)

        return TenantAccess(
            database=self.database,
            read_scope=self.read_scope,
            write_scope=self.write_scope,
            times=self.times,
            settings=self.settings,
            tokens=tokens,
            door=OperatorDoor(self.settings),
        )

    async def tenant(self, slug: str) -> Tenant:
        """The tenant of that slug.

        Raises:
            ResourceNotFoundException: there is none.
        """
        async with self.database.transaction(self.read_scope) as transaction:
            return await TenantService(session=transaction.session).by_slug(slug)

    def context(self, tenant: Tenant) -> TenantContext:
        """A tenant's scopes, with the deployment's time limits."""
        return TenantContext.build(
            tenant_id=tenant.id,
            slug=tenant.slug,
            name=tenant.name,
            status=tenant.status,
            plan=PlanLimits(slug=tenant.plan),
            times=self.times,
            revision=tenant.revision,
        )


@asynccontextmanager
async def control_plane(settings: Settings | None = None) -> AsyncIterator[ControlPlane]:
    """Open one; by default with the settings of the environment, completed from the home folder.

    Raises:
        SettingsError: they are wrong, or there is no address.
    """
    settings = complete(load_settings(), redis=False) if settings is None else settings
    # Events go to stderr: stdout is for the answer.
    configure_logging("WARNING", settings.log_format)
    database = create_database(settings, application_name="tenantry-cli", pool_size=2)
    control = ControlPlane(settings=settings, database=database, times=scope_times(settings))
    try:
        yield control
    finally:
        await database.close()
        if "hasher" in vars(control):
            control.hasher.close()
