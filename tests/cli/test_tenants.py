from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from tenantry.cli.problems import ExitCode
from tenantry.kernel.security import INVITATION, Credential
from tests.cli.support import OWNER_PASSWORD, answer, refused, run, waiting_mails
from tests.databases import Template, fast_hasher

Env = dict[str, str]


def create(env: Env, slug: str, *options: str, password: str | None = OWNER_PASSWORD, plan: str = "free") -> Any:
    arguments = ["tenants", "create", slug, "--name", slug.title(), "--plan", plan]
    arguments += ["--owner-email", f"Ann@{slug}.example", *options]
    if password is not None:
        arguments.append("--owner-password-stdin")
    return run(*arguments, env=env, stdin=None if password is None else f"{password}\n")


def owner_row(addresses: Template, tenant_id: str) -> Any:
    async def look() -> Any:
        connection = await asyncpg.connect(addresses.admin_url)
        try:
            schema = f"t_{tenant_id.replace('-', '')}"
            return await connection.fetchrow(f'SELECT email, name, hashed_password FROM "{schema}".user_account')
        finally:
            await connection.close()

    return asyncio.run(look())


@pytest.mark.usefixtures("provisioner")
def test_a_tenant_is_created_with_an_owner_who_can_log_in(env: Env, database_addresses: Template) -> None:
    made = answer(create(env, "acme", "--owner-name", "Ann Archer", "--json"))
    assert (made["slug"], made["name"], made["status"], made["plan"]) == ("acme", "Acme", "active", "free")
    assert (made["ownerEmail"], made["ownerInvitation"], made["done"]) == ("ann@acme.example", None, True)
    owner = owner_row(database_addresses, made["id"])
    assert (owner["email"], owner["name"]) == ("ann@acme.example", "Ann Archer")
    hasher = fast_hasher()
    try:
        # The line feed that ends stdin is no part of it.
        assert asyncio.run(hasher.verify(owner["hashed_password"], OWNER_PASSWORD))
    finally:
        hasher.close()


@pytest.mark.usefixtures("provisioner")
def test_without_a_password_the_owner_is_invited(env: Env, database_addresses: Template) -> None:
    made = answer(create(env, "acme", "--json", password=None))
    assert str(Credential.parse(made["ownerInvitation"], INVITATION).tenant_id) == made["id"]
    assert owner_row(database_addresses, made["id"])["hashed_password"] is None
    shown = create(env, "globex", password=None)
    assert shown.exit_code == 0
    assert "globex is active.\nThe owner's invitation, shown once: " in shown.stdout


@pytest.mark.usefixtures("provisioner")
def test_a_mailed_invitation_is_shown_to_nobody_else(env: Env, database_addresses: Template) -> None:
    mailed = env | {"TENANTRY_MAIL_URL": f"file://{env['TENANTRY_HOME']}/mail", "TENANTRY_APP_URL": "https://x.example"}
    assert "--mail needs a mail server" in refused(create(env, "acme", "--mail", password=None), ExitCode.USAGE)
    refused(create(mailed, "acme", "--mail", password=None), ExitCode.FAILED)
    assert "give one of them" in refused(create(mailed, "acme", "--mail"), ExitCode.USAGE)
    # Nothing was made, while it could not be sealed.
    assert answer(run("tenants", "list", "--json", env=env)) == []

    assert run("keys", "create", env=mailed).exit_code == 0
    made = answer(create(mailed, "acme", "--mail", "--json", password=None))
    assert made["ownerInvitation"] is None
    shown = create(mailed, "globex", "--mail", password=None)
    assert (shown.exit_code, "inv_" in shown.output) == (0, False)
    assert "is mailed their invitation" in shown.stdout
    assert create(mailed, "initech", "--mail", "--quiet", password=None).output == ""
    assert waiting_mails(database_addresses) == 3


def test_an_invitation_is_never_swallowed(env: Env) -> None:
    assert "--quiet would not show" in refused(create(env, "acme", "--quiet", password=None), ExitCode.USAGE)


@pytest.mark.usefixtures("provisioner")
def test_quiet_prints_nothing(env: Env) -> None:
    assert create(env, "acme", "--quiet").output == ""
    assert run("tenants", "suspend", "acme", "--quiet", env=env).output == ""
    assert run("tenants", "resume", "acme", "--quiet", env=env).output == ""
    assert run("tenants", "update", "acme", "--name", "A", "--quiet", env=env).output == ""


def test_without_a_provisioner_it_is_recorded_and_exits_with_5(env: Env) -> None:
    result = create(env, "acme", "--json", "--wait", "0")
    made = answer(result, ExitCode.UNAVAILABLE)
    assert (made["done"], made["status"]) == (False, "provisioning")
    assert "The provisioner has not finished yet" in result.stderr
    assert "is taken" in refused(create(env, "acme", "--wait", "0"), ExitCode.CONFLICT)


@pytest.mark.parametrize(
    ("options", "slug", "code", "message"),
    [
        ([], "Acme!", 2, "slug: Expected 1 to 63 lower-case letters"),
        ([], "admin", 2, "slug: This name is reserved."),
        (["--plan", "gold"], "acme", 2, "plan: Expected one of the plans: enterprise, free, team."),
        (["--owner-email", "ann"], "acme", 2, "owner-email: Expected"),
        (["--name", " "], "acme", 2, "name: "),
    ],
)
def test_what_is_not_as_expected_is_named_and_nothing_is_made(
    env: Env, options: list[str], slug: str, code: int, message: str
) -> None:
    assert message in refused(create(env, slug, *options), code)
    assert answer(run("tenants", "list", "--json", env=env)) == []


