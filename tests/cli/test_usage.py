from __future__ import annotations

import asyncio
import csv
import datetime
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import answer, refused, run
from tests.cli.tenants import create_tenant
from tests.databases import Template
from tests.platform.support import as_admin

Env = dict[str, str]


@pytest.fixture
def november(env: Env, provisioner: None, database_addresses: Template) -> Env:
    """Two tenants that have used something."""
    for slug in ("acme", "globex"):
        create_tenant(env, slug)

    async def plant() -> None:
        async with as_admin(database_addresses) as admin:
            for slug, day, requests in (("acme", 1, 1500), ("acme", 2, 20), ("globex", 2, 7)):
                await admin.execute(
                    "INSERT INTO platform.usage_day (tenant_id, day, plan, requests, jobs, storage_bytes, seats)"
                    " SELECT id, $2, plan, $3, 4, 2048, 3 FROM platform.tenant WHERE slug = $1",
                    slug,
                    datetime.date(2024, 11, day),
                    requests,
                )

    asyncio.run(plant())
    return env


def test_a_tenants_days_are_shown_with_what_it_takes_up(november: Env) -> None:
    days = ("--from", "2024-11-01", "--to", "2024-11-30")
    shown = run("usage", "show", "acme", *days, env=november).stdout
    for word in ("2024-11-01", "1,500", "1,520", "(all)", "2 KiB", "connections", "0 waiting"):
        assert word in shown
    found = answer(run("usage", "show", "acme", *days, "--json", env=november))
    assert [day["requests"] for day in found["days"]] == [1500, 20]
    assert found["total"]["requests"] == 1520
    assert found["size"] > 100_000
    assert found["isLive"]
    now = answer(run("usage", "show", "globex", "--json", env=november))
    assert now["total"]["requests"] < 100


def test_who_is_not_there_or_when_is_said(november: Env) -> None:
    assert "acme" in refused(run("usage", "show", "acmee", env=november), 2)
    wrong = run("usage", "show", "acme", "--from", "2024-11-02", "--to", "2024-11-01", env=november)
    assert "from" in refused(wrong, 2)
    assert "2026-11" in refused(run("usage", "export", "--month", "november", env=november), 2)


def test_a_month_is_exported_to_stdout_and_to_a_file(november: Env, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("usage", "export", "--month", "2024-11", env=november).stdout)))
    assert [(row["tenant"], row["requests"], row["days"]) for row in rows] == [
        ("acme", "1520", "2"),
        ("globex", "7", "1"),
    ]
    file = tmp_path / "november.jsonl"
    file.write_text("what was there")
    arguments = ("--month", "2024-11", "--format", "jsonl", "--rows", "day", "--output", str(file))
    done = run("usage", "export", *arguments, env=november)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"3 lines are in {file}.\n"
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["tenant"], line["period"]) for line in lines] == [
        ("acme", "2024-11-01"),
        ("acme", "2024-11-02"),
        ("globex", "2024-11-02"),
    ]
    quiet = run("usage", "export", *arguments, "--quiet", env=november)
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]
    as_json = run("usage", "export", "--month", "2024-11", "--json", env=november).stdout
    assert [json.loads(line)["requests"] for line in as_json.splitlines()] == [1520, 7]


def test_where_nothing_can_be_written_nothing_is_left(env: Env, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "november.csv"
    assert "No such file" in refused(run("usage", "export", "--output", str(file), env=env), 1)


def test_without_a_database_the_file_stays_as_it_was(env: Env, tmp_path: Path) -> None:
    file = tmp_path / "november.csv"
    file.write_text("what was there")
    nowhere = env | {"TENANTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    assert "PostgreSQL does not answer" in refused(
        run("usage", "export", "--quiet", "--output", str(file), env=nowhere), 5
    )
    assert file.read_text() == "what was there"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]
