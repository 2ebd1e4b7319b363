"""`tenantry backup restore` and `drill`."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click
from redis.exceptions import RedisError

from tenantry.cli.backup_context import BackupContext, backup_context, expected_errors, said
from tenantry.cli.backup_results import choose, print_results
from tenantry.cli.output import json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import Progress, progress_bar
from tenantry.cli.tenants_deletion import confirm_slug
from tenantry.kernel.errors import ResourceNotFoundException
from tenantry.kernel.redis import create_redis
from tenantry.platform.backups.creating import Made, run_each
from tenantry.platform.backups.drill import hold_drill, scratch_database
from tenantry.platform.backups.shared import restore_shared
from tenantry.platform.deletion.holdings import forget_cached

if TYPE_CHECKING:
    from tenantry.platform.backups.drill import DrillReport
    from tenantry.platform.backups.format import BackupManifest, BackupName
    from tenantry.platform.backups.restoring import Restored

__all__ = ("drill", "restore")


@click.command(epilog="Example: tenantry backup restore acme --from 20261124T021500Z-1a2b3c4d --yes")
@click.argument("slug", required=False)
@click.option("--from", "backup_id", metavar="ID", help="This backup; by default the newest.")
@click.option("--as", "new_slug", metavar="NEW_SLUG", help="Make a new tenant of it, and leave the old one as it is.")
@click.option("--undo", is_flag=True, help="Give SLUG back what it had before its last restore.")
@click.option("--shared", is_flag=True, help="The shared schema, into an empty database.")
@click.option("--all", "everybody", is_flag=True, help="Every tenant that has no schema, after --shared.")
@click.option("--yes", is_flag=True, help="Do not ask for the slug to be typed once more.")
@json_option
@quiet_option
def restore(
    slug: str | None,
    backup_id: str | None,
    new_slug: str | None,
    undo: bool,
    shared: bool,
    everybody: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Put a backup in the place of what a tenant has, in one transaction: all of it or nothing; nobody else is touched.

    It is served until the swap, for which its requests wait a moment. Everybody in it signs in again. What it had is
    kept for TENANTRY_BACKUP_UNDO seconds; --undo gives it back. Ends with 4 where the tenant's state does not allow it
    or the backup is damaged.

    After a disaster: `--shared` into a new database, then `--all`.
    """
    if sum((slug is not None, shared, everybody)) != 1:
        raise CommandError("give a tenant's slug, --shared, or --all", ExitCode.USAGE)
    if (undo and (backup_id or new_slug)) or (slug is None and (undo or new_slug)) or (everybody and backup_id):
        raise CommandError("these options contradict each other", ExitCode.USAGE)

    async def work() -> ExitCode:
        async with backup_context() as context:
            with expected_errors():
                if shared:
                    return await _restore_shared(context, backup_id, as_json=as_json, quiet=quiet)
                if everybody:
                    return await _restore_all(context, as_json=as_json, quiet=quiet)
                assert slug is not None  # noqa: S101 - one of the three
                done = await _restore_one(context, slug, backup_id, new_slug, undo=undo, yes=yes, quiet=quiet)
        _tell(done, as_json=as_json, quiet=quiet)
        return ExitCode.OK

    return asyncio.run(work())


async def _restore_one(
    context: BackupContext,
    slug: str,
    backup_id: str | None,
    new_slug: str | None,
    *,
    undo: bool,
    yes: bool,
    quiet: bool,
) -> Restored:
    restorer = context.restorer
    if undo:
        tenant = await context.tenant(slug)
        confirm_slug(slug, f"{slug} gets what it had before its last restore.", yes=yes)
        with Progress(quiet=quiet).step(f"Undoing the restore of {slug}"):
            done = await restorer.undo(tenant.id)
        await _forget(context, done)
        return done
    manifest = await _find(context, slug, backup_id, by_slug=new_slug is not None)
    if new_slug is not None:
        with Progress(quiet=quiet).step(f"Making {new_slug} of {manifest.id}"):
            return await restorer.restore_as(new_slug, manifest)
    tenant = await context.tenant(slug)
    confirm_slug(
        slug, f"{slug} becomes what it was at {manifest.created_at:%Y-%m-%d %H:%M:%S %Z}; all since is gone.", yes=yes
    )
    with Progress(quiet=quiet).step(f"Restoring {slug}"):
        done = await restorer.restore(tenant.id, manifest)
    await _forget(context, done)
    return done


async def _find(context: BackupContext, slug: str, backup_id: str | None, *, by_slug: bool) -> BackupManifest:
    """The backup that is meant: the one of that id, which has to be the tenant's, or its newest.

    Of a tenant that was purged, or of another database, only the backup knows the slug; then it takes the id as well.
    """
    if backup_id is None:
        tenant = await context.tenant(slug)
        names = (await context.store.list()).of(tenant.id)
        if not names:
            raise ResourceNotFoundException(f"There is no backup of {slug!r}.")
        return await context.store.manifest(names[0])
    manifest = await context.store.manifest(await context.store.find(backup_id))
    if by_slug and manifest.slug == slug:
        return manifest
    tenant = await context.tenant(slug)
    if manifest.tenant_id != tenant.id:
        raise CommandError(f"{backup_id} is a backup of {manifest.slug or 'the shared schema'}, not of {slug}")
    return manifest


