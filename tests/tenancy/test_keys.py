from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tenantry.kernel.security import AUDIENCE_PLATFORM, AUDIENCE_TENANT
from tests.databases import Template
from tests.platform.support import open_api
from tests.world import Caller, TenantHandle, World


async def _key_set(world: World) -> dict[str, Any]:
    answer = await world.http.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    return answer.json()  # type: ignore[no-any-return]


async def _verify(world: World, token: str, audience: str) -> dict[str, Any]:
    """What another service does, with PyJWT and the public keys alone."""
    keys = jwt.PyJWKSet.from_dict(await _key_set(world))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["EdDSA"],
        audience=audience,
        issuer=world.settings.token_issuer,
        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]},
    )
    return claims


async def test_any_service_can_verify_a_token_by_the_published_keys(world: World, acme: TenantHandle) -> None:
    claims = await _verify(world, acme.access_token, AUDIENCE_TENANT)
    assert (claims["sub"], claims["tid"]) == (str(acme.id), str(acme.tenant_id))
    assert claims["exp"] - claims["iat"] == world.settings.access_token_ttl
    assert abs(claims["iat"] - time.time()) < 60
    operator = await _verify(world, world.operator.access_token, AUDIENCE_PLATFORM)
    assert "tid" not in operator
    with pytest.raises(jwt.InvalidAudienceError):
        await _verify(world, world.operator.access_token, AUDIENCE_TENANT)


async def test_the_published_keys_hold_nothing_private(world: World) -> None:
    for key in (await _key_set(world))["keys"]:
        assert key.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")


async def test_after_a_rotation_a_new_key_signs_and_old_tokens_go_on(
    database_addresses: Template, tmp_path: Path
) -> None:
    async with open_api(database_addresses, tmp_path) as world:
        old = world.operator.access_token
        new_key = world.app.state.keyring.rotate()
        answer = await world.http.post(
            "/platform/auth/login", json={"email": "root@platform.example", "password": "an operator's password"}
        )
        new = answer.json()["accessToken"]
        assert jwt.get_unverified_header(new)["kid"] == new_key.kid
        assert jwt.get_unverified_header(old)["kid"] != new_key.kid
        assert len((await _key_set(world))["keys"]) == 2
        for token in (old, new):
            assert (await Caller(world.http, token).get("/platform/auth/me")).status_code == 200
            await _verify(world, token, AUDIENCE_PLATFORM)
        # Another process of the deployment, started since, signs with the new one and takes both.
        async with open_api(database_addresses, tmp_path) as other:
            assert jwt.get_unverified_header(other.operator.access_token)["kid"] == new_key.kid
            assert (await Caller(other.http, old).get("/platform/auth/me")).status_code == 200


async def test_the_keys_are_kept_where_only_their_owner_reads(world: World) -> None:
    assert world.settings.keyring_path.stat().st_mode & 0o077 == 0
