"""`tenantry up` and `tenantry reset`: everything on this machine, from one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from tenantry.cli.output import quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import Progress
from tenantry.dev.process import AlreadyRunning, DataLock
from tenantry.dev.servers import delete_home
from tenantry.dev.supervisor import StopRequested, client_host, is_loopback, listening_error, stop_signals
from tenantry.kernel.settings import load_settings

if TYPE_CHECKING:
    from tenantry.cli.deployment import Started
    from tenantry.kernel.settings import Settings

__all__ = ("reset", "up")

_TENANTS = Path("tenants")


@click.command(epilog="Example: TENANTRY_PORT=8080 tenantry up")
@click.option(
    "--tenants",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of plans and tenants to apply; by default `tenants`, where it is there.",
)
@click.option("--no-demo", is_flag=True, help="Make no demo users; the owners of new tenants are invited.")
@click.option("--json", "as_json", is_flag=True, help="When it serves, print one line of JSON instead of text.")
@quiet_option
def up(folder: Path | None, no_demo: bool, as_json: bool, quiet: bool) -> None:
    """Start PostgreSQL, Valkey, provisioner, worker and API, and fill them with the demo; Ctrl-C stops it all.

    The servers' data are in TENANTRY_HOME and stay. TENANTRY_DATABASE_URL and TENANTRY_REDIS_URL use servers of yours
    instead: PostgreSQL either as an administrator who can create roles, for Tenantry to make its own, or as
    tenantry_app, and then TENANTRY_DATABASE_OWNER_URL as tenantry_owner. Demo users are made only in a deployment that
    has no operators of its own, and never where others than this machine can connect.
    """
    settings = load_settings()
    if not no_demo and not is_loopback(settings.host):
        raise CommandError(
            f"TENANTRY_HOST={settings.host} lets others connect, and the demo's passwords are known to everybody: "
            "give --no-demo",
            ExitCode.USAGE,
        )
    if folder is None and _TENANTS.is_dir():
        folder = _TENANTS
    progress = Progress(quiet=quiet)
    home = settings.home.absolute()
    lock = DataLock(home / "up.lock", home)
    with stop_signals() as deaf:
        try:
            home.mkdir(mode=0o711, parents=True, exist_ok=True)
            _take(lock, home)
            if (reason := listening_error(settings.host, settings.port)) is not None:
                raise CommandError(
                    f"cannot listen on {settings.host} port {settings.port}: {reason}. Stop what does, or choose "
                    "another: TENANTRY_PORT=8001 (nothing was started)",
                    ExitCode.CONFLICT,
                )
            from tenantry.cli.deployment import Deployment

            deployment = Deployment(settings, home, lock=lock, progress=progress)
            try:
                started = deployment.start(folder.absolute() if folder is not None else None, demo=not no_demo)
                _tell(settings, home, started, as_json=as_json, quiet=quiet)
                deployment.watch()
            finally:
                deaf()
                deployment.stop()
        except StopRequested:
            progress.say("Stopped. The data stay.")
        finally:
            lock.release()


@click.command(epilog="Example: tenantry reset --yes")
@click.option("--yes", is_flag=True, help="Do not ask.")
@quiet_option
def reset(yes: bool, quiet: bool) -> None:
    """Delete the embedded servers of TENANTRY_HOME with all their data, and the keys that sign tokens
    and seal secrets.

    Servers of yours are not touched. Ends with 4 while `tenantry up` runs.
    """
    home = load_settings().home.absolute()
    if not home.exists():
        if not quiet:
            click.echo(f"There is nothing in {home}.")
        return
    lock = DataLock(home / "up.lock", home)
    if lock.held():
        raise CommandError(f"`tenantry up` is running from {home}: stop it first", ExitCode.CONFLICT)
    if not yes:
        click.confirm(f"Delete all data of the embedded servers in {home}?", abort=True, err=True)
    _take(lock, home)
    try:
        delete_home(home)
    finally:
        lock.release()
    if not quiet:
        click.echo("Deleted. `tenantry up` starts over.")


def _take(lock: DataLock, home: Path) -> None:
    try:
        # What an `up` that was killed has left needs a moment to end.
        lock.acquire(40.0)
    except AlreadyRunning as error:
        raise CommandError(
            f"`tenantry up` runs from {home} already (process {error.pid}): stop it, or set another TENANTRY_HOME",
            ExitCode.CONFLICT,
        ) from None


def _tell(settings: Settings, home: Path, started: Started, *, as_json: bool, quiet: bool) -> None:
    base = f"http://{client_host(settings.host)}:{settings.port}"
    logins = started.logins or []
    commands = _curl(base, logins)
    if as_json:
        told = {
            "api": base,
            "documentation": f"{base}/schema",
            "logins": logins,
            "invitations": started.invitations,
            "commands": commands,
            "processes": started.processes,
            "seconds": round(started.seconds, 2),
        }
        # On one line, since the reader's end of file comes when all is over.
        click.echo(msgspec.json.encode(told).decode())
        return
    if quiet:
        return
    lines = [
        "",
        f"Tenantry serves ({started.seconds:.1f} s).",
        "",
        f"  API            {base}",
        f"  Documentation  {base}/schema",
        f"  Logs           {home / 'logs'}",
    ]
    if logins:
        width = max(len(login.email) for login in logins)
        lines += ["", "Log in as:", ""]
        lines += [
            f"  {login.organization or 'platform':<9} {login.email:<{width}}  {login.password}  ({login.role})"
            for login in logins
        ]
    if started.logins is None:
        lines += ["", "No demo users: `tenantry operators create EMAIL --role owner` makes the first operator."]
    for slug, invitation in started.invitations.items():
        lines += [f"Invitation of {slug}'s owner, shown once: {invitation}"]
    if commands:
        lines += ["", "Try it, from another terminal:", ""]
        for command in commands:
            lines += [command, ""]
    lines += ["Ctrl-C stops everything; the data stay.", ""]
    # Plainly: a line that were broken to the terminal's width could not be pasted.
    click.echo("\n".join(lines))


def _curl(base: str, logins: list[Any]) -> list[str]:
    """Two commands that work as they stand: log in, and use the token."""
    login = next((login for login in logins if login.organization is not None), None)
    if login is None:
        return []
    body = f'{{"tenant": "{login.organization}", "email": "{login.email}", "password": "{login.password}"}}'
    log_in = f"curl -s {base}/api/auth/login -H 'Content-Type: application/json' -d '{body}'"
    extract = """python3 -c 'import json, sys; print(json.load(sys.stdin)["accessToken"])'"""
    return [log_in, f'TOKEN=$({log_in} | {extract}); curl -s {base}/api/teams -H "Authorization: Bearer $TOKEN"']
