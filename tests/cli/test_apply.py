from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tenantry.cli.demo import _ORGANIZATIONS
from tenantry.cli.problems import ExitCode
from tenantry.features import ENTITLEMENTS
from tenantry.kernel.errors import ConflictException
from tenantry.kernel.security import INVITATION, Credential
from tenantry.platform.tenants.creation import Creation, TenantCreator
from tenantry.platform.tenants.files import read_folder
from tests.cli.support import ROOT, answer, refused, run, waiting_mails
from tests.databases import Template

Env = dict[str, str]
ACME = 'name = "Acme"\nplan = "small"\n\n[owner]\nemail = "ann@acme.example"\n'
PLANS = '[plans.small]\nname = "Small"\nstatement_timeout = 1500\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tenants"
    folder.mkdir()
    (folder / "plans.toml").write_text(PLANS)
    (folder / "acme.toml").write_text(ACME)
    return folder


def actions(folder: Path, env: Env) -> dict[str, str]:
    return {row["slug"]: row["action"] for row in answer(run("apply", str(folder), "--json", env=env))}


@pytest.mark.usefixtures("provisioner")
def test_what_is_declared_is_made_once_and_changed_when_it_changes(folder: Path, env: Env) -> None:
    made = answer(run("apply", str(folder), "--json", env=env))
    assert [(row["kind"], row["slug"], row["action"]) for row in made] == [
        ("plan", "small", "created"),
        ("tenant", "acme", "created"),
    ]
    tenant = answer(run("tenants", "show", "acme", "--json", env=env))
    assert (tenant["status"], tenant["plan"], tenant["ownerEmail"]) == ("active", "small", "ann@acme.example")
    assert str(Credential.parse(made[1]["ownerInvitation"], INVITATION).tenant_id) == tenant["id"]

    assert actions(folder, env) == {"small": "unchanged", "acme": "unchanged"}

    (folder / "plans.toml").write_text(PLANS.replace("1500", "2500"))
    (folder / "acme.toml").write_text(ACME.replace('"Acme"', '"Acme Inc"').replace("small", "team"))
    assert actions(folder, env) == {"small": "changed", "acme": "changed"}
    tenant = answer(run("tenants", "show", "acme", "--json", env=env))
    assert (tenant["name"], tenant["plan"]) == ("Acme Inc", "team")

    (folder / "acme.toml").unlink()
    assert actions(folder, env) == {"small": "unchanged"}
    assert answer(run("tenants", "show", "acme", "--json", env=env))["status"] == "active"


@pytest.mark.usefixtures("provisioner")
def test_an_invitation_is_printed_even_quietly(folder: Path, env: Env) -> None:
    result = run("apply", str(folder), "--quiet", env=env)
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith("Invitation of acme's owner, shown once: inv_")


def test_every_mistake_is_listed_with_its_file_and_nothing_is_done(folder: Path, env: Env) -> None:
    (folder / "plans.toml").write_text(PLANS + 'colour = "red"\n[plans.Big]\nname = "Big"\n[tariffs]\n')
    (folder / "acme.toml").write_text(ACME.replace('name = "Acme"', "name = 7").replace("@", " at "))
    (folder / "globex.toml").write_text('name = "Globex"\nplan = \n')
    (folder / "www.toml").write_text(ACME)
    result = run("apply", str(folder), env=env)
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    assert [line.removeprefix(f"{folder}/") for line in result.stderr.splitlines()] == [
        "acme.toml:1: name: Expected `str`, got `int`",
        "globex.toml:2:8: Invalid value",
        "plans.toml:7: tariffs: Unknown field",
        "plans.toml:4: plans.small.colour: Unknown field",
        "plans.toml:5: 'Big': Expected 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both "
        "ends",
        "www.toml:1: slug: This name is reserved.",
    ]
    assert answer(run("tenants", "list", "--json", env=env)) == []


def test_an_owner_s_address_is_checked_beforehand(folder: Path, env: Env) -> None:
    (folder / "acme.toml").write_text(ACME.replace("ann@acme.example", "ann at acme"))
    assert "acme.toml:5: owner.email: Expected an e-mail address" in refused(run("apply", str(folder), env=env), 2)


