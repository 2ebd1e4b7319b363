"""`tenantry tenants export` and `import`: a tenant's data as a file (docs/archive-format.md)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import msgspec
import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_json, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.cli.progress import Progress
from tenantry.cli.tenants_lifecycle import (
    new_tenant_options,
    print_made,
    read_owner_password,
    seconds_to_wait,
    unfinished,
    wait_options,
)
from tenantry.cli.transfer import check_output, fetch_to_file, fetch_to_stdout, size_of, transfer_bar
from tenantry.kernel.errors import ClientException, ConflictException
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.lifecycle.files import IMPORTS, check_import_key, discard
from tenantry.platform.lifecycle.schemas import TenantImport, read_export
from tenantry.platform.lifecycle.service import ExportService, NewTenant, verify_import
from tenantry.platform.provisioning.service import wait_for_operation
from tenantry.platform.tenants.lifecycle import require_state
from tenantry.platform.tenants.service import SLUG_TAKEN, TenantService, check_slug

if TYPE_CHECKING:
    from tenantry.cli.control import ControlPlane
    from tenantry.platform.archives.format import Manifest
    from tenantry.platform.lifecycle.service import Outcome
    from tenantry.platform.provisioning.models import Operation

__all__ = ("export", "import_tenant")

_STDOUT = "-"


@click.command(epilog="Example: tenantry tenants export acme --output acme.zip --wait 600")
@click.argument("slug")
@click.option(
    "--credentials", is_flag=True, help="With what people sign in with: passwords, sessions and open invitations."
)
@click.option(
    "--output",
    metavar="FILE",
    help="Copy it to this file as well, which only you can read; `-` for stdout.",
)
@click.option("--force", is_flag=True, help="Replace FILE where it is there already.")
@click.option(
    "--fetch", type=click.UUID, metavar="ID", help="Make none, and fetch this one, which was asked for before."
)
@wait_options
@json_option
@quiet_option
def export(
    slug: str,
    credentials: bool,
    output: str | None,
    force: bool,
    fetch: UUID | None,
    wait: float | None,
    no_wait: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Write an archive of a tenant as it is at this moment into the storage; the tenant is served meanwhile.

    It stays there for TENANTRY_EXPORT_TTL. With --output it is copied to a file, which appears whole and checked or
    not at all; this machine then needs access to the storage. Ends with 4 where the tenant's state does not allow it or
    the file has expired, and with 5 when the provisioner has not finished in time: then it will, as soon as one runs,
    and --fetch gets the file.
    """
    seconds = seconds_to_wait(wait, no_wait=no_wait)
    _check_combination(credentials=credentials, output=output, fetch=fetch, no_wait=no_wait, as_json=as_json)
    if output is not None and output != _STDOUT:
        check_output(output, force=force)

    async def work() -> Operation:
        async with control_plane() as control:
            tenant = await control.tenant(slug)
            if fetch is not None:
                with Progress(quiet=quiet).step(f"Waiting for the export of {slug}"):
                    operation = await _asked_for_before(control, tenant.id, fetch, seconds)
            else:
                require_state(tenant, "export")
                with Progress(quiet=quiet).step(f"Exporting {slug}"):
                    outcome = await control.lifecycle.export(
                        slug, credentials=credentials, actor=cli_actor(), wait=seconds
                    )
                operation = outcome.operation
            if output is not None and operation.status != "pending":
                await _save(control, operation, output, force=force, quiet=quiet)
            return operation

    operation = asyncio.run(work())
    if output == _STDOUT and operation.status == "done":
        return ExitCode.OK
    later = f"tenantry tenants export {slug} --fetch {operation.id} --output {slug}.zip"
    if operation.status == "pending":
        code = unfinished(
            operation, f"The export of {slug}", no_wait=no_wait, as_json=as_json, quiet=quiet or output == _STDOUT
        )
        if not quiet:
            click.echo(f"Fetch it when it is done: {later}", err=True)
        return code
    shown = read_export(operation)
    if as_json:
        result = operation.result or {}
        print_json(msgspec.to_builtins(shown) | {"key": result.get("key"), "output": output})
    elif not quiet:
        click.echo(f"{slug} is exported: {shown.rows:,} rows of {shown.tables} tables, {size_of(shown.bytes or 0)}.")
        if output is not None:
            click.echo(f"Written to {output}, with the SHA-256 {shown.sha256}.")
        else:
            click.echo(f"It is kept until {shown.expires_at:%Y-%m-%d %H:%M:%S %Z}. Fetch it: {later}")
    return ExitCode.OK


def _check_combination(
    *, credentials: bool, output: str | None, fetch: UUID | None, no_wait: bool, as_json: bool
) -> None:
    if fetch is not None and output is None:
        raise CommandError("--fetch: give --output as well", ExitCode.USAGE)
    if fetch is not None and credentials:
        raise CommandError("--fetch and --credentials contradict each other: it is as it was made", ExitCode.USAGE)
    if output is not None and no_wait:
        raise CommandError("--output and --no-wait contradict each other", ExitCode.USAGE)
    if output == _STDOUT and as_json:
        raise CommandError("--json and --output - contradict each other: both print to stdout", ExitCode.USAGE)
    if output == _STDOUT and sys.stdout.isatty():
        raise CommandError("--output -: expected stdout to be a file or a pipe, not a terminal", ExitCode.USAGE)


