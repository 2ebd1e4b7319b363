"""`tenantry shell`: psql, or a Python prompt, in one tenant's scope."""

from __future__ import annotations

import ast
import asyncio
import code
import inspect
import os
import shutil
import signal
import subprocess
import traceback
from types import CodeType, FunctionType
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import UUID

import rich_click as click
from sqlalchemy import func, select

import tenantry.features  # noqa: F401 - the models, all of them
from tenantry.cli.control import ControlPlane, control_plane
from tenantry.cli.output import checked
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.dev.postgres import find_postgres_binaries
from tenantry.dev.process import ServerError
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.tenant_access.schemas import TenantAccessOpen
from tenantry.tenancy.context import TenantContext
from tenantry.tenancy.database import Database, Transaction
from tenantry.tenancy.models import TenantBase
from tenantry.tenancy.scope import Scope

__all__ = ("shell",)

_PSQL_CONNECTION_FAILED = 2


@click.command(
    epilog="Example: tenantry shell --tenant acme --reason 'Ticket 4711' -c 'SELECT name FROM team'\n\n"
    "Example: tenantry shell --tenant acme --reason 'Ticket 4711' --python "
    "-c 'print(await session.scalar(select(func.count(Team.id))))'"
)
@click.option("--tenant", "slug", required=True, help="The tenant's slug.")
@click.option("--python", "as_python", is_flag=True, help="A Python prompt with `session`, the models and `await`.")
@click.option("--reason", required=True, help="Why; the organization's owners see it.")
@click.option("--write", is_flag=True, help="Change something; without it, every transaction is read-only.")
@click.option("--break-glass", is_flag=True, help="Without the owners' consent; they are told at once.")
@click.option("-c", "--command", help="Run this statement (with --python: this code) and end.")
def shell(slug: str, as_python: bool, reason: str, write: bool, break_glass: bool, command: str | None) -> int:
    """Open psql in one tenant's scope: as its role, in its schema, with no sight of any other tenant's.

    This guards against mistakes, not against intent: psql is logged in as the application, and whoever types SET ROLE
    in it can take on another tenant's role, or write. It is an operator's tool, for people who may read every tenant's
    data.

    It takes the consent of the organization's owners, a grant to any operator (`tenantry tenants access ask`), or
    --break-glass, which tells them by mail. Beginning and end are in the organization's audit trail and in the
    platform's; what is done in between is not.

    With --python, `session` is an ORM session in a transaction: `await commit()` keeps what was done, `await
    rollback()` or leaving drops it, and either begins a new one.
    """
    payload = checked(TenantAccessOpen, reason=reason, access="write" if write else "read", break_glass=break_glass)
    if as_python:
        with asyncio.Runner() as runner:
            return _python(runner, slug, payload, command=command)
    return _psql(slug, payload, command=command)


async def _enter_tenant(
    control: ControlPlane, slug: str, payload: TenantAccessOpen
) -> tuple[TenantContext, UUID | None]:
    tenant, visit_id = await control.tenant_access.enter_shell(
        slug,
        actor=cli_actor(),
        reason=payload.reason,
        can_write=payload.access == "write",
        break_glass=payload.break_glass,
    )
    if visit_id is None:
        click.echo(
            "The organization's schema is too old to tell its owners: the platform's trail alone has it.", err=True
        )
    return tenant, visit_id


async def _leave_tenant(control: ControlPlane, slug: str, visit_id: UUID | None) -> None:
    if visit_id is not None:
        await control.tenant_access.leave_shell(slug, visit_id, actor=cli_actor())


def _psql(slug: str, payload: TenantAccessOpen, *, command: str | None) -> int:
    async def enter() -> tuple[TenantContext, UUID | None, str]:
        async with control_plane() as control:
            settings = control.settings
            # A session is needed, and a transaction pooler gives none.
            url = settings.database_listen_url or settings.database_url
            assert url is not None  # noqa: S101 - control_plane has refused
            return (*await _enter_tenant(control, slug, payload), url)

    async def leave() -> None:
        async with control_plane() as control:
            await _leave_tenant(control, slug, visit_id)

    psql = _find_psql()
    tenant, visit_id, url = asyncio.run(enter())
    try:
        return _run_psql(psql, slug, tenant, url, read_only=payload.access == "read", command=command)
    finally:
        asyncio.run(leave())


