from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.cli.demo import _ORGANIZATIONS
from tenantry.cli.problems import ExitCode
from tenantry.kernel.security import INVITATION, Credential
from tenantry.platform.tenants.files import read_folder
from tests.cli.support import ROOT, answer, refused, run

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
        "acme.toml: name: Expected `str`, got `int`",
        "globex.toml: Invalid value (at line 2, column 8)",
        "plans.toml: tariffs: Unknown field",
        "plans.toml: plans.small.colour: Unknown field",
        "plans.toml: 'Big': Expected 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both "
        "ends",
        "www.toml: slug: This name is reserved.",
    ]
    assert answer(run("tenants", "list", "--json", env=env)) == []


def test_an_owner_s_address_is_checked_beforehand(folder: Path, env: Env) -> None:
    (folder / "acme.toml").write_text(ACME.replace("ann@acme.example", "ann at acme"))
    assert "acme.toml: owner.email: Expected an e-mail address" in refused(run("apply", str(folder), env=env), 2)


def test_a_plan_that_is_neither_declared_nor_there_stops_it_all(folder: Path, env: Env) -> None:
    (folder / "globex.toml").write_text(ACME.replace("small", "gold"))
    said = refused(run("apply", str(folder), env=env), ExitCode.USAGE)
    assert said == "globex.toml: plan: There is no plan 'gold'; expected one of enterprise, free, small, team"
    assert answer(run("tenants", "list", "--json", env=env)) == []


def test_without_a_provisioner_tenants_are_pending_and_the_next_run_finds_them(folder: Path, env: Env) -> None:
    short = env | {"TENANTRY_PROVISION_WAIT": "0.05"}
    result = run("apply", str(folder), "--json", env=short)
    rows = answer(result, ExitCode.UNAVAILABLE)
    assert rows[1]["action"] == "pending"
    assert "The provisioner has not finished yet" in result.stderr
    assert answer(run("apply", str(folder), "--json", env=short), ExitCode.UNAVAILABLE)[1]["action"] == "pending"


def test_the_folder_of_this_project_declares_the_demo() -> None:
    files = read_folder(ROOT / "tenants")
    assert set(files.tenants) == set(_ORGANIZATIONS)
    assert {tenant.plan for tenant in files.tenants.values()} <= set(files.plans)
