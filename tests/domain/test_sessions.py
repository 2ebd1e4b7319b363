from __future__ import annotations

from tests.world import PASSWORD, TenantHandle, World


async def test_login_answers_with_tokens_that_work(world: World, acme: TenantHandle) -> None:
    answer = await world.http.post(
        "/api/auth/login", json={"tenant": acme.slug, "email": acme.owner_email, "password": PASSWORD}
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["tokenType"] == "Bearer"
    assert body["expiresIn"] == world.settings.access_token_ttl
    me = await world.http.get("/api/users/me", headers={"Authorization": f"Bearer {body['accessToken']}"})
    assert me.json()["email"] == acme.owner_email
    assert [role["slug"] for role in me.json()["roles"]] == ["owner"]
