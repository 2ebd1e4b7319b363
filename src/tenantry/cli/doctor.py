"""`tenantry doctor`: look a deployment over, and say what to do."""

from __future__ import annotations

import asyncio
import difflib
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from tenantry.cli.output import json_option, print_json, print_table, quiet_option, read_secret
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenantry.doctor.examination import Check
    from tenantry.doctor.findings import Examination
    from tenantry.doctor.site import Options
    from tenantry.kernel.settings import Settings

__all__ = ("doctor",)

_MIB = 1024 * 1024


class CheckRead(msgspec.Struct, frozen=True, kw_only=True):
    """What `doctor --list --json` prints of each check."""

    name: str
    title: str
    needs: list[str]
    page: str


@click.command(epilog="Example: tenantry doctor --json --skip certificates")
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check; may be given several times.")
@click.option("--skip", multiple=True, metavar="CHECK", help="All but this check; may be given several times.")
@click.option("--list", "listing", is_flag=True, help="List the checks, and what each needs; look at nothing.")
@click.option("--sample", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Tenants to compare.")
@click.option("--all", "everybody", is_flag=True, help="Compare all tenants, which takes a while.")
@click.option("--api-replicas", type=click.IntRange(0, 10_000), default=1, show_default=True, help="`serve` that run.")
@click.option("--worker-replicas", type=click.IntRange(0, 10_000), default=1, show_default=True, help="Workers.")
@click.option("--database-memory", type=click.IntRange(64), metavar="MIB", help="Memory of PostgreSQL's machine.")
@click.option(
    "--admin-url-stdin", is_flag=True, help="Read a superuser's address from stdin, to look at log-ins as well."
)
@click.option(
    "--fail-on",
    type=click.Choice(["warning", "critical"]),
    default="warning",
    show_default=True,
    help="End with 1 from this severity on.",
)
@json_option
@quiet_option
def doctor(
    only: tuple[str, ...],
    skip: tuple[str, ...],
    listing: bool,
    sample: int,
    everybody: bool,
    api_replicas: int,
    worker_replicas: int,
    database_memory: int | None,
    admin_url_stdin: bool,
    fail_on: str,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Look a deployment over, and say what is wrong with it and what to do.

    Nothing is changed. Checks that need an address which is not there are left out, and say so: the application's
    (TENANTRY_DATABASE_URL) is enough for most, the owner's for comparing schemas, a superuser's for log-ins. Each check
    has a section in docs/doctor.md.

    Ends with 0 where nothing is worse than a note (with `--fail-on critical`, than a warning), with 1 where something
    is, and with 5 where a server does not answer, so that not everything was looked at.
    """
    from tenantry.doctor.registry import CHECKS
    from tenantry.doctor.site import Options

    checks = _chosen(CHECKS, only, skip)
    if listing:
        _list(checks, as_json=as_json)
        return ExitCode.OK
    admin_url = read_secret("A superuser's address").strip() if admin_url_stdin else None
    options = Options(
        sample=None if everybody else sample,
        memory=None if database_memory is None else database_memory * _MIB,
        api_replicas=api_replicas,
        worker_replicas=worker_replicas,
    )
    with progress_bar("Examining", quiet=quiet) as tell:
        found = asyncio.run(_examine(checks, options, admin_url, tell))
    if as_json:
        print_json(found)
    elif not quiet:
        from tenantry.cli.doctor_report import show

        show(found)
    return _code(found, fail_on)


def _chosen(checks: Sequence[Check], only: Sequence[str], skip: Sequence[str]) -> list[Check]:
    names = [check.name for check in checks]
    for name in (*only, *skip):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(names)}"
            raise CommandError(f"there is no check {name!r}{hint}", ExitCode.USAGE)
    chosen = [check for check in checks if (not only or check.name in only) and check.name not in skip]
    if not chosen:
        raise CommandError("no check is left: what --only names, --skip leaves out", ExitCode.USAGE)
    return chosen


def _list(checks: Sequence[Check], *, as_json: bool) -> None:
    rows = [
        CheckRead(name=check.name, title=check.title, needs=[str(need) for need in check.needs], page=check.page)
        for check in checks
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("Check", "What should be", "Needs", "Page"),
        ((row.name, row.title, ", ".join(row.needs) or None, row.page) for row in rows),
    )


async def _examine(
    checks: Sequence[Check], options: Options, admin_url: str | None, tell: Callable[[int, int], None]
) -> Examination:
    from dataclasses import replace

    from tenantry.doctor.examination import examine
    from tenantry.doctor.site import gather
    from tenantry.kernel.logging import configure_logging
    from tenantry.kernel.settings import load_settings

    settings = load_settings()
    # Events go to stderr: stdout is for the answer.
    configure_logging("ERROR", settings.log_format)
    site = gather(settings, options, admin_url=admin_url)
    if site.settings.database_url is not None:
        completed = site.settings
        site.options = replace(options, known_logins=lambda: _known_logins(completed))
    try:
        return await examine(site, checks, tell)
    finally:
        await site.close()


async def _known_logins(settings: Settings) -> list[str]:
    from tenantry.cli.content import live_demo_logins

    return [login.email for login in await live_demo_logins(settings)]


def _code(found: Examination, fail_on: str) -> ExitCode:
    from tenantry.doctor.findings import Severity

    if not found.reachable:
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED if found.worst.rank >= Severity(fail_on).rank else ExitCode.OK
