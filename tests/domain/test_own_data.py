"""A copy of one's own data: all that is one's own, no secret, and nothing of anybody else's."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import select

from tenantry.domain.identity.address_changes.models import EmailChange
from tenantry.domain.identity.api_keys.models import ApiKey
from tenantry.domain.identity.factors.models import Passkey, RecoveryCode, TotpFactor
from tenantry.domain.identity.people import copies
from tenantry.domain.identity.people.copies import copy_pieces
from tenantry.domain.identity.people.schemas import PersonalDataCopy
from tenantry.domain.identity.sessions.models import UserSession
from tenantry.domain.identity.sign_up.models import SignUp
from tenantry.domain.identity.sso.models import SsoConnection, SsoIdentity
from tenantry.domain.identity.verification.models import EmailVerification
from tenantry.domain.scim.models import DirectoryUser
from tenantry.features import PERSONAL_DATA
from tenantry.kernel.errors import UnavailableException
from tenantry.kernel.personal import Person
from tests.domain.machines import make_account, make_key
from tests.domain.test_notifications import give
from tests.domain.test_people import add_member
from tests.world import PASSWORD, Caller, TenantHandle, World

PATH = "/api/users/me/export"
SECTIONS = [
    "roles",
    "profile",
    "sessions",
    "devices",
    "invitations",
    "passwordResets",
    "emailVerifications",
    "emailChanges",
    "signUps",
    "authenticatorApps",
    "passkeys",
    "singleSignOn",
    "directory",
    "memberships",
    "teamInvitationsReceived",
    "teamInvitationsSent",
    "acts",
    "history",
    "notifications",
    "notificationPreferences",
    "apiKeys",
]


async def copy_of(who: Caller) -> dict[str, Any]:
    answer = await who.post(PATH)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    # The document of the API says what it is.
    msgspec.json.decode(answer.content, type=PersonalDataCopy)
    return answer.json()  # type: ignore[no-any-return]


async def furnish(tenant: TenantHandle) -> Caller:
    """Somebody with a row in every section."""
    asked = await tenant.post("/api/users", json={"email": "ann@people.example", "password": PASSWORD, "name": "Ann"})
    assert asked.status_code == 201, asked.text
    ann = await tenant.world.log_in(tenant.slug, "ann@people.example")
    ann.id = UUID(asked.json()["id"])
    team = await tenant.add_team("Red")
    await add_member(tenant, team, ann, "admin")
    other = (await tenant.post("/api/teams", json={"name": "Blue"})).json()
    for by, where, email in ((tenant, other, "ann@people.example"), (ann, team, "new@people.example")):
        role = {"organizationRole": "viewer"} if by is ann else {}
        if by is ann:
            assert (await tenant.patch(f"/api/users/{ann.id}", json={"roles": ["admin"]})).is_success
        made = await by.post(f"/api/teams/{where['id']}/invitations", json={"email": email, **role})
        assert made.status_code == 201, made.text
    await make_key(ann, name="Ann's laptop")
    account = await make_account(ann, "Deployer", roles=("viewer",))
    await make_key(ann, path=f"{account}/api-keys", name="The organization's")
    chosen = await ann.request(
        "PUT", "/api/notifications/preferences", json={"items": [{"kind": "user.created", "inApp": True}]}
    )
    assert chosen.status_code == 200, chosen.text
    await give(tenant, ann.id)
    reset = await tenant.world.http.post(
        "/api/auth/password-reset", json={"tenant": tenant.slug, "email": "ann@people.example"}
    )
    assert reset.status_code == 202
    async with tenant.world.database.transaction(tenant.context.write_scope) as transaction:
        connection = SsoConnection(name="Provider", issuer="https://id.example", client_id="x", client_secret=b"x")
        connection.scopes = ["openid"]
        transaction.session.add(connection)
        await transaction.session.flush()
        transaction.session.add_all(_of_other_ways_in(ann.id, connection.id))
    return ann


def _of_other_ways_in(user_id: UUID, connection_id: UUID) -> list[Any]:
    """Rows that take a provider, a directory or an authenticator to come by."""
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    return [
        EmailVerification(user_id=user_id, email="ann@people.example", digest=b"v", expires_at=later),
        EmailChange(
            user_id=user_id,
            old_email="ann@people.example",
            new_email="ann@elsewhere.example",
            old_digest=b"o",
            new_digest=b"n",
            expires_at=later,
        ),
        SignUp(email="ann@people.example", digest=b"s", expires_at=later),
        TotpFactor(user_id=user_id, secret=b"sealed"),
        Passkey(user_id=user_id, credential_id=b"c", public_key=b"p", name="Laptop", transports=[]),
        SsoIdentity(user_id=user_id, connection_id=connection_id, subject="248289761001"),
        DirectoryUser(user_id=user_id, external_id="ann-1", given_name="Ann", family_name="Example"),
        RecoveryCode(user_id=user_id, digest=b"r"),
    ]


async def test_a_copy_has_everything_of_ones_own(acme: TenantHandle, globex: TenantHandle) -> None:
    ann, namesake = await furnish(acme), await furnish(globex)
    copy = await copy_of(ann)
    assert (copy["format"], copy["version"]) == ("tenantry-personal-data", 1)
    assert copy["organization"] == {"id": str(acme.tenant_id), "slug": acme.slug, "name": acme.context.name}
    data = copy["data"]
    assert sorted(data) == sorted(SECTIONS) == sorted(section.section for section in PERSONAL_DATA.sections)
    [profile] = data["profile"]
    assert (profile["id"], profile["email"], profile["name"]) == (str(ann.id), "ann@people.example", "Ann")
    assert [each["role"]["slug"] for each in data["roles"]] == ["admin"]
    assert [(each["team"]["slug"], each["role"]) for each in data["memberships"]] == [("red", "admin")]
    assert [each["name"] for each in data["apiKeys"]] == ["Ann's laptop"]
    assert len(data["sessions"]) == len(data["passwordResets"]) == len(data["notifications"]) == 1
    assert [name for name, rows in data.items() if not rows] == ["invitations"], "she was added, and not invited"
    assert [each["newEmail"] for each in data["emailChanges"]] == ["ann@elsewhere.example"]
    assert [each["subject"] for each in data["singleSignOn"]] == ["248289761001"]
    assert [(each["externalId"], each["givenName"]) for each in data["directory"]] == [("ann-1", "Ann")]
    assert [(each["kind"], each["inApp"]) for each in data["notificationPreferences"]] == [("user.created", True)]
    assert [each["userId"] for each in data["teamInvitationsReceived"]] == [str(ann.id)]
    assert [each["role"] for each in data["teamInvitationsSent"]] == ["member"]
    assert {each["actor"] for each in data["acts"]} == {f"user:{ann.id}"}
    assert {each["subject"] for each in data["history"]} == {str(ann.id)}
    assert {"user.created", "user.data_copied"} <= {each["name"] for each in data["history"]}
    assert {each["name"] for each in data["acts"]} >= {"session.opened", "api_key.created", "user.data_copied"}
    text = json.dumps(copy)
    for foreign in (globex.slug, str(globex.tenant_id), str(namesake.id), str(globex.id)):
        assert foreign not in text


async def test_a_copy_has_no_secret_and_no_address_of_others(world: World, acme: TenantHandle) -> None:
    ann = await furnish(acme)
    text = (await ann.post(PATH)).text
    async with world.database.transaction(acme.context.read_scope) as transaction:
        digests = [
            *await transaction.session.scalars(select(UserSession.refresh_digest)),
            *await transaction.session.scalars(select(ApiKey.digest)),
        ]
    assert len(digests) >= 4
    for digest in digests:
        assert digest.hex() not in text
    for word in ("argon2", "digest", "hashedPassword", ann.refresh_token, ann.access_token, "new@people.example"):
        assert word not in text
    assert acme.owner_email not in text


async def test_a_copy_is_made_for_people_and_written_down(acme: TenantHandle) -> None:
    ann = await acme.add_user("ann")
    key = await make_key(acme)
    assert (await key.post(PATH)).json()["type"] == "/problems/person-required"
    assert (await acme.world.http.post(PATH)).status_code == 401
    await copy_of(ann)
    [event] = (await acme.get("/api/audit", params={"name": "user.data_copied"})).json()["items"]
    assert (event["subject"], event["actor"]) == (str(ann.id), f"user:{ann.id}")


@pytest.mark.parametrize("chunk", [1, 2, 1000])
async def test_a_copy_is_the_same_in_pieces_and_holds_no_connection_between_them(
    acme: TenantHandle, chunk: int
) -> None:
    ann = await furnish(acme)
    assert ann.id is not None
    whole = (await copy_of(ann))["data"]
    database = acme.world.database
    pool: Any = database.engine.pool
    used = pool.checkedout()
    pieces = []
    async for piece in copy_pieces(
        database, acme.context, Person(ann.id, "ann@people.example"), PERSONAL_DATA, chunk=chunk
    ):
        assert pool.checkedout() == used
        pieces.append(piece)
    assert json.loads(b"".join(pieces))["data"] == whole
    rows = sum(map(len, whole.values()))
    assert len(pieces) >= (rows if chunk == 1 else 1)


async def test_a_copy_of_somebody_with_nothing_is_whole(acme: TenantHandle) -> None:
    nobody = Person(UUID(int=7), "nobody@people.example")
    pieces = [piece async for piece in copy_pieces(acme.world.database, acme.context, nobody, PERSONAL_DATA)]
    assert json.loads(b"".join(pieces))["data"] == {section: [] for section in SECTIONS}


async def test_a_database_that_is_away_is_an_error_and_no_half_of_a_copy(
    acme: TenantHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await acme.add_user("ann")

    def away(*_: object) -> AsyncIterator[Any]:
        raise UnavailableException("The database is not answering.")

    monkeypatch.setattr(copies, "_read", away)
    answer = await ann.post(PATH)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
