"""What manifests declare for plans, and what comes of a plan and a tenant's own limits together."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from tenantry.domain.tags.models import Tag
from tenantry.features import ENTITLEMENTS
from tenantry.kernel.feature import Feature, Quota, Switch
from tenantry.tenancy.entitlements import Entitlements, parse_amount, rows_of
from tenantry.tenancy.plan import LIMITS, PlanLimits, merge_limits

ROWS = Quota("tags", "Tags.", rows_of(Tag))
BYTES = Quota("storage", "Files.", select(func.count()), unit="bytes")


@pytest.mark.parametrize(
    ("quota", "written", "amount"),
    [
        (ROWS, 0, 0),
        (ROWS, 12, 12),
        (ROWS, "unlimited", None),
        (ROWS, None, None),
        (BYTES, 1024, 1024),
        (BYTES, "10 GB", 10_000_000_000),
        (BYTES, "1.5KiB", 1536),
        (BYTES, "0 B", 0),
        (BYTES, "2 TiB", 2 * 2**40),
    ],
)
def test_an_amount_is_read_as_people_write_it(quota: Quota, written: Any, amount: int | None) -> None:
    assert parse_amount(quota, written) == amount


WRONG: dict[Quota, tuple[Any, ...]] = {
    ROWS: (-1, 1.0, True, "12", "10 GB", 2**53, []),
    BYTES: ("10", "10 gb", "-1 GB", "GB", "9999999999 TB", "1 GB ", 1.5),
}


@pytest.mark.parametrize(("quota", "written"), [(quota, wrong) for quota, all_ in WRONG.items() for wrong in all_])
def test_what_is_no_amount_is_refused(quota: Quota, written: Any) -> None:
    with pytest.raises(ValueError, match="Expected"):
        parse_amount(quota, written)


def test_two_manifests_do_not_declare_one_name_and_a_name_is_a_word() -> None:
    with pytest.raises(ValueError, match="two manifests declare 'tags'"):
        Entitlements([Feature("a", quotas=(ROWS,)), Feature("b", quotas=(Quota("tags", "Others.", rows_of(Tag)),))])
    for name in ("Tags", "tag-s", "tags.all", ""):
        with pytest.raises(ValueError, match="is no name"):
            Entitlements([Feature("a", switches=(Switch(name, "What?"),))])


def test_asking_for_what_nobody_declares_is_an_error_of_the_code() -> None:
    with pytest.raises(LookupError, match="no manifest declares a quota 'sso'"):
        ENTITLEMENTS.quota("sso")
    with pytest.raises(LookupError, match="no manifest declares a switch 'seats'"):
        ENTITLEMENTS.switch("seats")


def test_a_tenants_own_limits_win_one_by_one() -> None:
    plan: dict[str, Any] = dict.fromkeys(LIMITS) | {
        "job_weight": 2.0,
        "job_concurrency": 4,
        "request_rate": 10.0,
        "quotas": {"tags": 5, "seats": 3},
        "features": {"sso": False},
    }
    assert merge_limits("small", plan, {}) == PlanLimits(
        slug="small",
        job_weight=2.0,
        job_concurrency=4,
        request_rate=10.0,
        quotas={"tags": 5, "seats": 3},
        features={"sso": False},
    )
    own = {"job_weight": 0.5, "quotas": {"tags": None, "teams": 0}, "features": {"sso": True, "scim": False}}
    merged = merge_limits("small", plan, own)
    assert (merged.job_weight, merged.job_concurrency, merged.request_rate) == (0.5, 4, 10.0)
    assert merged.quotas == {"seats": 3, "teams": 0}
    assert merged.features == {"sso": True, "scim": False}
