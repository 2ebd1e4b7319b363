"""Every act of an operator, whoever added its route: written down, with who, in the transaction that does it.

The control plane's tables are watched by triggers, which note the transaction of every change. What a request changes,
it has to change in a transaction that also writes to the audit trail.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tenantry.kernel.storage import Storage
from tests.databases import OPERATOR_EMAIL, OPERATOR_PASSWORD, Template, clone_database, drop_database
from tests.isolation.routes import ENDPOINTS
from tests.platform.belongings import make_due, provisioner
from tests.platform.lifecycle.support import found, open_deployment, run
from tests.platform.support import as_admin, tenant_body
from tests.world import PASSWORD, World

ROUTES = {
    endpoint.handler.operation_id: endpoint
    for endpoint in ENDPOINTS
    if endpoint.path.startswith("/platform/") and endpoint.writes
}
SILENT: dict[str, str] = {}
"""Routes that change something and leave no trace of it, by their operation's id, and why. To add one is a decision."""

_WATCH = """
CREATE SCHEMA watch;
CREATE TABLE watch.change (id bigint GENERATED ALWAYS AS IDENTITY, txid xid8 NOT NULL, tab text NOT NULL);
CREATE FUNCTION watch.note() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
    INSERT INTO watch.change (txid, tab) VALUES (pg_current_xact_id(), TG_TABLE_NAME);
    RETURN NULL;
END
$function$;
DO $do$
DECLARE
    found regclass;
BEGIN
    FOR found IN SELECT oid FROM pg_class WHERE relnamespace = 'platform'::regnamespace AND relkind IN ('r', 'p') LOOP
        EXECUTE format('CREATE TRIGGER watched AFTER INSERT OR UPDATE OR DELETE ON %s'
                       ' FOR EACH ROW EXECUTE FUNCTION watch.note()', found);
    END LOOP;
END
$do$
"""


@dataclass(frozen=True)
class Act:
    """What is to be sent so that the request succeeds."""

    ids: dict[str, str]
    body: dict[str, Any] | None = None


Prepare = Callable[[World], Awaitable[Act]]
PREPARATIONS: dict[str, Prepare] = {}
_numbers = itertools.count(1)


def _prepares(operation_id: str) -> Callable[[Prepare], Prepare]:
    def keep(prepare: Prepare) -> Prepare:
        PREPARATIONS[operation_id] = prepare
        return prepare

    return keep


