"""Composition root of the API: the objects, the routes, and what surrounds them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from litestar import Litestar, Request, Router
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from sqlalchemy import text

from tenantry import __version__
from tenantry.domain.dashboard.service import Dashboards
from tenantry.domain.idempotency.service import IdempotencyKeys, Replay, replay_answer
from tenantry.domain.identity.address_changes.service import EmailChanges
from tenantry.domain.identity.api_keys.last_use import LastUses
from tenantry.domain.identity.factors.desk import FactorDesk
from tenantry.domain.identity.factors.gate import FactorGate
from tenantry.domain.identity.factors.relying_party import RelyingParty
from tenantry.domain.identity.invitations.service import Invitations
from tenantry.domain.identity.passwords.changing import PasswordChanges
from tenantry.domain.identity.passwords.service import PasswordResets
from tenantry.domain.identity.sessions.confirmation import PasswordCheck
from tenantry.domain.identity.sessions.guessing import LoginGuard
from tenantry.domain.identity.sessions.last_use import session_uses
from tenantry.domain.identity.sessions.service import Authenticator
from tenantry.domain.identity.sessions.throttle import LoginThrottle
from tenantry.domain.identity.sign_up.service import SignUps
from tenantry.domain.identity.sso.discovery import Providers
from tenantry.domain.identity.sso.flow import SingleSignOn
from tenantry.domain.identity.verification.service import EmailVerifications
from tenantry.domain.notifications.listeners import Listeners
from tenantry.domain.notifications.stream import NotificationStreams
from tenantry.domain.operator_access.door import OperatorDoor
from tenantry.domain.operator_access.principal import load_principal
from tenantry.domain.roles.catalogue import PermissionCatalogue
from tenantry.domain.team_invitations.joining import TeamInvitations
from tenantry.features import DOMAIN_FEATURES, PLATFORM_FEATURES, PROVISION_HOOKS, SCHEDULES, USAGE_HOOKS
from tenantry.jobs.ring import Ring
from tenantry.jobs.state import JobStates
from tenantry.kernel.garbage import keep_what_there_is
from tenantry.kernel.health import HealthCheck, jwks, live, ready
from tenantry.kernel.home import complete
from tenantry.kernel.http import edge
from tenantry.kernel.http.address import parse_networks
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.http.shutdown import Shutdown
from tenantry.kernel.line import Line
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.metrics import BUSIEST, OPEN_STREAMS, MetricsGuard, keep_sampling, sampling
from tenantry.kernel.openapi import OPERATOR_TOKEN, TENANT_TOKEN
from tenantry.kernel.redis import create_redis, sample_redis
from tenantry.kernel.security import Keyring, Tokens
from tenantry.kernel.settings import Settings, load_settings
from tenantry.kernel.storage import Storage
from tenantry.kernel.tracing import start_tracing, stop_tracing
from tenantry.platform.access import PlatformMiddleware, load_operator_principal
from tenantry.platform.deletion.service import Purger
from tenantry.platform.directory.service import Organizations
from tenantry.platform.jobs.service import JobControl
from tenantry.platform.lifecycle.service import Lifecycle
from tenantry.platform.operators.service import OperatorAuthenticator
from tenantry.platform.rollouts.events import RolloutEvents
from tenantry.platform.signup.service import Signups
from tenantry.platform.strangers.service import Brake, Limits
from tenantry.platform.tenant_access.service import TenantAccess
from tenantry.platform.tenants.creation import TenantCreator
from tenantry.platform.usage.service import Metering
from tenantry.tenancy.admission import Admission
from tenantry.tenancy.cache import TenantCache
from tenantry.tenancy.capacity import check_connections
from tenantry.tenancy.context import control_scope
from tenantry.tenancy.counting import UseCounter
from tenantry.tenancy.declared import Declared, begin_declared, declare_routes, describe_declared
from tenantry.tenancy.guards import requires_active_user
from tenantry.tenancy.metrics import sample_registry
from tenantry.tenancy.parallel import ParallelReads
from tenantry.tenancy.rates import RateLimiter
from tenantry.tenancy.registry import TenantRegistry
from tenantry.tenancy.request import HostNames, TenantMiddleware, provide_session, tenant_request
from tenantry.tenancy.scope import HEALTH_ACCOUNT
from tenantry.tenancy.use import UseMarks
from tenantry.tenancy.wiring import (
    create_database,
    create_hasher,
    create_redis_breaker,
    create_replica,
    open_vault,
    required,
    scope_times,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from litestar.types import ASGIApp

    from tenantry.tenancy.database import Database

__all__ = ("create_app", "create_asgi", "serve_app")


_EXPOSED = (
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
)
"""Headers of answers that pages of other origins may read; of themselves browsers would show none of these."""


def create_app(settings: Settings, *, database: Database | None = None) -> Litestar:
    """The Litestar application, without what surrounds it; `database` replaces the pool that the settings describe."""
    BUSIEST.most = settings.metrics_tenants
    database = database or create_database(settings, application_name="tenantry-api", shared=True)
    replica = create_replica(settings, database, application_name="tenantry-api-replica")
    times = scope_times(settings)
    control_read, control_write = control_scope(times, read_only=True), control_scope(times, read_only=False)
    health_read = replace(control_read, account=HEALTH_ACCOUNT)
    keyring = Keyring.open(settings.keyring_path, retain=settings.keyring_retain)
    vault = open_vault(settings, create=True)
    tokens = Tokens(keyring, settings.token_issuer)
    hasher = create_hasher(settings)
    shutdown = Shutdown(settings.serve_drain)

    # When it is first needed: a process that fetches no export may run without a folder to write to.
    @cache
    def open_storage() -> Storage:
        return Storage.open(settings)

    registry = TenantRegistry(
        settings.database_listen_url or required(settings.database_url),
        times=times,
        poll_interval=settings.registry_poll_interval,
        stale_after=settings.registry_stale_after,
        connect_timeout=settings.database_connect_timeout,
    )
    redis = create_redis(required(settings.redis_url), timeout=settings.redis_timeout)
    redis_breaker = create_redis_breaker(redis)
    line = Line(redis, redis_breaker, timeout=settings.redis_timeout)
    use = UseCounter(redis, line)
    # Of its own: its values are larger than what the limits ask.
    cache_line = Line(redis, redis_breaker, timeout=settings.redis_timeout)
    tenant_cache = TenantCache(cache_line)
    database.followers.append(tenant_cache.follow)
    rates = RateLimiter(redis, line, use, settings, trusted=parse_networks(settings.trusted_proxies))
    use_marks = UseMarks(redis)
    job_states = JobStates(Ring(redis))
    job_control = JobControl(database=database, read_scope=control_read, write_scope=control_write, states=job_states)
    throttle = LoginGuard(
        redis,
        database,
        failures=settings.login_failures,
        address_failures=settings.login_address_failures,
        lock=settings.login_window,
    )
    relying_party = RelyingParty(settings)
    authenticator = Authenticator(
        database=database,
        registry=registry,
        tokens=tokens,
        hasher=hasher,
        settings=settings,
        throttle=throttle,
        second_factor=FactorGate(relying_party, ttl=settings.second_factor_ttl),
    )

    sso_providers = Providers(settings)
    password_check = PasswordCheck(
        database=database,
        hasher=hasher,
        throttle=LoginThrottle(
            redis,
            failures=settings.login_failures,
            window=settings.login_window,
            what="password-check",
            refusal="Too many wrong passwords were given for this account.",
        ),
    )

    def mail_throttle(what: str) -> LoginThrottle:
        return LoginThrottle(
            redis,
            failures=settings.account_mails,
            window=86_400,
            what=what,
            refusal="Enough was mailed to this address today.",
        )

    listeners = Listeners(
        redis,
        registry,
        shutdown,
        most=settings.stream_limit,
        most_per_tenant=settings.stream_limit_per_tenant,
        most_per_user=settings.stream_limit_per_user,
    )

    async def ask_database() -> None:
        async with database.transaction(health_read) as transaction:
            await transaction.session.execute(text("SELECT 1"))

    async def ask_redis() -> None:
        await cast("Awaitable[bool]", redis.ping())

    async def ask_registry() -> None:
        if not registry.is_fresh:
            raise TimeoutError("the registry is stale")

    async def ask_shutdown() -> None:
        if shutdown.is_draining:
            raise TimeoutError("the process is about to end")

    async def ask_replica() -> None:
        if replica is not None and not replica.is_open:
            raise TimeoutError("reads go to the primary")

    def sample() -> None:
        sample_registry(registry)
        sample_redis(redis)
        OPEN_STREAMS.set(len(listeners))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await registry.start()
        if replica is not None:
            await replica.start()
        beside = [asyncio.create_task(check_connections(settings, database, control_read), name="connections")]
        samplers = [database.sample, sample] + ([replica.database.sample] if replica is not None else [])
        try:
            with shutdown.watch(), sampling(*samplers):
                async with listeners.open(), use_marks.open(), rates.open():
                    beside.append(asyncio.create_task(keep_sampling(), name="metrics"))
                    yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
            if replica is not None:
                await replica.stop()
            if settings.tracing_url is not None:
                await asyncio.to_thread(stop_tracing)
            await registry.stop()
            await redis_breaker.stop()
            await line.close()
            await cache_line.close()
            await redis.aclose()
            await database.close()
            hasher.close()

    creator = TenantCreator(
        database=database,
        times=times,
        hasher=hasher,
        settings=settings,
        hooks=PROVISION_HOOKS,
        registry=registry,
        vault=lambda: vault,
    )

    hosts = HostNames(registry, settings.base_domain)
    admission = Admission.of(settings)

    # Functions, since Litestar copies the arguments of a DefineMiddleware in depth, pools and all.
    def tenant_middleware(app: ASGIApp) -> ASGIApp:
        return TenantMiddleware(
            app,
            database=database,
            registry=registry,
            tokens=tokens,
            hosts=hosts,
            rates=rates,
            admission=admission,
            replica=replica,
            use_marks=use_marks,
        )

    def platform_middleware(app: ASGIApp) -> ASGIApp:
        return PlatformMiddleware(
            app, database=database, tokens=tokens, read_scope=control_read, write_scope=control_write
        )

    keys = IdempotencyKeys(vault, ttl=settings.idempotency_ttl)

    async def before_request(request: Request[Any, Any, Any]) -> None:
        await begin_declared(request, tenant_request(request), keys.claim)

    tenant_router = Router(
        "/api",
        route_handlers=[
            *(controller for feature in DOMAIN_FEATURES for controller in feature.controllers),
            *(controller for feature in PLATFORM_FEATURES for controller in feature.public_controllers),
        ],
        middleware=[tenant_middleware],
        guards=[requires_active_user],
        opt={"load_principal": load_principal},
        before_request=before_request,
        exception_handlers={Replay: replay_answer},
        security=[{TENANT_TOKEN: []}],
    )
    platform_router = Router(
        "/platform",
        route_handlers=[controller for feature in PLATFORM_FEATURES for controller in feature.controllers],
        middleware=[platform_middleware],
        guards=[requires_active_user],
        opt={"load_principal": load_operator_principal},
        security=[{OPERATOR_TOKEN: []}],
    )
    declared: dict[str, Declared] = {}
    app = Litestar(
        route_handlers=[tenant_router, platform_router, live, ready, jwks],
        dependencies={"db_session": Provide(provide_session)},
        plugins=[
            HttpPlugin(
                title="Tenantry",
                version=__version__,
                description="The multi-tenant backend: organizations under /api, operators under /platform.",
                amend=lambda operation: describe_declared(declared, operation),
            )
        ],
        cors_config=_cors(settings),
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=None,
    )
    identifiers = {name: model for feature in DOMAIN_FEATURES for name, model in feature.identifiers.items()}
    declared.update(declare_routes(app.routes, identifiers, below=f"{tenant_router.path}/"))
    # Not through the constructor, which copies what it is given in depth.
    app.state.update(
        {
            "settings": settings,
            "shutdown": shutdown,
            "database": database,
            "replica": replica,
            "registry": registry,
            "keyring": keyring,
            "vault": vault,
            "hasher": hasher,
            "redis": redis,
            "cache": tenant_cache,
            "redis_breaker": redis_breaker,
            "redis_line": line,
            "rates": rates,
            "use": use,
            "admission": admission,
            "permissions": PermissionCatalogue(
                permission for feature in DOMAIN_FEATURES for permission in feature.permissions
            ),
            "authenticator": authenticator,
            "factor_desk": FactorDesk(
                database=database,
                registry=registry,
                authenticator=authenticator,
                hasher=hasher,
                settings=settings,
                vault=vault,
                throttle=throttle,
                redis=redis,
                party=relying_party,
            ),
            "last_uses": LastUses(database),
            "session_uses": session_uses(database),
            "trusted_proxies": parse_networks(settings.trusted_proxies),
            "dashboards": Dashboards(
                DOMAIN_FEATURES,
                ParallelReads(
                    database,
                    at_once=settings.database_parallel_reads,
                    together=max(1, settings.database_pool_size // 2),
                    cache=tenant_cache,
                ),
            ),
            "invitations": Invitations(
                database=database,
                registry=registry,
                authenticator=authenticator,
                hasher=hasher,
                settings=settings,
            ),
            "team_invitations": TeamInvitations(
                database=database,
                registry=registry,
                authenticator=authenticator,
                hasher=hasher,
                settings=settings,
                vault=vault,
            ),
            "email_verifications": EmailVerifications(
                database=database,
                registry=registry,
                settings=settings,
                vault=vault,
                throttle=mail_throttle("email-verification"),
            ),
            "password_changes": PasswordChanges(
                database=database, hasher=hasher, settings=settings, password_check=password_check
            ),
            "email_changes": EmailChanges(
                database=database,
                registry=registry,
                settings=settings,
                vault=vault,
                password_check=password_check,
                throttle=mail_throttle("email-change"),
            ),
            "sign_ups": SignUps(
                database=database,
                registry=registry,
                authenticator=authenticator,
                hasher=hasher,
                settings=settings,
                vault=vault,
                throttle=mail_throttle("sign-up"),
                organization_throttle=LoginThrottle(
                    redis,
                    failures=settings.member_sign_up_requests,
                    window=3600,
                    what="sign-ups",
                    refusal="Too many people ask to sign up to this organization.",
                ),
            ),
            "invitation_throttle": LoginThrottle(
                redis,
                failures=settings.invitation_mails,
                window=86_400,
                what="invitation",
                refusal="Enough invitations were mailed to this address today.",
            ),
            "password_check": password_check,
            "password_resets": PasswordResets(
                database=database,
                registry=registry,
                hasher=hasher,
                settings=settings,
                vault=vault,
                throttle=LoginThrottle(
                    redis,
                    failures=settings.password_reset_requests,
                    window=settings.password_reset_ttl,
                    what="password-reset",
                    refusal="Too many password resets of this account were asked for.",
                ),
                log_ins=throttle,
            ),
            "sso_providers": sso_providers,
            "sso": SingleSignOn(
                database=database,
                registry=registry,
                authenticator=authenticator,
                settings=settings,
                vault=vault,
                providers=sso_providers,
            ),
            "operator_authenticator": OperatorAuthenticator(
                database=database,
                read_scope=control_read,
                write_scope=control_write,
                tokens=tokens,
                hasher=hasher,
                settings=settings,
            ),
            "purger": Purger(database=database, read_scope=control_read, write_scope=control_write, settings=settings),
            "tenant_creator": creator,
            "signups": Signups(
                database=database,
                read_scope=control_read,
                write_scope=control_write,
                settings=settings,
                vault=vault,
                creator=creator,
                brake=Brake(
                    redis,
                    "sign-up",
                    Limits(
                        address=settings.signup_mails_per_address,
                        client=settings.signup_mails_per_client,
                        deployment=settings.signup_mails,
                    ),
                ),
            ),
            "organizations": Organizations(
                database=database,
                write_scope=control_write,
                settings=settings,
                vault=vault,
                brake=Brake(
                    redis,
                    "organizations",
                    Limits(
                        address=settings.organizations_mails_per_address,
                        client=settings.organizations_mails_per_client,
                        deployment=settings.organizations_mails,
                    ),
                ),
            ),
            "tenant_access": TenantAccess(
                database=database,
                read_scope=control_read,
                write_scope=control_write,
                times=times,
                settings=settings,
                tokens=lambda: tokens,
                door=OperatorDoor(settings),
            ),
            "rollout_events": RolloutEvents(shutdown),
            "notification_streams": NotificationStreams(listeners, lifetime=settings.stream_lifetime),
            "open_storage": open_storage,
            "job_states": job_states,
            "schedules": {schedule.name: schedule for schedule in SCHEDULES},
            "job_control": job_control,
            "use_marks": use_marks,
            "metering": Metering(
                database=database, read_scope=control_read, redis=redis, jobs=job_control, hooks=USAGE_HOOKS
            ),
            "lifecycle": Lifecycle(
                database=database,
                read_scope=control_read,
                write_scope=control_write,
                hasher=hasher,
                settings=settings,
                storage=open_storage,
            ),
            "metrics_guard": MetricsGuard(settings),
            "health_checks": {
                "database": HealthCheck(ask_database),
                "registry": HealthCheck(ask_registry),
                "redis": HealthCheck(ask_redis, required=False),
                # For balancers that ask before they send.
                "shutdown": HealthCheck(ask_shutdown),
                **({} if replica is None else {"replica": HealthCheck(ask_replica, required=False)}),
            },
        }
    )
    return app


def _cors(settings: Settings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    # Cookies for pages that were named, and for nobody where all are let in.
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        allow_credentials=settings.cors_origins != ("*",),
        expose_headers=list(_EXPOSED),
    )


def create_asgi(settings: Settings, *, database: Database | None = None) -> ASGIApp:
    """The whole application, as a server takes it."""
    app = create_app(settings, database=database)
    return edge(
        app,
        body_limit=settings.request_body_limit,
        body_timeout=settings.request_body_timeout,
        write_timeout=settings.response_write_timeout,
        refusal_delay=settings.refusal_delay,
        shutdown=app.state.shutdown,
    )


def serve_app() -> ASGIApp:
    """What granian is given: settings from the environment, logging configured."""
    settings = complete(load_settings())
    configure_logging(settings.log_level, settings.log_format)
    start_tracing(settings, "tenantry-api")
    app = create_asgi(settings)
    keep_what_there_is()
    return app
