"""`tenantry doctor` as a command: what it takes, what it leaves out, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.dev.process import find_free_port
from tenantry.doctor.registry import CHECKS
from tests.cli.support import answer, environment, refused, run
from tests.databases import Template

# Cheap to hash, as all the tests' settings are; and their server is unsafe but fast.
ONLY = ("--only", "revisions")


def test_the_checks_are_listed_with_what_they_need() -> None:
    rows = answer(run("doctor", "--list", "--json"))
    assert [row["name"] for row in rows] == [check.name for check in CHECKS]
    assert {row["name"]: row["needs"] for row in rows}["fingerprints"] == ["app", "owner"]
    shown = run("doctor", "--list").stdout
    for check in CHECKS:
        assert f" {check.name} " in shown


def test_a_check_that_there_is_not_is_named_with_the_nearest() -> None:
    assert "did you mean privileges?" in refused(run("doctor", "--only", "privilege"), 2)
    assert "no check is left" in refused(run("doctor", "--only", "roles", "--skip", "roles"), 2)


def test_what_needs_an_address_that_is_not_there_is_left_out_and_said(tmp_path: Path) -> None:
    env = {"TENANTRY_HOME": str(tmp_path)}
    found = answer(run("doctor", "--json", env=env))
    skipped = {check["check"]: check["skipped"] for check in found["checks"] if check["status"] == "skipped"}
    assert skipped.keys() == {check.name for check in CHECKS if check.needs}
    assert skipped["roles"] == "needs TENANTRY_DATABASE_URL"
    assert skipped["fingerprints"] == "needs TENANTRY_DATABASE_URL and TENANTRY_DATABASE_OWNER_URL"
    assert skipped["redis"] == "needs TENANTRY_REDIS_URL"
    assert found["reachable"] is True
    assert "roles skipped: needs TENANTRY_DATABASE_URL" in run("doctor", env=env).stdout


def test_without_the_owner_and_an_administrator_the_rest_is_looked_at(
    database_addresses: Template, tmp_path: Path
) -> None:
    env = environment(database_addresses, tmp_path)
    found = answer(
        run("doctor", "--json", "--only", "revisions", "--only", "fingerprints", "--only", "logins", env=env)
    )
    assert {check["check"]: check["status"] for check in found["checks"]} == {
        "revisions": "ok",
        "fingerprints": "skipped",
        "logins": "skipped",
    }


def test_a_server_that_does_not_answer_is_told_once_and_ends_with_5(tmp_path: Path) -> None:
    url = f"postgresql://tenantry_app:s3cret-s3cret@127.0.0.1:{find_free_port()}/tenantry"
    env = {"TENANTRY_HOME": str(tmp_path), "TENANTRY_DATABASE_URL": url}
    result = run("doctor", "--json", "--only", "roles", "--only", "jobs", env=env)
    found = answer(result, 5)
    assert [check["check"] for check in found["checks"]] == ["reachable", "roles", "jobs"]
    assert found["checks"][0]["findings"][0]["code"] == "reachable.app"
    assert found["checks"][1]["skipped"] == "TENANTRY_DATABASE_URL does not answer"
    assert "s3cret" not in result.output


def test_findings_are_shown_with_what_to_do_and_quiet_says_nothing(tmp_path: Path) -> None:
    env = {"TENANTRY_HOME": str(tmp_path), "TENANTRY_CORS_ORIGINS": "*"}
    shown = run("doctor", "--only", "settings", env=env)
    assert shown.exit_code == 1
    assert "WARNING" in shown.stdout
    assert "settings.cors" in shown.stdout
    assert "TENANTRY_CORS_ORIGINS=*" in shown.stdout
    assert "docs/doctor.md#settings" in shown.stdout
    assert "1 warning" in shown.stdout
    quiet = run("doctor", "--only", "settings", "--quiet", env=env)
    assert (quiet.exit_code, quiet.output) == (1, "")
    assert run("doctor", "--only", "settings", "--fail-on", "critical", env=env).exit_code == 0


def test_a_check_that_takes_too_long_or_fails_is_a_finding_and_the_others_go_on(
    database_addresses: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio
    from dataclasses import replace

    from tenantry.doctor import registry
    from tenantry.doctor.site import Site

    async def never(_: Site) -> list[object]:
        await asyncio.Event().wait()
        return []

    async def fails(_: Site) -> list[object]:
        raise ValueError("of all things")

    broken = {"roles": never, "jobs": fails}
    checks = tuple(
        replace(check, run=broken[check.name], seconds=0.01) if check.name in broken else check  # type: ignore[arg-type]
        for check in registry.CHECKS
    )
    monkeypatch.setattr(registry, "CHECKS", checks)
    arguments = ("--only", "roles", "--only", "jobs", "--only", "revisions")
    found = answer(run("doctor", "--json", *arguments, env=environment(database_addresses, tmp_path)), 1)
    results = {check["check"]: check for check in found["checks"]}
    assert results["roles"]["findings"][0]["code"] == "roles.unfinished"
    assert results["jobs"]["findings"][0]["seen"] == "ValueError: of all things"
    assert results["revisions"]["status"] == "ok"


def test_the_shape_of_the_report_is_stable(tmp_path: Path) -> None:
    found = answer(run("doctor", "--json", "--only", "settings", env={"TENANTRY_HOME": str(tmp_path)}))
    assert list(found) == ["version", "release", "startedAt", "seconds", "worst", "reachable", "checks"]
    assert found["version"] == 1
    (check,) = found["checks"]
    assert list(check) == ["check", "title", "status", "skipped", "seconds", "page", "findings"]
    assert list(check["findings"][0]) == ["code", "severity", "summary", "seen", "expected", "remedy"]