async def _forget(context: BackupContext, done: Restored) -> None:
    """What is remembered in Redis of the rows that were there before."""
    if context.settings.redis_url is None:
        return
    redis = create_redis(context.settings.redis_url, timeout=5.0, max_connections=2)
    try:
        await forget_cached(redis, done.tenant.id)
    except (RedisError, OSError) as error:
        click.echo(f"Redis does not answer ({error}): for up to an hour, some answers may be of before.", err=True)
    finally:
        await redis.aclose()


async def _restore_shared(context: BackupContext, backup_id: str | None, *, as_json: bool, quiet: bool) -> ExitCode:
    if backup_id is None:
        names = (await context.store.list()).of(None)
        if not names:
            raise ResourceNotFoundException("There is no backup of the shared schema.")
        name = names[0]
    else:
        name = await context.store.find(backup_id)
    manifest = await context.store.manifest(name)
    with Progress(quiet=quiet).step("Restoring the shared schema"):
        tenants = await restore_shared(context.engine, context.store, manifest, actor=context.actor)
    if as_json:
        print_json({"backup": manifest.id, "rows": manifest.rows, "tenants": tenants})
    elif not quiet:
        click.echo(f"The shared schema is that of {manifest.created_at:%Y-%m-%d %H:%M:%S %Z}.")
        click.echo(f"{tenants:,} tenants are answered 503 until they are restored: tenantry backup restore --all")
    return ExitCode.OK


async def _restore_all(context: BackupContext, *, as_json: bool, quiet: bool) -> ExitCode:
    waiting = await context.waiting()
    listing, restorer = await context.store.list(), context.restorer

    async def one(tenant_id: Any) -> Restored:
        names = listing.of(tenant_id)
        if not names:
            raise ResourceNotFoundException("there is no backup of it")
        return await restorer.restore(tenant_id, await context.store.manifest(names[0]))

    slugs = {tenant.id: tenant.slug for tenant in waiting}
    with progress_bar("Restoring", quiet=quiet or as_json) as tell:
        done: list[Made[Restored]] = await run_each(
            list(slugs), one, concurrency=context.settings.backup_concurrency, label=lambda one: slugs[one], tell=tell
        )
    failed = [made for made in done if made.error is not None]
    if as_json:
        print_json(
            {
                "restored": [_row(made.result) for made in done if made.result is not None],
                "failed": {made.label: said(made.error) for made in failed if made.error is not None},
            }
        )
    elif not quiet:
        click.echo(f"{len(done) - len(failed):,} of {len(done):,} tenants are restored.")
    for made in failed:
        if made.error is not None:
            click.echo(f"{made.label}: {said(made.error)}", err=True)
    return ExitCode.FAILED if failed else ExitCode.OK


def _row(done: Restored) -> dict[str, Any]:
    return {
        "id": str(done.tenant.id),
        "slug": done.tenant.slug,
        "status": done.tenant.status,
        "revision": done.revision,
        "rows": done.rows,
        "kept": None if done.kept is None else done.kept.name,
        "undoUntil": None if done.kept is None else done.kept.until,
    }


def _tell(done: Restored, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(_row(done))
    elif not quiet:
        click.echo(f"{done.tenant.slug} is restored, {done.tenant.status}, at the revision {done.revision}.")
        if done.kept is not None:
            click.echo(f"What it had is kept until {done.kept.until:%Y-%m-%d %H:%M %Z}: backup restore --undo.")


@click.command(epilog="Example: tenantry backup drill --sample 10 --report drill.json")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    default=3,
    show_default=True,
    help="Tenants, by chance, beside the shared schema.",
)
@click.option("--all", "everybody", is_flag=True, help="All of them.")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file as well."
)
@json_option
@quiet_option
def drill(sample: int, everybody: bool, report: Path | None, as_json: bool, quiet: bool) -> ExitCode:
    """Restore the newest backups beside everything, compare what comes of it, take it away, and tell what it took.

    In a scratch database, the shared schema first, where the owner may make one (ALTER ROLE tenantry_owner CREATEDB);
    else in scratch schemas, and the shared schema's backup is read to its end. Nobody notices. Ends with 1 where a
    backup is no good, and where there is none.
    """

    async def work() -> DrillReport:
        async with backup_context() as context, AsyncExitStack() as stack:
            latest = (await context.store.list()).latest()
            names: list[BackupName] = choose(latest.values(), None if everybody else sample)
            there = await context.writer.tenants()
            lacking = [tenant.slug for tenant in there if tenant.id not in latest]
            scratch = await stack.enter_async_context(scratch_database(context.owner_url))
            with progress_bar("Restoring", quiet=quiet or as_json) as tell:
                return await hold_drill(
                    context.store,
                    names,
                    context.engine if scratch is None else scratch,
                    actor=context.actor,
                    concurrency=context.settings.backup_concurrency,
                    in_database=scratch is not None,
                    without_backup=lacking,
                    tell=tell,
                )

    found = asyncio.run(work())
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    if as_json:
        print_json(found)
    elif not quiet:
        print_results(found.results)
        place = "a scratch database" if found.place == "database" else "scratch schemas"
        click.echo(f"Restored in {place}, all together in {found.seconds:.1f} s.")
    for result in found.results:
        for note in [] if quiet else result.notes:
            click.echo(f"{result.what}: {note}", err=True)
        if not result.good:
            click.echo(f"{result.what} ({result.backup}): {result.problem}", err=True)
    if found.without_backup and not quiet:
        click.echo(
            f"{len(found.without_backup):,} tenants have no backup: {', '.join(found.without_backup[:5])}", err=True
        )
    if not found.results:
        click.echo("There is no backup.", err=True)
        return ExitCode.FAILED
    return ExitCode.OK if found.good else ExitCode.FAILED
