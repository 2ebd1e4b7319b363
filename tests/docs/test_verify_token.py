"""docs/security.md's example of another service that verifies our tokens, as it stands there."""

from __future__ import annotations

import asyncio
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import jwt
import pytest
from jwt import jwks_client

from tenantry.kernel.security import AUDIENCE_PLATFORM, AUDIENCE_TENANT, Keyring
from tests.docs.blocks import DOCS
from tests.world import TenantHandle, World

Verify = Callable[[str], dict[str, str]]


class _Keys:
    """A server of one address, whose answer the test sets."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"keys": []}
        keys = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(keys.document).encode()
                self.send_response(200 if self.path == "/.well-known/jwks.json" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def keys() -> Iterator[_Keys]:
    made = _Keys()
    yield made
    made.close()


@pytest.fixture
def verify(keys: _Keys) -> Verify:
    text = (DOCS / "security.md").read_text()
    match = re.search(r"^<!-- example: verify-token -->\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    assert match[1].count("https://api.example.com") == 1
    names: dict[str, Any] = {}
    exec(match[1].replace("https://api.example.com", keys.address), names)
    found: Verify = names["verify"]
    return found


async def test_the_example_accepts_a_users_token_and_no_other(
    world: World, acme: TenantHandle, keys: _Keys, verify: Verify
) -> None:
    keys.document = (await world.http.get("/.well-known/jwks.json")).json()
    claims = await asyncio.to_thread(verify, acme.access_token)
    assert claims["tid"] == str(acme.tenant_id)
    assert claims["sub"] == str(acme.id)

    with pytest.raises(jwt.MissingRequiredClaimError):
        verify(world.operator.access_token)
    head, payload, signature = acme.access_token.split(".")
    flipped = signature[:10] + ("A" if signature[10] != "A" else "B") + signature[11:]
    with pytest.raises(jwt.InvalidSignatureError):
        verify(f"{head}.{payload}.{flipped}")
    with pytest.raises(jwt.PyJWTError):
        verify(jwt.encode({"aud": AUDIENCE_TENANT, "sub": str(acme.id)}, "", algorithm="none"))


class _Ring:
    """A keyring, and tokens with whatever claims a test wants."""

    def __init__(self, folder: Path) -> None:
        self.ring = Keyring.open(folder / "keyring.json", retain=3600)

    def issue(self, **claims: object) -> str:
        now = int(time.time())
        payload = {"iss": "tenantry", "aud": AUDIENCE_TENANT, "iat": now, "exp": now + 60, **claims}
        payload |= {name: str(uuid4()) for name in ("sub", "tid", "sid", "jti")}
        key = self.ring.signing_key()
        return jwt.encode(payload, key.private, algorithm="EdDSA", headers={"kid": key.kid})


@pytest.fixture
def ring(tmp_path: Path, keys: _Keys) -> _Ring:
    made = _Ring(tmp_path)
    keys.document = made.ring.jwks()
    return made


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({}, None),
        ({"aud": AUDIENCE_PLATFORM}, jwt.InvalidAudienceError),
        ({"iss": "somebody-else"}, jwt.InvalidIssuerError),
        ({"iat": 1, "exp": 2}, jwt.ExpiredSignatureError),
    ],
)
def test_the_example_looks_at_each_claim(
    ring: _Ring, verify: Verify, claims: dict[str, object], error: type[Exception] | None
) -> None:
    token = ring.issue(**claims)
    with pytest.raises(error) if error is not None else nullcontext():
        verify(token)


def test_the_example_finds_a_key_that_was_made_by_a_rotation(
    ring: _Ring, keys: _Keys, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ring.issue()
    verify(old)
    ring.ring.rotate()
    new = ring.issue()
    keys.document = ring.ring.jwks()
    # A second later, without waiting for it.
    monkeypatch.setattr(jwks_client, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 1))
    verify(new)
    verify(old)