async def _asked_for_before(
    control: ControlPlane, tenant_id: UUID, operation_id: UUID, wait: float | None
) -> Operation:
    """An export of this tenant, when it has ended or the time is over.

    Raises:
        ResourceNotFoundException: there is none.
    """
    async with control.database.transaction(control.read_scope) as transaction:
        await ExportService(session=transaction.session).of_tenant(tenant_id, operation_id)
    seconds = control.settings.provision_wait if wait is None else wait
    return await wait_for_operation(control.database, control.read_scope, operation_id, seconds)


async def _save(control: ControlPlane, operation: Operation, output: str, *, force: bool, quiet: bool) -> None:
    """Copy an export that has ended to where it is to go.

    Raises:
        CommandError: there is none to copy, or it cannot be written.
    """
    try:
        key, size = await control.lifecycle.open_export(operation)
    except ConflictException as error:
        raise _missing(operation) from error
    sha256: str = (operation.result or {})["sha256"]
    with transfer_bar("Fetching", size, quiet=quiet) as tell:
        if output == _STDOUT:
            await fetch_to_stdout(control.storage, key, sha256=sha256, tell=tell)
        else:
            await fetch_to_file(control.storage, key, output, sha256=sha256, force=force, tell=tell)


def _missing(operation: Operation) -> CommandError:
    if operation.status == "failed":
        return CommandError(f"this export has failed: {operation.error}")
    if read_export(operation).expired:
        return CommandError("this export has expired, and its file was removed: export anew", ExitCode.CONFLICT)
    return CommandError(
        "the file is not in the storage that the settings name here: is it the provisioner's? (TENANTRY_STORAGE_URL)"
    )


@click.command("import", epilog="Example: tenantry tenants import acme.zip acme-two --owner-email ann@acme.example")
@click.argument("file", metavar="[FILE]", required=False)
@click.argument("slug", metavar="NEW_SLUG", required=False)
@click.option("--key", help="One in the storage already, below imports/, instead of FILE.")
@new_tenant_options(source="the archive", owner_required=True)
@wait_options
@json_option
@quiet_option
def import_tenant(
    file: str | None,
    slug: str | None,
    key: str | None,
    name: str | None,
    plan: str | None,
    owner_email: str,
    owner_name: str | None,
    owner_password_stdin: bool,
    wait: float | None,
    no_wait: bool,
    as_json: bool,
    quiet: bool,
) -> ExitCode:
    """Make a tenant of an archive, of this deployment or another.

    The archive is checked from end to end before anything is written; then FILE is put into the storage, to which this
    machine needs access. Ends with 2 where it is no sound archive, naming the file in it that is at fault; with 4 where
    NEW_SLUG is taken; and with 5 when the provisioner has not finished in time: then it will, as soon as one runs.
    """
    if key is not None and slug is None:
        # Click gives a single argument to the first of the two.
        file, slug = None, file
    if slug is None or (file is None) == (key is None):
        raise CommandError("give FILE and NEW_SLUG, or --key and NEW_SLUG", ExitCode.USAGE)
    seconds = seconds_to_wait(wait, no_wait=no_wait)
    path = None if file is None else Path(file)
    if path is not None and not path.is_file():
        raise CommandError(f"{file}: there is no such file", ExitCode.USAGE)
    data = checked(
        TenantImport,
        key=f"{IMPORTS}/{uuid4()}.zip" if key is None else check_import_key(key),
        slug=slug,
        owner_email=owner_email,
        name=name,
        plan=plan,
        owner_password=read_owner_password(owner_email, from_stdin=owner_password_stdin, shown=as_json or not quiet),
        owner_name=owner_name,
    )

    async def work() -> Outcome:
        async with control_plane() as control:
            return await _import(control, data, path, wait=seconds, quiet=quiet)

    return print_made(asyncio.run(work()), "of the archive", no_wait=no_wait, as_json=as_json, quiet=quiet)


async def _import(
    control: ControlPlane, data: TenantImport, path: Path | None, *, wait: float | None, quiet: bool
) -> Outcome:
    progress = Progress(quiet=quiet)
    manifest: Manifest | None = None
    if path is not None:
        await _require_possible(control, data.slug, data.plan)
        with progress.step(f"Checking {path.name}"):
            manifest = await verify_import(path, size_limit=control.settings.import_size_limit)
        await _require_possible(control, data.slug, data.plan or manifest.tenant.plan)
        with progress.step(f"Uploading {path.name}"):
            await control.storage.put_file(data.key, path)
    new = NewTenant.of(data)
    try:
        with progress.step(f"Importing {data.slug}"):
            return await control.lifecycle.import_tenant(data.key, new, actor=cli_actor(), manifest=manifest, wait=wait)
    except ClientException:
        # Refused for good. After anything else the operation may still be pending, and need it; what nobody needs is
        # removed by the provisioner in time.
        if path is not None:
            await discard(control.storage, data.key)
        raise


async def _require_possible(control: ControlPlane, slug: str, plan: str | None) -> None:
    """What the service would refuse once a large file is on its way.

    Raises:
        ConflictException: the slug is taken.
        ValidationFailedException: it is reserved, or there is no such plan.
    """
    check_slug(slug)
    async with control.database.transaction(control.read_scope) as transaction:
        tenants = TenantService(session=transaction.session)
        if await tenants.get_one_or_none(slug=slug) is not None:
            raise ConflictException(f"The slug {slug!r} is taken.", problem=SLUG_TAKEN)
        if plan is not None:
            await tenants.check_plan(plan)
