"""`tenantry migrate new`: the next revision of a tree, written from what the models say."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from tenantry.cli.output import json_option, print_json
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.home import complete
from tenantry.kernel.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from tenantry.tenancy.autogenerate import NewRevision
    from tenantry.tenancy.migrations import Tree

__all__ = ("new",)


class NewRevisionRead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `migrate new --json` prints; without a revision where nothing differs."""

    tree: str
    revision: str | None
    path: str | None
    differences: int


@click.command(epilog='Example: tenantry migrate new "Projects" --tree tenant')
@click.argument("message")
@click.option(
    "--tree",
    type=click.Choice(["tenant", "shared"]),
    default="tenant",
    show_default=True,
    help="The schema of every tenant, or the shared one.",
)
@click.option("--empty", is_flag=True, help="Compare nothing, and write a revision to be filled in by hand.")
@json_option
def new(message: str, tree: Tree, empty: bool, as_json: bool) -> None:
    """Write the next revision of a tree: what the models say beyond what its revisions make.

    MESSAGE says on one line what it does. The revisions are run in a scratch schema that nobody else sees and that is
    gone afterwards, so the data are neither read nor changed. Needs TENANTRY_DATABASE_OWNER_URL and a checkout of the
    sources. Read what was written before it is committed: CHECK constraints, triggers, functions and privileges of
    tables that are there already are not compared. Where nothing differs, nothing is written.
    """
    settings = complete(load_settings(), owner=True, redis=False)
    if settings.database_owner_url is None:
        raise SettingsError(["TENANTRY_DATABASE_OWNER_URL: expected an address"])
    written = asyncio.run(_write(settings.database_owner_url.get_secret_value(), tree, message, empty))
    if as_json:
        print_json(
            NewRevisionRead(tree=tree, revision=None, path=None, differences=0)
            if written is None
            else NewRevisionRead(
                tree=tree, revision=written.id, path=str(written.path), differences=written.differences
            )
        )
    elif written is None:
        click.echo(f"Nothing differs between the models and the tree {tree}: nothing was written.")
        click.echo("CHECK constraints of tables that are there are not compared: --empty writes without.", err=True)
    else:
        click.echo(_shown(written.path))


async def _write(owner_url: str, tree: Tree, message: str, empty: bool) -> NewRevision | None:
    from tenantry.features import SHARED_METADATA, TENANT_METADATA
    from tenantry.tenancy.autogenerate import write_revision
    from tenantry.tenancy.database import owner_engine
    from tenantry.tenancy.revisions import RevisionError

    engine = owner_engine(owner_url)
    try:
        metadata = TENANT_METADATA if tree == "tenant" else SHARED_METADATA
        return await write_revision(engine, tree, message, metadata, empty=empty)
    except RevisionError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    finally:
        await engine.dispose()


def _shown(path: Path) -> str:
    """As it is typed from here."""
    here = Path.cwd()
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
