"""The command line. Commands are thin: they parse, call a service, and show what came of it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import rich_click as click

from tenantry import __version__

__all__ = ("main", "tenantry")

# Where each command is, and what the overview says of it: importing all of them takes seconds, showing the overview
# must not. A test compares the texts with the commands' own.
_COMMANDS = {
    "up": ("tenantry.cli.up", "Start everything on this machine; Ctrl-C stops it, the data stay."),
    "reset": ("tenantry.cli.up", "Delete the embedded servers with all their data."),
    "serve": ("tenantry.cli.processes", "Serve the API, as a deployment does."),
    "provisioner": ("tenantry.cli.processes", "Run the provisioner, which makes tenants' schemas."),
    "worker": ("tenantry.cli.processes", "Run a worker, which does the jobs of all organizations."),
    "health": ("tenantry.cli.health", "Ask a running process whether it lives."),
    "bootstrap": ("tenantry.cli.database", "Make the roles and the database on a server of yours."),
    "harden": ("tenantry.cli.database", "Close the ways by which injected SQL could leave its tenant."),
    "migrate": ("tenantry.cli.migrate", "Bring schemas to this release's revision."),
    "plan": ("tenantry.cli.apply", "Show what `tenantry apply FOLDER` would do, and do nothing."),
    "apply": ("tenantry.cli.apply", "Make and change plans and tenants as a folder declares them."),
    "tenants": ("tenantry.cli.tenants", "Create, list and change tenants."),
    "backup": (
        "tenantry.cli.backup",
        "Back tenants and the shared schema up, check backups, and restore them.",
    ),
    "certificates": ("tenantry.cli.certificates", "List, show and verify the certificates of purges."),
    "jobs": ("tenantry.cli.jobs", "List, show, retry and cancel jobs, and count them."),
    "schedules": ("tenantry.cli.schedules", "List, show, change and run schedules, by which jobs come back."),
    "mail": (
        "tenantry.cli.mail",
        "Read the mail that the development outbox has kept, and test whether mail goes out.",
    ),
    "doctor": ("tenantry.cli.doctor", "Look a deployment over, and say what is wrong with it and what to do."),
    "catalog": ("tenantry.cli.catalog", "Show how much there is in the database's catalog, and how it grows."),
    "usage": ("tenantry.cli.usage", "Show what tenants have used, and export it for the bills."),
    "top": (
        "tenantry.cli.top",
        "Watch the busiest tenants, the queues, the database connections and rollouts; Ctrl-C ends it.",
    ),
    "operators": ("tenantry.cli.operators", "Create, list and change the people who run the platform."),
    "audit": ("tenantry.cli.audit", "Read what was done to the platform, by whom and why."),
    "new-resource": ("tenantry.cli.new_resource", "Write a resource that every organization has for itself."),
    "shell": ("tenantry.cli.shell", "Open psql or Python in one tenant's scope."),
    "keys": ("tenantry.cli.keys", "List, rotate and remove the keys that sign tokens and seal secrets."),
    "settings": (
        "tenantry.cli.settings",
        "Show every setting: its variable, its value here, its default and what it is for.",
    ),
}


class _Commands(click.RichGroup):
    """A group that imports a command when it is called, and ends with one line where something expected went wrong."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's line of the overview; `resolve_command` gives the command itself."""
        if cmd_name not in _COMMANDS:
            return None
        return click.RichCommand(name=cmd_name, short_help=_COMMANDS[cmd_name][1], add_help_option=False)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            command = getattr(importlib.import_module(_COMMANDS[name][0]), name.replace("-", "_"))
        return name, command, rest

    def main(self, args: Sequence[str] | None = None, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except Exception as error:
            from tenantry.cli.problems import report

            code = report(error)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=_Commands,
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 not found, 4 conflict, "
    "5 unavailable or out of time.\n\n"
    "Example: tenantry up",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="tenantry", message="%(prog)s %(version)s")
def tenantry() -> None:
    """Tenantry, the multi-tenant backend.

    Every command reads its settings from the environment (`tenantry settings` lists them), and what is left out from
    the home folder that `tenantry up` has written to: TENANTRY_HOME, or .tenantry here.
    """


def main() -> NoReturn:
    """The console script."""
    if os.getpid() == 1:
        # A container's first process: the kernel drops signals for it that it does not handle, also those that would
        # end any other process (pid_namespaces(7)). So it is ended as the signal would have ended it; processes that
        # have something to finish set handlers of their own.
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    tenantry.main(prog_name="tenantry")
    raise AssertionError("click exits")