def test_a_short_or_missing_password_is_refused(env: Env) -> None:
    assert "owner-password: Expected at least" in refused(create(env, "acme", password="short"), 2)
    assert "expected on stdin, which is empty" in refused(create(env, "acme", password=""), 2)


@pytest.mark.usefixtures("provisioner")
def test_tenants_are_listed_and_filtered(env: Env) -> None:
    for slug, plan in (("acme", "free"), ("globex", "team"), ("initech", "free")):
        assert create(env, slug, "--quiet", plan=plan).exit_code == 0
    assert run("tenants", "suspend", "initech", "--quiet", env=env).exit_code == 0

    def slugs(*options: str) -> list[str]:
        return [row["slug"] for row in answer(run("tenants", "list", "--json", *options, env=env))]

    assert slugs() == ["acme", "globex", "initech"]
    assert slugs("--plan", "free") == ["acme", "initech"]
    assert slugs("--plan", "free", "--status", "active") == ["acme"]
    assert slugs("--search", "GLOB") == ["globex"]
    assert slugs("--search", "%") == []
    table = run("tenants", "list", env=env).stdout
    for word in ("acme", "ann@globex.example", "suspended", "team"):
        assert word in table


@pytest.mark.usefixtures("provisioner")
def test_suspending_and_resuming_change_the_state_and_refuse_to_do_so_twice(env: Env) -> None:
    create(env, "acme", "--quiet")
    suspended = answer(run("tenants", "suspend", "acme", "--reason", "unpaid", "--json", env=env))
    assert (suspended["status"], suspended["statusReason"]) == ("suspended", "unpaid")
    assert "'acme' is suspended: suspend is not possible" in refused(
        run("tenants", "suspend", "acme", env=env), ExitCode.CONFLICT
    )
    resumed = run("tenants", "resume", "acme", env=env)
    assert resumed.stdout == "acme (Acme) is active, on the plan free.\n"
    assert "resume is not possible" in refused(run("tenants", "resume", "acme", env=env), ExitCode.CONFLICT)


@pytest.mark.usefixtures("provisioner")
def test_a_tenant_is_renamed_and_moved_to_another_plan(env: Env) -> None:
    before = answer(create(env, "acme", "--json"))
    create(env, "globex", "--quiet")
    after = answer(
        run(
            "tenants", "update", "acme", "--name", "Acme [Inc]", "--plan", "team", "--slug", "acme-2", "--json", env=env
        )
    )
    assert (after["id"], after["slug"], after["name"], after["plan"]) == (before["id"], "acme-2", "Acme [Inc]", "team")
    assert "name               Acme [Inc]\n" in run("tenants", "show", "acme-2", env=env).stdout
    shown = answer(run("tenants", "show", "acme-2", "--json", env=env))
    assert shown.pop("usage")["users"] == 1
    assert shown == after
    assert "is taken" in refused(run("tenants", "update", "globex", "--slug", "acme-2", env=env), ExitCode.CONFLICT)
    assert "nothing to change" in refused(run("tenants", "update", "globex", env=env), ExitCode.USAGE)


@pytest.mark.parametrize(
    "arguments", [["show"], ["suspend"], ["resume"], ["update", "--name", "X"]], ids=lambda arguments: arguments[0]
)
def test_a_tenant_that_is_not_there_exits_with_2(env: Env, arguments: list[str]) -> None:
    said = refused(run("tenants", arguments[0], "nobody", *arguments[1:], env=env), ExitCode.USAGE)
    assert said == "There is no organization 'nobody'."


def test_an_empty_list_is_an_empty_array(env: Env) -> None:
    assert json.loads(run("tenants", "list", "--json", env=env).stdout) == []


@pytest.mark.usefixtures("provisioner")
def test_a_tenant_is_shown_with_what_it_takes_up_renamed_and_moved(env: Env) -> None:
    create(env, "acme", "--quiet")
    create(env, "globex", "--quiet")
    shown = answer(run("tenants", "show", "acme", "--json", env=env))
    usage = shown["usage"]
    assert (usage["users"], usage["lastActivityAt"], usage["pendingOperation"]) == (1, None, None)
    assert usage["size"] > 100_000
    assert answer(run("tenants", "rename", "acme", "acme-corp", "--json", env=env))["id"] == shown["id"]
    assert (
        answer(run("tenants", "move", "acme-corp", "--plan", "enterprise", "--json", env=env))["plan"] == "enterprise"
    )
    refused(run("tenants", "rename", "acme-corp", "globex", env=env), ExitCode.CONFLICT)
    trail = answer(run("audit", "--tenant", "acme-corp", "--json", env=env))
    assert [entry["action"] for entry in trail] == ["tenant.change", "tenant.change", "tenant.create"]
    assert trail[1]["details"] == {"slug": {"from": "acme", "to": "acme-corp"}}
    assert all(entry["actor"].startswith("cli") for entry in trail)
    assert answer(run("audit", "--action", "tenant.purge", "--json", env=env)) == []


@pytest.mark.parametrize("since", ["999999d", "0001-01-01", "7 days", "-7d"])
def test_a_time_that_is_none_is_refused_with_what_is_expected(env: Env, since: str) -> None:
    said = refused(run("audit", f"--since={since}", env=env), ExitCode.USAGE)
    assert "expected a time such as" in said
