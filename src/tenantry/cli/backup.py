"""`tenantry backup`: making backups, listing them, and seeing whether they are any good (docs/backups.md)."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING, Any

import rich_click as click

from tenantry.cli.backup_context import (
    age_of,
    backup_context,
    expected_errors,
    manifest_row,
    open_store,
    said,
)
from tenantry.cli.backup_keys import keys
from tenantry.cli.backup_prune import prune
from tenantry.cli.backup_restore import drill, restore
from tenantry.cli.backup_results import choose, print_results
from tenantry.cli.output import json_option, print_json, print_table, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import progress_bar
from tenantry.cli.transfer import size_of
from tenantry.platform.backups.checking import BackupChecker
from tenantry.platform.backups.creating import Made, run_each
from tenantry.platform.backups.drill import result_of
from tenantry.platform.backups.sealing import BackupDamagedError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.platform.backups.checking import Verdict
    from tenantry.platform.backups.format import BackupManifest, BackupName
    from tenantry.platform.backups.store import BackupStore

__all__ = ("backup",)


@click.group(epilog="Example: tenantry backup create --all && tenantry backup verify --latest && tenantry backup prune")
def backup() -> None:
    """Back tenants and the shared schema up, check backups, and restore them.

    Where they are kept and under which key, TENANTRY_BACKUP_URL and TENANTRY_BACKUP_KEY_FILE say. What writes or
    restores needs TENANTRY_DATABASE_OWNER_URL, as the provisioner does.
    """


backup.add_command(keys)
backup.add_command(prune)
backup.add_command(restore)
backup.add_command(drill)


@backup.command("create", epilog="Example: tenantry backup create --all --json")
@click.argument("slugs", metavar="[SLUG]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="The shared schema, and every tenant that has a schema.")
@click.option("--shared", is_flag=True, help="The shared schema.")
@json_option
@quiet_option
def create(slugs: tuple[str, ...], everything: bool, shared: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Back up tenants, the shared schema, or all of it; everybody is served meanwhile.

    Each tenant is backed up as it is at one moment of its own. One that fails ends nothing but itself: the others are
    backed up, and the command ends with 1.
    """
    if everything == bool(slugs or shared):
        raise CommandError("give tenants' slugs, --shared, or --all alone", ExitCode.USAGE)

    async def work() -> list[Made[BackupManifest]]:
        async with backup_context() as context:
            writer, concurrency = context.writer, context.settings.backup_concurrency
            # The keys and the place, before anything is read; and slugs, before one of several is done.
            _ = context.store
            tenants = [await context.tenant(slug) for slug in slugs]
            with progress_bar("Backing up", quiet=quiet or as_json) as tell:
                if everything:
                    return await writer.all(concurrency=concurrency, tell=tell)
                made: list[Made[BackupManifest]] = []
                if shared:
                    made += await run_each([None], lambda _: writer.shared(), concurrency=1, label=lambda _: "shared")
                return made + await run_each(
                    tenants, writer.tenant, concurrency=concurrency, label=lambda tenant: tenant.slug, tell=tell
                )

    made = asyncio.run(work())
    failed = [one for one in made if one.error is not None]
    if as_json:
        print_json({"made": [_made_row(one) for one in made], "failed": len(failed)})
    elif not quiet:
        for one in made:
            if one.result is not None:
                _tell_made(one.label, one.result)
    for one in failed:
        if one.error is not None:
            click.echo(f"{one.label}: {said(one.error)}", err=True)
    if len(made) == 1 and failed and failed[0].error is not None:
        # Of one, the end of the command says what it was.
        with expected_errors():
            raise failed[0].error
    return ExitCode.FAILED if failed else ExitCode.OK


def _made_row(one: Made[BackupManifest]) -> dict[str, Any]:
    if one.result is None:
        return {"what": one.label, "error": None if one.error is None else said(one.error)}
    return {"what": one.label, "error": None, **manifest_row(one.result.name, one.result)}


def _tell_made(label: str, manifest: BackupManifest) -> None:
    click.echo(
        f"{label}: {manifest.id}, {manifest.rows:,} rows, {size_of(manifest.bytes)}, {manifest.seconds:.1f} s"
        + ("" if manifest.as_revised else "; its schema was changed by hand, see `tenantry tenants verify`")
    )


