"""What generated requests are let loose on: a tenant with something in it, made anew when a request has spoilt it."""

from __future__ import annotations

import itertools
from typing import Any

from schemathesis import Case, GenerationMode
from schemathesis.core.parameters import ParameterLocation

from tenantry.dev.process import wait_until
from tests.faults.deployment import Deployment, Session
from tests.world import PASSWORD

__all__ = ("Estate",)

# These end or change what the token stands for: each request gets a session, or a tenant, of its own.
_ENDS_SESSION = frozenset({"EndSession", "EndSessions", "Logout"})
_CHANGES_TENANT = frozenset(
    {
        "ArchiveTenant",
        "DeleteTenant",
        "PurgeTenant",
        "RestoreTenant",
        "ResumeTenant",
        "SetTenantLimits",
        "SuspendTenant",
        "UndeleteTenant",
        "UpdateTenant",
    }
)
# What has to be done to a tenant before the request can do anything at all.
_FIRST = {"ResumeTenant": "suspend", "RestoreTenant": "archive"}


class Estate:
    """One tenant for each operation that could harm it, and one for all others."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._numbers = itertools.count(1)
        self._requests = itertools.count(1)
        self._operation = ""
        self._session: Session | None = None
        self._ids: dict[str, str] = {}

    def prepare(self, case: Case[Any]) -> dict[str, str]:
        """Give a generated request ids that exist, every other time; the header with the token of its plane."""
        name: str = case.operation.definition.raw["operationId"]
        changed, self._operation = name != self._operation, name
        if self._session is None or (changed and not self._is_good()):
            self._session = self._deployment.create_tenant(f"fuzz-{next(self._numbers)}")
            self._furnish(self._session)
        elif changed and case.method == "DELETE":
            self._furnish(self._session)
        if name in _ENDS_SESSION:
            self._session = self._deployment.log_in(self._session.slug, self._session.id)
        if case.path_parameters and next(self._requests) % 2 and self._path_is_valid(case):
            if name in _CHANGES_TENANT:
                self._ids["slug"] = self._victim(_FIRST.get(name))
            # A schedule's: the platform has others than its tenants.
            self._ids["name"] = "seal_audit" if "slug" in case.path_parameters else "measure_catalog"
            case.path_parameters.update({key: self._ids[key] for key in case.path_parameters if key in self._ids})
        if not case.operation.definition.raw.get("security"):
            return {}
        return self._deployment.operator if case.path.startswith("/platform") else self._session.headers

    def log(self) -> str:
        """What the service has logged last, which is where a 500 or 503 says why."""
        return self._deployment.api.log_tail()

    def _is_good(self) -> bool:
        assert self._session is not None
        answer = self._deployment.client.get("/api/users/me", headers=self._session.headers)
        if answer.status_code != 200 or [role["slug"] for role in answer.json()["roles"]] != ["owner"]:
            return False
        # Refused to an owner without a second factor, once a generated request has asked everybody for one.
        return self._deployment.client.get("/api/teams", headers=self._session.headers).status_code == 200

    @staticmethod
    def _path_is_valid(case: Case[Any]) -> bool:
        if case.meta is None:
            return True
        component = case.meta.components.get(ParameterLocation.PATH)
        return component is None or component.mode is GenerationMode.POSITIVE

    def _furnish(self, session: Session) -> None:
        number = next(self._numbers)
        user = self._post("/api/users", {"email": f"ann-{number}@people.example", "password": PASSWORD})
        team = self._post("/api/teams", {"name": "Red", "tags": [f"urgent-{number}"]})
        self._post(f"/api/teams/{team['id']}/members", {"userId": user["id"], "role": "admin"})
        account = self._post("/api/service-accounts", {"name": f"Deployer {number}", "roles": ["viewer"]})
        key = self._post("/api/api-keys", {"name": "Report", "scopes": ["roles:read"]})
        to_team = self._post(f"/api/teams/{team['id']}/invitations", {"email": f"bob-{number}@people.example"})
        role = self._post("/api/roles", {"name": f"Keeper {number}", "permissions": ["tags:read"]})
        invitation = self._post("/api/invitations", {"email": f"eve-{number}@people.example"})
        # There may be so many of them, and one is furnished for each operation that deletes.
        connections = self._deployment.client.get("/api/sso/connections", headers=session.headers).json()["items"]
        for each in connections:
            self._deployment.client.delete(f"/api/sso/connections/{each['id']}", headers=session.headers)
        connection = self._post(
            "/api/sso/connections",
            {
                "name": f"Directory {number}",
                "issuer": "https://id.invalid/",
                "clientId": "tenantry",
                "clientSecret": "a secret",
                "domains": [f"people-{number}.example"],
            },
        )
        self._ids = {
            "connection_id": connection["id"],
            "invitation_id": invitation["id"],
            "team_invitation_id": to_team["id"],
            "role_id": role["id"],
            "team_id": team["id"],
            "tag_id": team["tags"][0]["id"],
            "user_id": user["id"],
            "service_account_id": account["id"],
            "api_key_id": key["id"],
            "session_id": self._a_session(),
            "slug": session.slug,
            "rollout_id": self._rollout(),
            "export_id": self._export(),
            "operation_id": self._operators_export(session.slug),
            **self._operators(session.slug),
        }

    def _operators(self, slug: str) -> dict[str, str]:
        """A grant, an operator who has come in by it, and one who asks."""
        client, headers = self._deployment.client, self._deployment.operator
        grant = self._post("/api/operator-access/grants", {"hours": 1, "reason": "Ticket 4711"})
        path = f"/platform/tenants/{slug}/access"
        opened = client.post(path, json={"reason": "Ticket 4711"}, headers=headers)
        assert opened.status_code == 201, opened.text
        # One at a time may be open.
        client.post(f"{path}/requests", json={"reason": "Ticket 4711"}, headers=headers)
        asked = client.get(f"{path}/requests", headers=headers).json()[0]
        return {
            "grant_id": grant["id"],
            "access_session_id": opened.json()["id"],
            "access_id": opened.json()["id"],
            "access_request_id": asked["id"],
        }

    def _a_session(self) -> str:
        assert self._session is not None
        answer = self._deployment.client.get("/api/sessions", headers=self._session.headers)
        found: str = answer.json()["items"][0]["id"]
        return found

    def _victim(self, first: str | None) -> str:
        """A tenant to which anything may happen; its slug."""
        slug = self._deployment.create_tenant(f"victim-{next(self._numbers)}").slug
        if first is not None:
            path, headers = f"/platform/tenants/{slug}/{first}", self._deployment.operator
            answer = self._deployment.client.post(path, json={}, headers=headers)
            assert answer.status_code == 200, answer.text
        return slug

    def _export(self) -> str:
        """One that the organization's own people have asked for, and that they can fetch."""
        assert self._session is not None
        return self._done("/api/organization/exports", self._session.headers)

    def _operators_export(self, slug: str) -> str:
        return self._done(f"/platform/tenants/{slug}/export", self._deployment.operator, json={})

    def _done(self, path: str, headers: dict[str, str], **body: Any) -> str:
        """Ask for an export, and wait until it is done; its id."""
        client = self._deployment.client
        made: list[str] = []

        def is_done() -> bool:
            if not made:
                asked = client.post(path, headers=headers, **body)
                # Where a generated request has asked for one a moment ago.
                assert asked.status_code in {200, 202, 409}, asked.text
                made.extend([asked.json()["id"]] if asked.status_code != 409 else [])
            operator = self._deployment.operator
            return bool(
                made and client.get(f"/platform/operations/{made[0]}", headers=operator).json()["status"] == "done"
            )

        assert wait_until(is_done, 30)
        return made[0]

    def _rollout(self) -> str:
        """One that has ended, since the events of one that runs would be waited for."""
        client, operator = self._deployment.client, self._deployment.operator
        made = client.post("/platform/rollouts", json={}, headers=operator)
        assert made.status_code in {202, 409}, made.text
        # Where a generated request has started one a moment ago.
        found: str = made.json()["id" if made.status_code == 202 else "rollout"]

        def has_ended() -> bool:
            rollout = client.get(f"/platform/rollouts/{found}", headers=operator).json()
            return bool(rollout["status"] != "running")

        assert wait_until(has_ended, 30)
        return found

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._session is not None
        answer = self._deployment.client.post(path, json=body, headers=self._session.headers)
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]