async def _succeed(api: World, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    answer = await api.operator.request(method, path, **({} if body is None else {"json": body}))
    assert answer.is_success, answer.text
    return answer.json()


async def _tenant(api: World, *events: str) -> dict[str, str]:
    slug = f"acme-{next(_numbers)}"
    await found(api, slug, teams=1)
    for event in events:
        await _succeed(api, "POST", f"/platform/tenants/{slug}/{event}", {})
    return {"slug": slug}


def _operator() -> dict[str, Any]:
    return {"email": f"sue-{next(_numbers)}@platform.example", "password": PASSWORD, "role": "support"}


def _owner() -> dict[str, Any]:
    return {"ownerEmail": "dev@tools.example", "ownerPassword": PASSWORD}


async def _no_rollout(api: World) -> None:
    """One runs at a time."""
    for rollout in (await api.operator.get("/platform/rollouts")).json()["items"]:
        if rollout["status"] == "running":
            await _succeed(api, "POST", f"/platform/rollouts/{rollout['id']}/cancel")


async def _rollout(api: World, *events: str) -> dict[str, str]:
    await _no_rollout(api)
    started = await _succeed(api, "POST", "/platform/rollouts", {})
    for event in events:
        await _succeed(api, "POST", f"/platform/rollouts/{started['id']}/{event}")
    return {"rollout_id": started["id"]}


@_prepares("OperatorLogin")
async def _(api: World) -> Act:
    return Act({}, {"email": OPERATOR_EMAIL, "password": OPERATOR_PASSWORD})


@_prepares("CreateOperator")
async def _(api: World) -> Act:
    return Act({}, _operator())


@_prepares("UpdateOperator")
async def _(api: World) -> Act:
    made = await _succeed(api, "POST", "/platform/operators", _operator())
    return Act({"operator_id": made["id"]}, {"role": "auditor"})


@_prepares("CreateTenant")
async def _(api: World) -> Act:
    return Act({}, tenant_body(f"new-{next(_numbers)}"))


@_prepares("UpdateTenant")
async def _(api: World) -> Act:
    return Act(await _tenant(api), {"name": "Acme Ltd", "plan": "team"})


@_prepares("SetTenantLimits")
async def _(api: World) -> Act:
    return Act(await _tenant(api), {"quotas": {"seats": 5}})


async def _consenting(api: World) -> dict[str, str]:
    slug = f"acme-{next(_numbers)}"
    tenant = await found(api, slug, teams=1)
    granted = await tenant.owner.post("/api/operator-access/grants", json={"hours": 1, "reason": "Ticket 7"})
    assert granted.status_code == 201, granted.text
    return {"slug": slug}


@_prepares("OpenTenantAccess")
async def _(api: World) -> Act:
    return Act(await _consenting(api), {"reason": "Ticket 7"})


@_prepares("CloseTenantAccess")
async def _(api: World) -> Act:
    ids = await _consenting(api)
    opened = await _succeed(api, "POST", f"/platform/tenants/{ids['slug']}/access", {"reason": "Ticket 7"})
    return Act({**ids, "access_id": opened["id"]})


@_prepares("AskForTenantAccess")
async def _(api: World) -> Act:
    return Act(await _tenant(api), {"reason": "Ticket 7"})


@_prepares("SuspendTenant")
async def _(api: World) -> Act:
    return Act(await _tenant(api), {"reason": "Unpaid"})


@_prepares("ResumeTenant")
async def _(api: World) -> Act:
    return Act(await _tenant(api, "suspend"))


@_prepares("ArchiveTenant")
async def _(api: World) -> Act:
    return Act(await _tenant(api), {"reason": "Paused"})


@_prepares("RestoreTenant")
async def _(api: World) -> Act:
    ids = await _tenant(api)
    await run(api, f"/platform/tenants/{ids['slug']}/archive", {})
    return Act(ids)


@_prepares("CloneTenant")
async def _(api: World) -> Act:
    ids = await _tenant(api)
    return Act(ids, {"slug": f"{ids['slug']}-clone", "name": "Sandbox", "maskEmails": True, **_owner()})


@_prepares("ExportTenant")
async def _(api: World) -> Act:
    return Act(await _tenant(api), {"credentials": True})


@_prepares("ImportTenant")
async def _(api: World) -> Act:
    slug = (await _tenant(api))["slug"]
    exported = await run(api, f"/platform/tenants/{slug}/export", {})
    storage = Storage.open(api.settings)
    await storage.put_bytes(f"imports/{slug}.zip", await storage.get_bytes(exported["result"]["key"]))
    return Act({}, {"key": f"imports/{slug}.zip", "slug": f"{slug}-again", **_owner()})


@_prepares("DeleteTenant")
async def _(api: World) -> Act:
    return Act(await _tenant(api))


@_prepares("UndeleteTenant")
async def _(api: World) -> Act:
    ids = await _tenant(api)
    await _succeed(api, "DELETE", f"/platform/tenants/{ids['slug']}")
    return Act(ids)


@_prepares("PurgeTenant")
async def _(api: World) -> Act:
    ids = await _tenant(api)
    return Act(ids, {"confirm": ids["slug"]})


@_prepares("StartRollout")
async def _(api: World) -> Act:
    await _no_rollout(api)
    return Act({}, {})


@_prepares("CancelRollout")
async def _(api: World) -> Act:
    return Act(await _rollout(api))


@_prepares("ResumeRollout")
async def _(api: World) -> Act:
    return Act(await _rollout(api, "cancel"))


async def _outbox_row(api: World, status: str) -> dict[str, str]:
    """A job of the platform's that no worker takes: there is none here."""
    async with as_admin(api.addresses) as admin:
        job_id = await admin.fetchval(
            "INSERT INTO platform.outbox (id, name, arguments, status, due, retries, timeout, meta, created_at,"
            " updated_at) VALUES (gen_random_uuid(), 'probe', '{}', $1, now(), 2, 60, '{}', now(), now()) RETURNING id",
            status,
        )
    return {"job_id": str(job_id)}


@_prepares("RetryJob")
async def _(api: World) -> Act:
    return Act(await _outbox_row(api, "dead"))


@_prepares("CancelJob")
async def _(api: World) -> Act:
    return Act(await _outbox_row(api, "pending"))


@_prepares("UpdatePlatformSchedule")
async def _(api: World) -> Act:
    return Act({"name": "measure_catalog"}, {"enabled": False, "timeZone": "Europe/Berlin"})


@_prepares("RunPlatformSchedule")
async def _(api: World) -> Act:
    return Act({"name": "measure_catalog"})


@_prepares("SetTenantTimeZone")
async def _(api: World) -> Act:
    return Act(await _tenant(api), {"timeZone": "Europe/Berlin"})


@_prepares("UpdateTenantSchedule")
async def _(api: World) -> Act:
    return Act({**await _tenant(api), "name": "seal_audit"}, {"enabled": False, "timeZone": "Europe/Berlin"})


@_prepares("RunTenantSchedule")
async def _(api: World) -> Act:
    return Act({**await _tenant(api), "name": "seal_audit"})


@pytest.fixture(scope="module")
async def watched(template: Template, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    addresses = await clone_database(template)
    try:
        async with open_deployment(addresses, tmp_path_factory.mktemp("home")) as opened, as_admin(addresses) as admin:
            await admin.execute(_WATCH)
            yield opened
    finally:
        await drop_database(addresses)


@pytest.fixture
async def api(watched: World) -> AsyncIterator[World]:
    """An API without a provisioner: what is changed while a request lasts, the request has changed."""
    yield watched
    # What a test has asked for must not be carried out in the next one's name.
    await make_due(watched)
    async with provisioner(watched) as worker:
        await worker.work_off()


def test_every_route_that_writes_is_among_the_cases() -> None:
    assert ROUTES.keys() == PREPARATIONS.keys(), "say in `PREPARATIONS` what makes a request to it succeed"
    assert SILENT.keys() <= ROUTES.keys()


@pytest.mark.parametrize("operation_id", ROUTES)
async def test_what_an_operator_does_is_written_down_in_the_transaction_that_does_it(
    api: World, operation_id: str
) -> None:
    endpoint, act = ROUTES[operation_id], await PREPARATIONS[operation_id](api)
    operator = f"operator:{(await api.operator.get('/platform/auth/me')).json()['id']}"
    async with as_admin(api.addresses) as admin:
        known = [row["id"] for row in await admin.fetch("SELECT id FROM platform.audit_entry")]
        await admin.execute("TRUNCATE watch.change")
        sent = {} if act.body is None else {"json": act.body}
        answer = await api.operator.request(endpoint.method, endpoint.url(act.ids), **sent)
        assert answer.is_success, answer.text
        changes = await admin.fetch("SELECT txid::text AS transaction, tab FROM watch.change ORDER BY id")
        entries = await admin.fetch("SELECT * FROM platform.audit_entry WHERE id <> ALL ($1)", known)
    tables = {change["tab"] for change in changes}
    assert tables - {"audit_entry"}, "a request that changes nothing proves nothing"
    if operation_id in SILENT:
        assert "audit_entry" not in tables, "it leaves a trace: it is silent no more"
        return
    audited = {change["transaction"] for change in changes if change["tab"] == "audit_entry"}
    assert [change["tab"] for change in changes if change["transaction"] not in audited] == []
    assert {entry["actor"] for entry in entries} == {operator}
    assert {entry["request_id"] for entry in entries} == {answer.headers["X-Request-ID"]}
    # Whoever looks for what was done to a tenant, or to something else, finds it.
    assert all(entry["tenant_id"] or entry["target"] for entry in entries)


async def test_what_is_refused_changes_nothing_and_leaves_no_trace(api: World) -> None:
    async with as_admin(api.addresses) as admin:
        await admin.execute("TRUNCATE watch.change")
        for endpoint in ROUTES.values():
            sent = {} if endpoint.body is None else {"json": {"nothing": "that anybody knows"}}
            answer = await api.operator.request(endpoint.method, endpoint.url(), **sent)
            assert answer.is_client_error, f"{endpoint}: {answer.text}"
        assert await admin.fetch("SELECT tab FROM watch.change") == []