@backup.command("list", epilog="Example: tenantry backup list --latest --json")
@click.option("--latest", is_flag=True, help="Of each tenant, and of the shared schema, the newest alone.")
@click.option("--tenant", "tenant_id", type=click.UUID, metavar="ID", help="Of the tenant of this id alone.")
@click.option("--shared", is_flag=True, help="Of the shared schema alone.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="So many, the newest first.")
@json_option
def list_backups(latest: bool, tenant_id: Any, shared: bool, limit: int, as_json: bool) -> None:
    """List the backups that are whole, the newest first. Needs no database."""

    async def work() -> tuple[list[tuple[BackupName, BackupManifest | None]], int, int]:
        store = open_store()
        listing = await store.list()
        names = list(listing.latest().values()) if latest else list(listing.good)
        if shared or tenant_id is not None:
            names = [name for name in names if name.tenant_id == tenant_id]
        chosen = sorted(names, key=lambda name: name.id, reverse=True)[:limit]
        found = await asyncio.gather(*(_read(store, name) for name in chosen))
        return list(zip(chosen, found, strict=True)), len(names), len(listing.partial)

    rows, number, partial = asyncio.run(work())
    if as_json:
        print_json([manifest_row(name, manifest) for name, manifest in rows])
        return
    now = datetime.datetime.now(datetime.UTC)
    print_table(
        ("Backup", "Of", "Age", "Revision", "Rows", "Size", "Key"),
        [
            (
                name.id,
                name.tenant_id or "shared",
                age_of((now - name.moment).total_seconds()),
                *("unreadable", None, None, None),
            )
            if manifest is None
            else (
                name.id,
                manifest.slug or "shared",
                age_of((now - manifest.created_at).total_seconds()),
                manifest.revision,
                f"{manifest.rows:,}",
                size_of(manifest.bytes),
                manifest.key_id,
            )
            for name, manifest in rows
        ],
    )
    if number > len(rows):
        click.echo(f"{number - len(rows):,} more: give a larger --limit.", err=True)
    if partial:
        click.echo(
            f"{partial:,} files of backups that were not finished; `tenantry backup prune` removes old ones.", err=True
        )


async def _read(store: BackupStore, name: BackupName) -> BackupManifest | None:
    try:
        return await store.manifest(name)
    except BackupDamagedError:
        return None


@backup.command("verify", epilog="Example: tenantry backup verify --sample 5 --deep")
@click.argument("backup_id", metavar="[ID]", required=False)
@click.option("--latest", is_flag=True, help="The newest of each tenant, and of the shared schema.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="The newest of the shared schema, and of N tenants by chance.",
)
@click.option(
    "--deep",
    is_flag=True,
    help="Restore each into a scratch schema as well, compare it, and drop that. Of the shared schema, a drill does.",
)
@json_option
@quiet_option
def verify(backup_id: str | None, latest: bool, sample: int | None, deep: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Read backups to their end: whether each can be decrypted, with the digests and numbers of rows that it had.

    Ends with 1 where one is no good, and where there is none. Needs a database with --deep alone.
    """
    if sum((backup_id is not None, latest, sample is not None)) != 1:
        raise CommandError("give the id of a backup, --latest, or --sample", ExitCode.USAGE)

    async def look(store: BackupStore, engine: AsyncEngine | None, actor: str, concurrency: int) -> list[Made[Verdict]]:
        checker = BackupChecker(store, engine, actor=actor)
        if backup_id is not None:
            names = [await store.find(backup_id)]
        else:
            names = choose((await store.list()).latest().values(), sample)
        with progress_bar("Verifying", quiet=quiet or as_json) as tell:
            return await run_each(
                names,
                lambda name: checker.verify(name, deep=deep),
                concurrency=concurrency,
                label=lambda name: name.id,
                tell=tell,
            )

    async def work() -> list[Made[Verdict]]:
        if not deep:
            return await look(open_store(), None, "", 2)
        async with backup_context() as context:
            return await look(context.store, context.engine, context.actor, context.settings.backup_concurrency)

    done = asyncio.run(work())
    for one in done:
        if one.error is not None:
            raise one.error
    results = [result_of(one.result) for one in done if one.result is not None]
    if as_json:
        print_json(results)
    elif not quiet:
        print_results(results)
    if not results:
        click.echo("There is no backup.", err=True)
    for result in results:
        if not result.good:
            click.echo(f"{result.what} ({result.backup}): {result.problem}", err=True)
    return ExitCode.OK if results and all(result.good for result in results) else ExitCode.FAILED
