from __future__ import annotations

import datetime
import io
from typing import Any
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from tenantry.cli.top import render, watch
from tenantry.platform.jobs.schemas import JobCounts
from tenantry.platform.usage.schemas import Top, TopProcess, TopRollout, TopTenant
from tests.cli.support import answer, refused, run

Env = dict[str, str]
ACME = UUID(int=1)


def a_tenant(**fields: Any) -> TopTenant:
    values: dict[str, Any] = {
        "tenant_id": ACME,
        "tenant": "acme",
        "requests_per_second": 1234.5,
        "jobs_per_second": 0.5,
        "requests_today": 98_765,
        "jobs_today": 43,
        "jobs_waiting": 12,
        "jobs_active": 3,
        "connections": 7,
    }
    return TopTenant(**values | fields)


def a_top(**fields: Any) -> Top:
    values: dict[str, Any] = {
        "at": datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC),
        "seconds": 2.0,
        "is_live": True,
        "requests_per_second": 2000.0,
        "jobs_per_second": 1.5,
        "active_tenants": 4321,
        "tenants": [a_tenant(), a_tenant(tenant="[red]globex", requests_per_second=None)],
        "queues": JobCounts(waiting=55, scheduled=6, active=7, dead=1, oldest_waiting=61.5),
        "workers": 2,
        "processes": [TopProcess(name="tenantry-api", connections=15, in_use=4)],
        "warm_schemas": 16,
        "rollouts": [TopRollout(id=uuid4(), target="0016", status="halted", pending=90, done=9, failed=1)],
    }
    return Top(**values | fields)


def drawn(top: Top) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    console.print(render(top))
    return console.export_text()


def test_a_look_is_drawn_with_all_of_its_parts() -> None:
    text = drawn(a_top())
    lines = text.splitlines()
    assert lines[0].rstrip() == "2026-11-23 12:00:00 UTC  2,000.0 requests/s  1.5 jobs/s  4,321 tenants active"
    [acme] = [line for line in lines if line.split()[:1] == ["acme"]]
    assert acme.split() == ["acme", "1,234.5", "0.5", "98,765", "43", "12", "3", "7"]
    # A name is no markup.
    [globex] = [line for line in lines if "[red]globex" in line]
    assert globex.split()[1] == "-"
    for part in (
        *("55 ready, 7 at work, 6 scheduled", "1 dead", "2 workers", "oldest waits 61.5 s"),
        *("tenantry-api", "16 warm schemas", "Rollouts", "0016", "halted"),
    ):
        assert part in text


def test_what_asks_for_somebody_is_red() -> None:
    console = Console(record=True, width=160, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(render(a_top(workers=0)))
    coloured = console.export_text(styles=True)
    for text in ("1 dead", "0 workers", "oldest waits 61.5 s", "halted"):
        before = coloured.partition(text)[0]
        assert before.rpartition("\x1b[")[2].startswith("31m") or ", " in before[-2:], text
    calm = a_top(
        queues=JobCounts(waiting=0, scheduled=0, active=0, dead=0, oldest_waiting=None), workers=1, rollouts=[]
    )
    console.print(render(calm))
    assert "\x1b[31m" not in console.export_text(styles=True).partition("0 dead")[2]


def test_what_is_not_known_is_said() -> None:
    text = drawn(a_top(is_live=False, queues=None, workers=None, requests_per_second=None, tenants=[], rollouts=[]))
    assert "Redis does not answer" in text
    assert "not known" in text
    assert "Rollouts" not in text


async def test_it_looks_again_and_draws_over_what_was() -> None:
    looks = [a_top(active_tenants=number) for number in (11, 22)]

    class Reader:
        async def look(self, **_: Any) -> Top:
            return looks.pop(0)

    out = io.StringIO()
    console = Console(file=out, width=160, height=40, force_terminal=True)
    await watch(console, Reader(), a_top(active_tenants=99), interval=0, limit=5, sort="jobs", looks=2)  # type: ignore[arg-type]
    shown = out.getvalue()
    for number in (99, 11, 22):
        assert f"{number} tenants active" in shown
    assert not looks
    # On a screen of its own, which is left behind.
    assert "\x1b[?1049h" in shown
    assert shown.endswith("\x1b[?1049l")


def test_once_is_two_looks_and_one_answer(env: Env) -> None:
    found = answer(run("top", "--once", "--json", "--interval", "0.1", "--limit", "5", env=env))
    assert found["isLive"]
    assert found["queues"]["waiting"] >= 0
    assert found["warmSchemas"] == 0
    assert found["rollouts"] == []
    assert isinstance(found["processes"], list)
    shown = run("top", "--once", "--interval", "0.1", env=env)
    assert shown.exit_code == 0, shown.output
    assert "tenants active" in shown.stdout


def test_without_a_terminal_it_is_not_drawn_over_and_over(env: Env) -> None:
    assert "--once" in refused(run("top", env=env), 2)


@pytest.mark.parametrize("wrong", [("--interval", "0"), ("--limit", "0"), ("--sort", "name")])
def test_what_cannot_be_meant_is_refused(env: Env, wrong: tuple[str, ...]) -> None:
    assert wrong[0] in refused(run("top", "--once", *wrong, env=env), 2)