def test_a_plan_that_is_neither_declared_nor_there_stops_it_all(folder: Path, env: Env) -> None:
    (folder / "globex.toml").write_text(ACME.replace("small", "gold"))
    result = run("apply", str(folder), env=env)
    assert result.exit_code == ExitCode.USAGE
    said = result.stderr.strip().removeprefix("Error: ")
    assert (
        said == f"{folder}/globex.toml:2: plan: There is no plan 'gold'; expected one of enterprise, free, small, team"
    )
    assert answer(run("tenants", "list", "--json", env=env)) == []


def test_without_a_provisioner_tenants_are_pending_and_the_next_run_finds_them(folder: Path, env: Env) -> None:
    short = env | {"TENANTRY_PROVISION_WAIT": "0.05"}
    result = run("apply", str(folder), "--json", env=short)
    rows = answer(result, ExitCode.UNAVAILABLE)
    assert rows[1]["action"] == "pending"
    assert "The provisioner has not finished yet" in result.stderr
    assert answer(run("apply", str(folder), "--json", env=short), ExitCode.UNAVAILABLE)[1]["action"] == "pending"


def fail_for(slug: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this one tenant's making fail."""
    create = TenantCreator.create

    async def create_or_fail(self: TenantCreator, **wanted: Any) -> Creation:
        if wanted["slug"] == slug:
            raise error
        return await create(self, **wanted)

    monkeypatch.setattr(TenantCreator, "create", create_or_fail)


@pytest.mark.usefixtures("provisioner")
def test_a_tenant_that_fails_stops_no_other_and_costs_nobody_their_invitation(
    folder: Path, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slug in ("globex", "initech"):
        (folder / f"{slug}.toml").write_text(ACME.replace("acme", slug))
    fail_for("globex", ConflictException("The slug 'globex' is taken."), monkeypatch)
    result = run("apply", str(folder), "--json", env=env)
    rows = {row["slug"]: row for row in answer(result, ExitCode.FAILED)}
    assert [row["action"] for row in rows.values()] == ["created", "created", "failed", "created"]
    assert rows["globex"]["reason"] == "The slug 'globex' is taken."
    assert "globex: The slug 'globex' is taken." in result.stderr
    assert rows["acme"]["ownerInvitation"].startswith("inv_")
    assert rows["initech"]["ownerInvitation"].startswith("inv_")
    monkeypatch.undo()
    assert actions(folder, env) == {
        "small": "unchanged",
        "acme": "unchanged",
        "globex": "created",
        "initech": "unchanged",
    }


@pytest.mark.usefixtures("provisioner")
def test_mailed_invitations_are_in_no_log(folder: Path, env: Env, database_addresses: Template) -> None:
    assert "--mail needs a mail server" in refused(run("apply", str(folder), "--mail", env=env), ExitCode.USAGE)
    mailed = env | {"TENANTRY_MAIL_URL": f"file://{env['TENANTRY_HOME']}/mail", "TENANTRY_APP_URL": "https://x.example"}
    assert run("keys", "create", env=mailed).exit_code == 0
    result = run("apply", str(folder), "--mail", env=mailed)
    assert (result.exit_code, "inv_" in result.output) == (0, False)
    assert waiting_mails(database_addresses) == 1
    assert actions(folder, env) == {"small": "unchanged", "acme": "unchanged"}


@pytest.mark.usefixtures("provisioner")
@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_an_invitation_outlives_the_loss_of_the_database(
    folder: Path, env: Env, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    (folder / "globex.toml").write_text(ACME.replace("acme", "globex"))
    fail_for("globex", ConnectionRefusedError(111, "Connection refused"), monkeypatch)
    result = run("apply", str(folder), option, env=env)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "PostgreSQL does not answer" in result.stderr
    found = re.search(r"inv_[\w.-]+", result.stdout)
    assert found is not None
    shown = answer(run("tenants", "show", "acme", "--json", env=env))
    assert str(Credential.parse(found[0], INVITATION).tenant_id) == shown["id"]


def test_the_folder_of_this_project_declares_the_demo() -> None:
    files = read_folder(ROOT / "tenants", ENTITLEMENTS)
    assert set(files.tenants) == set(_ORGANIZATIONS)
    assert {tenant.plan for tenant in files.tenants.values()} <= set(files.plans)


def plan_of(folder: Path, env: Env, *options: str) -> dict[str, dict[str, Any]]:
    return {row["slug"]: row for row in answer(run("plan", str(folder), "--json", *options, env=env))}


@pytest.mark.usefixtures("provisioner")
def test_the_plan_says_what_apply_then_does_and_does_nothing_itself(folder: Path, env: Env) -> None:
    planned = plan_of(folder, env)
    assert (planned["small"]["action"], planned["acme"]["action"]) == ("create", "create")
    assert planned["free"]["action"] == "unmanaged"
    assert answer(run("tenants", "list", "--json", env=env)) == []

    answer(run("apply", str(folder), "--json", env=env))
    assert {row["action"] for row in plan_of(folder, env).values()} == {"unchanged", "unmanaged"}

    (folder / "acme.toml").write_text(ACME.replace('"Acme"', '"Acme Inc"'))
    assert plan_of(folder, env)["acme"] == {
        "kind": "tenant",
        "slug": "acme",
        "action": "change",
        "fields": {"name": {"from": "Acme", "to": "Acme Inc"}},
    }
    shown = run("plan", str(folder), "--check", env=env)
    assert shown.exit_code == ExitCode.FAILED
    assert "~ tenant acme" in shown.stdout
    assert "name: 'Acme' -> 'Acme Inc'" in shown.stdout
    assert answer(run("tenants", "show", "acme", "--json", env=env))["name"] == "Acme"

    (folder / "acme.toml").unlink()
    assert plan_of(folder, env, "--check")["acme"]["action"] == "unmanaged"


def test_a_plan_s_part_of_the_workers_is_made_shown_and_changed(folder: Path, env: Env) -> None:
    (folder / "acme.toml").unlink()
    (folder / "plans.toml").write_text(PLANS)
    assert actions(folder, env) == {"small": "created"}
    (folder / "plans.toml").write_text(PLANS + "job_weight = 2.5\njob_concurrency = 16\n")
    [change] = [row for row in answer(run("plan", str(folder), "--json", env=env)) if row["slug"] == "small"]
    assert change["action"] == "change"
    assert change["fields"] == {"job_weight": {"from": 1.0, "to": 2.5}, "job_concurrency": {"from": 8, "to": 16}}
    assert actions(folder, env) == {"small": "changed"}
    assert actions(folder, env) == {"small": "unchanged"}
    [act] = answer(run("audit", "--action", "plan.change", "--json", env=env))
    assert act["details"] == change["fields"]
    # What is taken out of the file is what it would be had it never been there.
    (folder / "plans.toml").write_text(PLANS)
    assert actions(folder, env) == {"small": "changed"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("job_weight = 0", "plans.small.job_weight: Expected `float` >= 0.01"),
        ("job_weight = 101.0", "plans.small.job_weight: Expected `float` <= 100.0"),
        ("job_concurrency = 0", "plans.small.job_concurrency: Expected `int` >= 1"),
        ("job_concurrency = 2.5", "plans.small.job_concurrency: Expected `int`, got `float`"),
    ],
)
def test_a_part_that_cannot_be_is_refused_on_its_line(folder: Path, env: Env, line: str, said: str) -> None:
    (folder / "plans.toml").write_text(f"{PLANS}{line}\n")
    result = run("apply", str(folder), env=env)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr == f"Error: {folder}/plans.toml:4: {said}\n"


QUOTAS = """
request_rate = 5
[plans.small.quotas]
seats = 3
storage = "2 GB"
tags = "unlimited"
[plans.small.features]
sso = false
"""


@pytest.mark.usefixtures("provisioner")
def test_quotas_features_and_a_tenants_own_limits_are_made_shown_and_changed(folder: Path, env: Env) -> None:
    (folder / "plans.toml").write_text(PLANS + QUOTAS)
    (folder / "acme.toml").write_text(ACME + "\n[limits]\nuser_rate = 2\n[limits.quotas]\nseats = 9\n")
    planned = plan_of(folder, env)
    assert planned["small"]["fields"]["quotas.storage"] == {"from": None, "to": 2_000_000_000}
    assert planned["acme"]["fields"]["limits.quotas.seats"] == {"from": None, "to": 9}
    assert actions(folder, env) == {"small": "created", "acme": "created"}
    assert actions(folder, env) == {"small": "unchanged", "acme": "unchanged"}
    told = answer(run("tenants", "limits", "acme", "--json", env=env))
    quotas = {each["name"]: each["allowed"] for each in told["quotas"]}
    assert (quotas["seats"], quotas["storage"], quotas["tags"]) == (9, 2_000_000_000, None)
    assert (told["limits"]["requestRate"], told["limits"]["userRate"]) == (5, 2)

    (folder / "plans.toml").write_text(PLANS + QUOTAS.replace("seats = 3", "teams = 4").replace("false", "true"))
    (folder / "acme.toml").write_text(ACME + "\n[limits.quotas]\nseats = 10\n")
    planned = plan_of(folder, env)
    assert planned["small"]["fields"] == {
        "quotas.seats": {"from": 3, "to": None},
        "quotas.teams": {"from": None, "to": 4},
        "features.sso": {"from": False, "to": True},
    }
    assert planned["acme"]["fields"] == {
        "limits.user_rate": {"from": 2.0, "to": None},
        "limits.quotas.seats": {"from": 9, "to": 10},
    }
    assert actions(folder, env) == {"small": "changed", "acme": "changed"}
    assert actions(folder, env) == {"small": "unchanged", "acme": "unchanged"}

    # A file that says nothing of limits leaves what operators have given otherwise.
    (folder / "acme.toml").write_text(ACME)
    answer(run("tenants", "limits", "acme", "--set", "quotas.tags=1", "--json", env=env))
    assert actions(folder, env) == {"small": "unchanged", "acme": "unchanged"}
    # One with an empty table takes it back.
    (folder / "acme.toml").write_text(ACME + "\n[limits]\n")
    assert actions(folder, env) == {"small": "unchanged", "acme": "changed"}
    told = answer(run("tenants", "limits", "acme", "--json", env=env))
    assert told["overrides"]["quotas"] == {}


def test_unknown_quotas_and_features_are_refused_on_their_lines_with_what_was_meant(folder: Path, env: Env) -> None:
    wrong = '[plans.small.quotas]\nseets = 3\nseats = "2 GB"\n[plans.small.features]\nssso = true\nscim = 1\n'
    (folder / "plans.toml").write_text(PLANS + wrong)
    (folder / "acme.toml").write_text(ACME + "\n[limits]\nrequest_rate = 0\n[limits.quotas]\ntag = 1\n")
    result = run("plan", str(folder), env=env)
    assert result.exit_code == ExitCode.USAGE
    said = [line.removeprefix(f"{folder}/") for line in result.stderr.splitlines()]
    assert said == [
        "acme.toml:8: limits.request_rate: Expected `float` >= 0.01",
        "plans.toml:5: plans.small.quotas.seets: There is no quota of that name; did you mean seats?",
        "plans.toml:6: plans.small.quotas.seats: Expected a whole number from 0, or 'unlimited'",
        "plans.toml:8: plans.small.features.ssso: There is no feature of that name; did you mean sso?",
        "plans.toml:9: plans.small.features.scim: Expected true or false",
    ]
    (folder / "acme.toml").write_text(ACME + "\n[limits.quotas]\ntag = 1\n")
    result = run("plan", str(folder), env=env)
    assert f"{folder}/acme.toml:8: limits.quotas.tag: There is no quota of that name; did you mean" in result.stderr
