"""`tenantry serve`, `tenantry provisioner` and `tenantry worker`: the processes of a deployment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING

import rich_click as click

from tenantry.kernel.home import complete
from tenantry.kernel.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.kernel.settings import Settings

__all__ = (
    "granian_command",
    "provisioner",
    "serve",
    "with_shared_metrics",
    "without_owner",
    "worker",
    "worker_command",
)

_OWNER_VARIABLE = "TENANTRY_DATABASE_OWNER_URL"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_GRACE = 15
"""Seconds that requests under way get once the API has drained: together less than the thirty of Kubernetes."""


def granian_command(settings: Settings) -> list[str]:
    """The server and its arguments; nothing secret in them."""
    return [
        sys.executable,
        "-m",
        "granian",
        "--interface=asgi",
        "--factory",
        f"--host={settings.host}",
        f"--port={settings.port}",
        f"--workers={settings.workers}",
        "--loop=uvloop",
        "--no-ws",
        "--respawn-failed-workers",
        f"--workers-kill-timeout={settings.serve_drain + _GRACE}",
        "--log-level=warning",
        "tenantry.asgi:serve_app",
    ]


def worker_command() -> list[str]:
    """A worker and its arguments."""
    return [sys.executable, "-m", "tenantry.cli", "worker"]


def without_owner(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the owner's address."""
    return {name: value for name, value in environment.items() if name != _OWNER_VARIABLE}


