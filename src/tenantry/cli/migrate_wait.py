"""`tenantry migrate wait`: until nobody serves who does not know the newest revision."""

from __future__ import annotations

import asyncio

import rich_click as click

from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.home import complete
from tenantry.kernel.logging import configure_logging
from tenantry.kernel.settings import load_settings
from tenantry.platform.rollouts.serving import wait_until_served
from tenantry.tenancy.revision_files import read_line
from tenantry.tenancy.wiring import required

__all__ = ("wait",)


@click.command(epilog="Example: tenantry migrate wait --timeout 900 && tenantry migrate tenants")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long at most.",
)
@json_option
@quiet_option
def wait(timeout: float, as_json: bool, quiet: bool) -> None:
    """Wait until no process serves any more that does not know this release's newest revision.

    Such a process refuses a tenant that is at it: this belongs before `tenantry migrate tenants`, and before the new
    release's provisioner. Looks at the connections over which processes follow the tenants, for
    TENANTRY_REGISTRY_STALE_AFTER at least. Needs no more than TENANTRY_DATABASE_URL, or where that is a pooler's,
    TENANTRY_DATABASE_LISTEN_URL. Ends with 5 where there still are some.
    """
    settings = complete(load_settings(), redis=False)
    configure_logging("WARNING", settings.log_format)
    line = read_line("tenant")
    left: list[int] = []

    def tell(found: int) -> None:
        left[:] = [found]
        if found and not quiet:
            click.echo(f"Serving processes that do not know {line[-1]} yet: {found:,}", err=True)

    async def work() -> None:
        url = settings.database_listen_url or required(settings.database_url)
        async with asyncio.timeout(timeout):
            await wait_until_served(url, line, stale_after=settings.registry_stale_after, tell=tell)

    try:
        asyncio.run(work())
    except TimeoutError:
        if left and left[0]:
            problem = f"there still are serving processes that do not know {line[-1]}: {left[0]:,}"
        else:
            problem = f"the database could not be asked whether every process knows {line[-1]}"
        raise CommandError(problem, ExitCode.UNAVAILABLE) from None
    if as_json:
        print_json({"revision": line[-1], "processes": 0})
    elif not quiet:
        click.echo(f"Every process that serves knows {line[-1]}.")
