from __future__ import annotations

import asyncio
import getpass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from redis import Redis
from uuid_utils.compat import uuid7

from tenantry.cli.problems import ExitCode
from tenantry.dev.process import find_free_port
from tests.cli.support import OWNER_PASSWORD, answer, refused, run
from tests.databases import Template
from tests.jobs.support import job_redis_url

Env = dict[str, str]


@pytest.fixture
def env(env: Env) -> Env:
    url = job_redis_url()
    with Redis.from_url(url) as redis:
        redis.flushdb()
    return env | {"TENANTRY_REDIS_URL": url}


@pytest.fixture
def tenants(env: Env, provisioner: None) -> dict[str, UUID]:
    return {slug: UUID(create(env, slug)["id"]) for slug in ("acme", "globex")}


def create(env: Env, slug: str) -> Any:
    arguments = ["--name", slug.title(), "--plan", "free", "--owner-email", f"ann@{slug}.example"]
    made = run("tenants", "create", slug, *arguments, "--owner-password-stdin", "--json", env=env, stdin=OWNER_PASSWORD)
    return answer(made)


def put(addresses: Template, tenant_id: UUID | None, status: str = "pending", **fields: Any) -> UUID:
    """A row of the outbox, and its id."""
    job_id = uuid7()
    values = {"name": "forget_old_invitations", "key": None, "error": None, "hours": 0} | fields

    async def insert() -> None:
        connection = await asyncpg.connect(addresses.admin_url)
        try:
            await connection.execute(
                "INSERT INTO platform.outbox (id, tenant_id, name, arguments, key, status, due, retries, timeout, meta,"
                " error, created_at, updated_at) VALUES ($1, $2, $3, '{\"days\": 30}', $4, $5,"
                ' now() + make_interval(hours => $6), 3, 60, \'{"request_id": "abc"}\', $7, now(), now())',
                *(job_id, tenant_id, values["name"], values["key"], status, values["hours"], values["error"]),
            )
        finally:
            await connection.close()

    asyncio.run(insert())
    return job_id


def ids(result: Any) -> list[str]:
    return [row["id"] for row in answer(result)]


def test_jobs_are_listed_by_tenant_state_and_name(
    env: Env, database_addresses: Template, tenants: dict[str, UUID]
) -> None:
    waiting = put(database_addresses, tenants["acme"])
    later = put(database_addresses, tenants["acme"], hours=1)
    dead = put(database_addresses, tenants["globex"], "dead", name="send_mail", error="Traceback\nOSError: no route")
    own = put(database_addresses, None, name="refill")
    assert ids(run("jobs", "list", "--json", env=env)) == [str(each) for each in (own, dead, later, waiting)]
    assert ids(run("jobs", "list", "--tenant", "acme", "--json", env=env)) == [str(later), str(waiting)]
    assert ids(run("jobs", "list", "--status", "scheduled", "--json", env=env)) == [str(later)]
    assert ids(run("jobs", "list", "--dead", "--json", env=env)) == [str(dead)]
    assert ids(run("jobs", "list", "--name", "refill", "--json", env=env)) == [str(own)]
    assert ids(run("jobs", "list", "--limit", "1", "--json", env=env)) == [str(own)]
    table = run("jobs", "list", "--status", "dead", env=env | {"COLUMNS": "200"})
    assert str(dead) in table.stdout
    assert "globex" in table.stdout
    assert "OSError: no route" in table.stdout
    assert str(waiting) not in table.stdout


def test_one_job_is_shown_with_all_of_its_error(
    env: Env, database_addresses: Template, tenants: dict[str, UUID]
) -> None:
    dead = put(database_addresses, tenants["acme"], "dead", key="nightly", error="Traceback\nOSError: no route")
    shown = run("jobs", "show", str(dead), env=env)
    assert shown.exit_code == 0
    assert "\n\nTraceback\nOSError: no route\n" in shown.stdout
    assert "request_id=abc" in shown.stdout
    assert "days" not in shown.stdout
    assert answer(run("jobs", "show", str(dead), "--json", env=env))["key"] == "nightly"
    assert "or it is done" in refused(run("jobs", "show", str(uuid4()), env=env), ExitCode.NOT_FOUND)
    assert "is not a valid UUID" in refused(run("jobs", "show", "seven", env=env), ExitCode.USAGE)