def _run_psql(psql: str, slug: str, tenant: TenantContext, url: str, *, read_only: bool, command: str | None) -> int:
    address, password = _without_password(url)
    options = [f"-c role={tenant.schema}", f"-c search_path={tenant.schema}"]
    if read_only:
        options.append("-c default_transaction_read_only=on")
    environment = os.environ | {"PGOPTIONS": " ".join(options), "PGAPPNAME": "tenantry-shell"}
    if password is not None:
        # Not as an argument: those are for everybody on this machine to read.
        environment["PGPASSWORD"] = password
    arguments = [psql, address, "-v", f"PROMPT1={slug}%R%x> ", "-v", f"PROMPT2={slug}%R%x> "]
    if command is not None:
        arguments += ["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-c", command]
    # Ctrl-C cancels a query in psql; this process is in the same group and waits.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run(arguments, env=environment, check=False).returncode  # noqa: S603
    finally:
        signal.signal(signal.SIGINT, before)
    return ExitCode.UNAVAILABLE if code == _PSQL_CONNECTION_FAILED else code


def _find_psql() -> str:
    if found := shutil.which("psql"):
        return found
    try:
        embedded = find_postgres_binaries() / "psql"
    except ServerError:
        embedded = None
    if embedded is None or not embedded.is_file():
        raise CommandError("there is no psql on the PATH and no embedded PostgreSQL; --python needs neither")
    return str(embedded)


def _without_password(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    account, at, hosts = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    bare = urlunsplit((parts.scheme, f"{user}{at}{hosts}", parts.path, parts.query, ""))
    return bare, unquote(password) if password else None


class _Scoped:
    """The names of a Python prompt: one transaction after the other, each in the tenant's scope."""

    def __init__(self, database: Database, scope: Scope) -> None:
        self._database = database
        self._scope = scope
        self._transaction: Transaction | None = None
        self.names: dict[str, Any] = {
            "__name__": "__tenantry__",
            "commit": self.commit,
            "rollback": self.rollback,
            "func": func,
            "select": select,
        }
        for mapper in TenantBase.registry.mappers:
            self.names[mapper.class_.__name__] = mapper.class_

    async def begin(self) -> None:
        self._transaction = await self._database.begin(self._scope)
        self.names["session"] = self._transaction.session

    async def commit(self) -> None:
        """Keep what was done, and begin a new transaction."""
        if self._transaction is not None:
            await self._transaction.commit()
        await self.rollback()

    async def rollback(self) -> None:
        """Drop what was done since the last commit, and begin a new transaction."""
        await self.end()
        await self.begin()

    async def end(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.close()


class _Console(code.InteractiveConsole):
    """Python's own prompt, with `await` at the top level, on a loop that runs while a statement does."""

    def __init__(self, runner: asyncio.Runner, names: dict[str, Any]) -> None:
        super().__init__(names)
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._runner = runner

    def runcode(self, code: CodeType) -> None:
        try:
            _run(self._runner, code, self.locals)
        except SystemExit:
            raise
        except BaseException:
            # As the prompt does: Ctrl-C ends the statement, not the prompt.
            self.showtraceback()


def _run(runner: asyncio.Runner, code: CodeType, names: Any) -> None:
    result = FunctionType(code, names)()
    if inspect.iscoroutine(result):
        runner.run(result)


def _python(runner: asyncio.Runner, slug: str, payload: TenantAccessOpen, *, command: str | None) -> int:
    opened = control_plane()
    control: ControlPlane = runner.run(_enter(opened))
    try:
        tenant, visit_id = runner.run(_enter_tenant(control, slug, payload))
        try:
            return _prompt(runner, control, tenant, read_only=payload.access == "read", command=command)
        finally:
            runner.run(_leave_tenant(control, slug, visit_id))
    finally:
        runner.run(_leave(opened))


def _prompt(
    runner: asyncio.Runner, control: ControlPlane, tenant: TenantContext, *, read_only: bool, command: str | None
) -> int:
    # Without the deployment's time limits: the longest of its waits is for somebody to type.
    scoped = _Scoped(control.database, Scope(role=tenant.schema, search_path=tenant.schema, read_only=read_only))
    runner.run(scoped.begin())
    try:
        if command is not None:
            return _run_command(runner, command, scoped.names)
        banner = (
            f"{tenant.name} ({tenant.slug}): session, commit(), rollback(), select, func and the models. Ctrl-D ends."
        )
        _Console(runner, scoped.names).interact(banner=banner, exitmsg="")
        return ExitCode.OK
    finally:
        runner.run(scoped.end())


def _run_command(runner: asyncio.Runner, command: str, names: dict[str, Any]) -> int:
    try:
        compiled = compile(command, "<command>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        _run(runner, compiled, names)
    except Exception:
        # The operator's code, so the operator's traceback.
        traceback.print_exc()
        return ExitCode.FAILED
    return ExitCode.OK


async def _enter(opened: Any) -> ControlPlane:
    return await opened.__aenter__()  # type: ignore[no-any-return]


async def _leave(opened: Any) -> None:
    await opened.__aexit__(None, None, None)
