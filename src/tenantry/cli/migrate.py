"""`tenantry migrate`: the schemas, brought to this release's revision.

What a command needs is imported when it is called: see `tenantry.cli.migrate_glance`.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich_click as click

from tenantry.cli.problems import ExitCode

if TYPE_CHECKING:
    from tenantry.cli.migrate_glance import Glance

__all__ = ("migrate",)

_COMMANDS = {
    "shared": "tenantry.cli.migrate_shared",
    "tenants": "",
    "status": "tenantry.cli.migrate_status",
    "resume": "tenantry.cli.migrate_status",
    "wait": "tenantry.cli.migrate_wait",
    "new": "tenantry.cli.migrate_new",
}


class _Migrate(click.RichGroup):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if module := _COMMANDS.get(cmd_name):
            found: click.Command = getattr(importlib.import_module(module), cmd_name)
            return found
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Migrate, epilog="Example: tenantry migrate shared && tenantry migrate tenants --canary 3")
def migrate() -> None:
    """Bring schemas to this release's revision."""


@migrate.command(epilog="Example: tenantry migrate tenants --canary 5 --halt-after 3")
@click.option("--plan", "show_plan", is_flag=True, help="Show what would be done, and do nothing.")
@click.option(
    "--canary",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Tenants that go first; if one of them fails, nobody else is touched.",
)
@click.option(
    "--concurrency", type=click.IntRange(1, 64), help="Tenants at once; by default TENANTRY_ROLLOUT_CONCURRENCY."
)
@click.option("--only", multiple=True, metavar="SLUG", help="Only this tenant; may be given several times.")
@click.option(
    "--halt-after", type=click.IntRange(min=1), default=5, show_default=True, help="Failed tenants that halt it."
)
@click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0.001, max=600),
    metavar="SECONDS",
    help="Longest wait for a lock; by default TENANTRY_ROLLOUT_LOCK_TIMEOUT.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def tenants(
    show_plan: bool,
    canary: int,
    concurrency: int | None,
    only: tuple[str, ...],
    halt_after: int,
    lock_timeout: float | None,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Bring every tenant's schema to this release's revision.

    Needs TENANTRY_DATABASE_OWNER_URL. Tenants that are there already are not touched; each of the others is migrated
    as a whole or not at all, and one that fails stops nobody else. If a rollout is running already, its progress is
    shown. Ctrl-C cancels it: the tenants under way are finished, and `tenantry migrate resume` goes on. If this command
    is killed, a provisioner goes on by itself. Ends with 1 when tenants failed, or it was halted or cancelled.
    """
    if not only:
        from tenantry.cli.migrate_glance import glance

        if (seen := glance()) is not None:
            return nothing_to_do(seen, as_json=as_json, quiet=quiet)
    with _quick_imports():
        from tenantry.cli.migrate_rollouts import Options, migrate_tenants

    return migrate_tenants(
        Options(
            canary=canary,
            concurrency=concurrency,
            only=only or None,
            halt_after=halt_after,
            lock_timeout=lock_timeout,
            show_plan=show_plan,
            yes=yes,
            as_json=as_json,
            quiet=quiet,
        )
    )


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Import for the first time without the garbage collector, which finds none among modules.

    It looks through them again and again as they are made, and once more at the process's end: 0.2 s of 0.65.
    """
    if "sqlalchemy" in sys.modules:
        # Not the first time: this is another's process, with garbage of its own.
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def nothing_to_do(seen: Glance, *, as_json: bool, quiet: bool) -> ExitCode:
    """Say so; the same fields as where something was done."""
    if as_json:
        fields = {"rollout": None, "target": seen.target, "status": "done", "haltedReason": None}
        counts = {"tenants": 0, "done": 0, "failed": 0, "pending": 0, "failures": []}
        click.echo(json.dumps(fields | counts, indent=2))
    elif not quiet:
        click.echo(f"All {seen.tenants:,} tenants are at {seen.target} already.")
    return ExitCode.OK