def test_a_dead_job_goes_back_and_the_trail_says_who_sent_it(
    env: Env, database_addresses: Template, tenants: dict[str, UUID]
) -> None:
    dead = put(database_addresses, tenants["acme"], "dead", error="broken")
    queue = f"t:{tenants['acme']}"
    with Redis.from_url(env["TENANTRY_REDIS_URL"]) as redis:
        redis.zadd(f"saq:{queue}:dead", {f"saq:job:{queue}:{queue}:ob:{dead}": 1})
        retried = run("jobs", "retry", str(dead), env=env)
        assert (retried.exit_code, retried.stdout) == (0, "forget_old_invitations of acme is waiting.\n")
        assert redis.zcard(f"saq:{queue}:dead") == 0
    assert "The job is waiting." in refused(run("jobs", "retry", str(dead), env=env), ExitCode.CONFLICT)
    refused(run("jobs", "retry", str(uuid4()), env=env), ExitCode.NOT_FOUND)
    [act] = answer(run("audit", "--tenant", "acme", "--action", "job.retry", "--json", env=env))
    assert (act["actor"], act["target"]) == (f"cli:{getpass.getuser()}", str(dead))


def test_a_job_is_cancelled(env: Env, database_addresses: Template, tenants: dict[str, UUID]) -> None:
    waiting = put(database_addresses, tenants["acme"])
    kept = put(database_addresses, tenants["globex"])
    assert answer(run("jobs", "cancel", str(waiting), "--json", env=env))["status"] == "cancelled"
    assert ids(run("jobs", "list", "--json", env=env)) == [str(kept)]
    refused(run("jobs", "cancel", str(waiting), "--quiet", env=env), ExitCode.NOT_FOUND)
    assert run("jobs", "cancel", str(kept), "--quiet", env=env).output == ""
    acts = answer(run("audit", "--action", "job.cancel", "--json", env=env))
    assert {act["target"] for act in acts} == {str(waiting), str(kept)}


def test_a_job_whose_worker_does_not_let_go_is_not_cancelled(
    env: Env, database_addresses: Template, tenants: dict[str, UUID]
) -> None:
    job_id = put(database_addresses, tenants["acme"])
    # As a worker's transaction has it, for as long as the command runs.
    admin = asyncio.Runner()
    connection = admin.run(asyncpg.connect(database_addresses.admin_url))
    try:
        admin.run(connection.execute("BEGIN"))
        admin.run(connection.execute("SELECT FROM platform.outbox WHERE id = $1 FOR UPDATE", job_id))
        result = run("jobs", "cancel", str(job_id), "--wait", "0", "--quiet", env=env)
        assert "has not stopped the job yet" in refused(result, ExitCode.UNAVAILABLE)
    finally:
        admin.run(connection.close())
        admin.close()
    assert ids(run("jobs", "list", "--json", env=env)) == [str(job_id)]


def test_jobs_are_counted(env: Env, database_addresses: Template, tenants: dict[str, UUID]) -> None:
    for _ in range(2):
        put(database_addresses, tenants["acme"])
    put(database_addresses, tenants["globex"], "dead")
    found = answer(run("jobs", "stats", "--json", env=env))
    rows = [(row["tenant"], row["waiting"], row["dead"]) for row in found["tenants"]]
    assert rows == [("acme", 2, 0), ("globex", 0, 1)]
    assert (found["total"]["waiting"], found["total"]["dead"], found["workers"]) == (2, 1, [])
    assert found["total"]["oldestWaiting"] >= 0
    shown = run("jobs", "stats", "--tenant", "acme", env=env).stdout
    assert "acme" in shown
    assert "globex" not in shown
    assert "0 workers are alive." in shown


@pytest.mark.parametrize("command", ["list", "stats"])
def test_an_unknown_slug_is_a_mistake_of_spelling(env: Env, tenants: dict[str, UUID], command: str) -> None:
    said = refused(run("jobs", command, "--tenant", "acmee", env=env), ExitCode.USAGE)
    assert said == "There is no organization 'acmee'. Did you mean 'acme'?"


def test_without_redis_it_exits_with_5(env: Env, database_addresses: Template) -> None:
    job_id = put(database_addresses, None)
    away = env | {"TENANTRY_REDIS_URL": f"redis://127.0.0.1:{find_free_port()}/0"}
    for arguments in (["list"], ["stats"], ["show", str(job_id)], ["cancel", str(job_id), "--quiet"]):
        said = refused(run("jobs", *arguments, env=away), ExitCode.UNAVAILABLE)
        assert said == "Redis, which holds the queues, does not answer."
    assert ids(run("jobs", "list", "--json", env=env)) == [str(job_id)]
