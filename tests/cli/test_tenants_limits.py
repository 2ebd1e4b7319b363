from __future__ import annotations

from typing import Any

import pytest

from tenantry.cli.problems import ExitCode
from tests.cli.support import answer, refused, run
from tests.cli.test_tenants import create

Env = dict[str, str]


@pytest.fixture
def acme(env: Env, provisioner: None) -> str:
    answer(create(env, "acme", "--json"))
    return "acme"


def limits(env: Env, slug: str, *options: str) -> Any:
    return answer(run("tenants", "limits", slug, *options, "--json", env=env))


def test_a_tenants_own_limits_are_set_unset_and_shown(env: Env, acme: str) -> None:
    first = limits(env, acme, "--set", "quotas.seats=50", "--set", "quotas.storage=10 GB", "--set", "features.sso=off")
    assert first["overrides"]["quotas"] == {"seats": 50, "storage": 10_000_000_000}
    second = limits(env, acme, "--unset", "quotas.seats", "--set", "request_rate=20", "--set", "quotas.tags=unlimited")
    assert second["overrides"]["quotas"] == {"storage": 10_000_000_000, "tags": None}
    assert second["overrides"]["features"] == {"sso": False}
    assert second["limits"]["requestRate"] == 20
    assert limits(env, acme) == second

    shown = run("tenants", "limits", acme, env=env)
    assert shown.exit_code == 0
    assert "request_rate" in shown.stdout
    assert "20.0 (its own)" in shown.stdout
    assert "off (its own)" in shown.stdout
    assert "quotas.storage" in shown.stdout
    told = run("tenants", "limits", acme, "--unset", "quotas.storage", env=env)
    assert told.stdout == "acme: request_rate=20.0, quotas.tags=-, features.sso=off\n"
    acts = answer(run("audit", "--action", "tenant.limits", "--json", env=env))
    assert len(acts) == 3
    assert {"quotas.storage": {"from": 10_000_000_000, "to": "-"}} in [act["details"] for act in acts]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "quotas.seets=5"), "there is no limit 'quotas.seets'; did you mean quotas.seats"),
        (("--unset", "request_rat"), "there is no limit 'request_rat'; did you mean request_rate"),
        (("--set", "quotas.seats"), "expected NAME=VALUE"),
        (("--set", "quotas.seats=many"), "quotas.seats: Expected a whole number from 0"),
        (("--set", "features.sso=maybe"), "expected on or off"),
        (("--set", "request_rate=0"), "request-rate: Expected `float` >= 0.01"),
        (("--set", "quotas.seats=1", "--unset", "quotas.seats"), "both to be set and unset: quotas.seats"),
    ],
)
def test_what_is_no_limit_is_refused_before_anything_is_done(env: Env, options: tuple[str, ...], said: str) -> None:
    assert said in refused(run("tenants", "limits", "acme", *options, env=env), ExitCode.USAGE)


def test_an_unknown_tenant_has_no_limits(env: Env, acme: str) -> None:
    assert "Did you mean 'acme'?" in refused(run("tenants", "limits", "acmee", env=env), ExitCode.USAGE)
