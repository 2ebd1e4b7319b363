from __future__ import annotations

import asyncio
import getpass
from typing import Any

import pytest

from tenantry.cli.problems import ExitCode
from tenantry.features import SCHEDULES
from tests.cli.support import OWNER_PASSWORD, answer, refused, run
from tests.databases import Template
from tests.platform.support import as_admin

Env = dict[str, str]
NIGHTLY = "forget_ended_sessions"
OWN = {schedule.name for schedule in SCHEDULES if not schedule.job.platform}


@pytest.fixture
def env(env: Env, provisioner: None) -> Env:
    """A deployment with two tenants, whose schedules no worker has enrolled yet."""
    for slug in ("acme", "globex"):
        arguments = ["--name", slug.title(), "--plan", "free", "--owner-email", f"ann@{slug}.example"]
        answer(
            run(
                *("tenants", "create", slug, *arguments, "--owner-password-stdin", "--json"),
                env=env,
                stdin=OWNER_PASSWORD,
            )
        )
    return env


def listed(env: Env, *arguments: str) -> list[dict[str, Any]]:
    return answer(run("schedules", "list", *arguments, "--json", env=env))  # type: ignore[no-any-return]


def outbox(addresses: Template) -> list[Any]:
    async def read() -> list[Any]:
        async with as_admin(addresses) as admin:
            return await admin.fetch("SELECT id::text AS id, name, key, meta::text AS meta FROM platform.outbox")

    return asyncio.run(read())


def test_a_schedule_is_switched_off_and_on(env: Env) -> None:
    whose = ("--tenant", "acme", NIGHTLY)
    assert answer(run("schedules", "show", *whose, "--json", env=env))["enabled"] is True
    off = run("schedules", "disable", *whose, env=env)
    assert (off.exit_code, off.stdout) == (0, f"{NIGHTLY} of acme is switched off, in UTC.\n")
    [row] = listed(env, "--tenant", "acme", "--disabled")
    assert (row["name"], row["enabled"]) == (NIGHTLY, False)
    assert listed(env, "--tenant", "globex") == []
    on = answer(run("schedules", "enable", *whose, "--json", env=env))
    assert on["enabled"] is True
    assert run("schedules", "disable", *whose, "--quiet", env=env).output == ""
    shown = run("schedules", "show", *whose, env=env).stdout
    assert "time zone" in shown
    assert "0 3 * * *" in shown
    acts = answer(run("audit", "--tenant", "acme", "--action", "schedule.change", "--json", env=env))
    assert [(act["actor"], act["target"]) for act in acts] == [(f"cli:{getpass.getuser()}", NIGHTLY)] * 3


def test_one_schedule_or_all_of_a_tenant_follow_another_clock(env: Env) -> None:
    one = answer(run("schedules", "set-timezone", "--tenant", "globex", NIGHTLY, "Asia/Tokyo", "--json", env=env))
    assert (one["tenant"], one["timeZone"]) == ("globex", "Asia/Tokyo")
    everything = run("schedules", "set-timezone", "--tenant", "acme", "--all", "Europe/Berlin", "--json", env=env)
    rows = answer(everything)["items"]
    assert {(row["name"], row["tenant"], row["timeZone"]) for row in rows} == {
        (name, "acme", "Europe/Berlin") for name in OWN
    }
    assert {row["timeZone"] for row in listed(env, "--tenant", "globex")} == {"Asia/Tokyo"}
    own = run("schedules", "set-timezone", "--platform", "measure_catalog", "Europe/Berlin", env=env)
    assert own.exit_code == 0
    assert own.stdout.startswith("measure_catalog of the platform is due next at ")
    table = run("schedules", "list", env=env).stdout
    assert "(platform)" in table
    assert "Asia/Tokyo" in table


def test_it_runs_now_and_a_second_time_it_is_the_same_job(env: Env, database_addresses: Template) -> None:
    first = answer(run("schedules", "run", "--tenant", "acme", NIGHTLY, "--json", env=env))
    assert first["alreadyWaiting"] is False
    again = run("schedules", "run", "--tenant", "acme", NIGHTLY, env=env)
    assert again.stdout == f"{NIGHTLY} of acme waits or runs already: {first['jobId']}\n"
    [row] = outbox(database_addresses)
    assert (row["id"], row["name"], row["key"]) == (first["jobId"], NIGHTLY, "schedule")
    assert f'"actor": "cli:{getpass.getuser()}"' in row["meta"]
    assert run("schedules", "run", "--platform", "measure_catalog", "--quiet", env=env).output == ""
    assert {row["name"] for row in outbox(database_addresses)} == {NIGHTLY, "measure_catalog"}


def test_mistakes_are_told_apart_by_their_exit_code(env: Env) -> None:
    for command in (["show", NIGHTLY], ["enable", NIGHTLY], ["run", NIGHTLY], ["set-timezone", NIGHTLY, "UTC"]):
        assert "Give --tenant SLUG or --platform" in refused(run("schedules", *command, env=env), ExitCode.USAGE)
        both = run("schedules", *command, "--tenant", "acme", "--platform", env=env)
        refused(both, ExitCode.USAGE)
    said = refused(run("schedules", "disable", "--tenant", "acmee", NIGHTLY, env=env), ExitCode.USAGE)
    assert said == "There is no organization 'acmee'. Did you mean 'acme'?"
    unknown = run("schedules", "run", "--tenant", "acme", "nothing", env=env)
    assert "no schedule 'nothing' in this release" in refused(unknown, ExitCode.NOT_FOUND)
    refused(run("schedules", "show", "--platform", NIGHTLY, env=env), ExitCode.NOT_FOUND)
    for zone, what in (("Europe/Atlantis", "there is none called"), ("x" * 65, "64")):
        wrong = refused(run("schedules", "set-timezone", "--tenant", "acme", "--all", zone, env=env), ExitCode.USAGE)
        assert wrong.startswith("time-zone: ")
        assert what in wrong
    for words in (["--all", NIGHTLY, "UTC"], ["UTC"]):
        wrong = refused(run("schedules", "set-timezone", "--tenant", "acme", *words, env=env), ExitCode.USAGE)
        assert "Expected --all and a time zone" in wrong
    wrong = refused(run("schedules", "set-timezone", "--platform", "--all", "UTC", env=env), ExitCode.USAGE)
    assert "--all is for an organization" in wrong
    refused(run("schedules", "list", "--tenant", "acme", "--platform", env=env), ExitCode.USAGE)
    assert listed(env) == []