def with_shared_metrics(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """An environment in which several workers count together: a scrape of any of them answers for all."""
    if settings.workers == 1 or _METRICS_VARIABLE in environment:
        return dict(environment)
    # Beside the system's other temporary files, since a container's home may be read-only; new with every start.
    return {**environment, _METRICS_VARIABLE: tempfile.mkdtemp(prefix="tenantry-metrics-")}


@click.command(epilog="Example: TENANTRY_HOST=0.0.0.0 TENANTRY_WORKERS=4 tenantry serve")
def serve() -> None:
    """Serve the API with granian, in the foreground; SIGTERM ends it when it has drained, SIGINT at once.

    To drain is to go on serving for TENANTRY_SERVE_DRAIN seconds, and to end each connection with its next answer.
    Either way requests under way are answered first.

    PostgreSQL and Redis are those of TENANTRY_DATABASE_URL and TENANTRY_REDIS_URL, or a running `tenantry up`'s. The
    owner's address is not passed on, should the environment hold it: a process that serves has no use for it.
    """
    settings = complete(load_settings())
    command = granian_command(settings)
    sys.stdout.flush()
    # Replaced, not run as a child: signals and exit code are the server's own, and the old environment is gone.
    os.execve(command[0], command, with_shared_metrics(without_owner(os.environ), settings))  # noqa: S606


@click.command(epilog="Example: tenantry provisioner")
def provisioner() -> None:
    """Run the provisioner, in the foreground: the one process that makes tenants' schemas and roles.

    Needs TENANTRY_DATABASE_OWNER_URL. Any number may run. SIGTERM ends it; work that is under way is rolled back and
    done by the next one.
    """
    settings = complete(load_settings(), owner=True)
    if settings.database_owner_url is None:
        raise SettingsError(["TENANTRY_DATABASE_OWNER_URL: expected an address"])
    asyncio.run(_provision(settings, settings.database_owner_url.get_secret_value()))


@click.command(epilog="Example: TENANTRY_WORKER_CONCURRENCY=20 tenantry worker")
@click.option("--id", "worker_id", hidden=True, help="Be the worker of that id, which the other process watches.")
@click.option("--quarantine", is_flag=True, hidden=True, help="Work off what a worker held that had to be ended.")
def worker(worker_id: str | None, quarantine: bool) -> int:
    """Run a worker, in the foreground: it does the jobs of all organizations, each in its turn.

    Any number may run. It is a process of its own, beside one that ends it when a job keeps it from its work, and
    starts it anew. SIGTERM ends both: no more jobs are taken, and those at work get TENANTRY_WORKER_GRACE to come to
    their end; whatever is left is rolled back, and done by another. The owner's address is not passed on, should the
    environment hold it.
    """
    if _OWNER_VARIABLE in os.environ:
        sys.stdout.flush()
        # Replaced: what a process has begun with can be read for as long as it lives.
        os.execve(sys.executable, worker_command(), without_owner(os.environ))  # noqa: S606
    settings = complete(load_settings())
    if worker_id is None:
        return asyncio.run(_supervise(settings))
    return asyncio.run(_work(settings, worker_id, quarantine=quarantine))


async def _supervise(settings: Settings) -> int:
    stopped = _stop_event()
    # After the handlers, as below.
    from tenantry.jobs.ring import Ring
    from tenantry.jobs.supervisor import Limits, Supervisor
    from tenantry.kernel.logging import configure_logging
    from tenantry.kernel.redis import create_redis
    from tenantry.tenancy.wiring import required

    configure_logging(settings.log_level, settings.log_format)
    limits = Limits(
        stall=settings.worker_stall,
        memory=settings.worker_memory << 20,
        # What the worker itself needs once its jobs have ended or were cancelled.
        grace=settings.worker_grace + 3,
    )
    redis = create_redis(required(settings.redis_url), timeout=5.0, max_connections=4)
    supervisor = Supervisor(_child_command, ring=Ring(redis), limits=limits, name=socket.gethostname())
    work = asyncio.create_task(supervisor.run())
    waiting = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        supervisor.stop()
        return await work
    finally:
        await redis.aclose()


def _child_command(worker_id: str, quarantine: bool) -> list[str]:
    return [*worker_command(), "--id", worker_id, *(["--quarantine"] if quarantine else [])]


async def _work(settings: Settings, worker_id: str, *, quarantine: bool) -> int:
    stopped = _stop_event()
    # After the handlers, as below.
    from tenantry.kernel.exposition import serving_metrics
    from tenantry.kernel.logging import configure_logging
    from tenantry.kernel.tracing import start_tracing, stop_tracing
    from tenantry.worker import WorkerProcess

    configure_logging(settings.log_level, settings.log_format)
    start_tracing(settings, "tenantry-worker")
    if stopped.is_set():
        return 0
    process = WorkerProcess(settings, worker_id=worker_id, quarantine=quarantine, signals=False)
    # One who works off a quarantine is there beside another, whose port it is, and for a moment.
    with (
        contextlib.nullcontext()
        if quarantine
        else serving_metrics(settings, loop=asyncio.get_running_loop(), is_ready=lambda: process.registry.is_fresh)
    ):
        work = asyncio.create_task(process.run())
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        while not work.done():
            # Again and again: SAQ's worker forgets what it was told before it has begun.
            process.stop()
            await asyncio.wait({work}, timeout=0.2)
        await asyncio.to_thread(stop_tracing)
        await work
    return 0


def _stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT from now on."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


async def _provision(settings: Settings, owner_url: str) -> None:
    stopped = _stop_event()
    # After the handlers: the imports take a second or two, and a SIGTERM meanwhile is not to be an error.
    from tenantry.kernel.exposition import serving_metrics
    from tenantry.kernel.logging import configure_logging
    from tenantry.kernel.tracing import start_tracing, stop_tracing
    from tenantry.provisioner import create_provisioner

    configure_logging(settings.log_level, settings.log_format)
    start_tracing(settings, "tenantry-provisioner")
    process = create_provisioner(settings, owner_url)
    with serving_metrics(settings, loop=asyncio.get_running_loop(), is_ready=lambda: process.is_listening):
        work = asyncio.create_task(process.run())
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        work.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                # It works until it is cancelled: whatever ended it before is an error.
                await work
        finally:
            await asyncio.to_thread(stop_tracing)
