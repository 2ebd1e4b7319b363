"""`tenantry serve` and `tenantry provisioner`: the processes of a deployment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING

import rich_click as click

from tenantry.kernel.home import complete
from tenantry.kernel.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.kernel.settings import Settings

__all__ = ("granian_command", "provisioner", "serve", "with_shared_metrics", "without_owner")

_OWNER_VARIABLE = "TENANTRY_DATABASE_OWNER_URL"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_GRACE = 15
"""Seconds that requests under way get when the API is stopped; less than the thirty that Kubernetes gives a pod."""


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
        f"--workers-kill-timeout={_GRACE}",
        "--log-level=warning",
        "tenantry.asgi:serve_app",
    ]


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
    """Serve the API with granian, in the foreground; SIGTERM ends it when the requests under way are answered.

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


async def _provision(settings: Settings, owner_url: str) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    # After the handlers: the imports take a second or two, and a SIGTERM meanwhile is not to be an error.
    from tenantry.kernel.logging import configure_logging
    from tenantry.provisioner import create_provisioner

    configure_logging(settings.log_level, settings.log_format)
    work = asyncio.create_task(create_provisioner(settings, owner_url).run())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not work.done():
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return
    # It works until it is cancelled: whatever ended it is an error.
    await work
