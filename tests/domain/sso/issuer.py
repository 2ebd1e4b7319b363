"""An issuer that can be told to lie: about tokens, keys and itself. Honest, it asks for all that it should."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from tests.receiver import Received, open_receiver

__all__ = ("Issuer", "hash_of", "open_issuer")

Claims = dict[str, Any]


def hash_of(text: str) -> str:
    """`at_hash` of an access token, for signatures with SHA-256 (OpenID Connect Core §3.1.3.6)."""
    return _text(hashlib.sha256(text.encode()).digest()[:16])


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Issuer:
    """An issuer of one client; what is to be a lie is replaced before it is told."""

    issuer: str
    client_id: str = "tenantry"
    client_secret: str = "s3cret: of+the client%"
    subject: str = "subject-1"
    claims: Claims = field(default_factory=dict)
    """Besides those of every ID token."""
    userinfo: Claims | None = None
    metadata: Claims = field(default_factory=dict)
    """In place of what the discovery document says."""
    tamper: Callable[[Claims], Claims] = lambda claims: claims
    """What becomes of the claims of an ID token before it is signed."""
    sign: Callable[[Claims], str] | None = None
    """In place of signing with its key."""
    answers: Claims = field(default_factory=dict)
    """In place of what the token endpoint answers."""
    names_itself: bool = True
    key: EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kid: str = "key-1"
    asked: list[str] = field(default_factory=list)
    """The paths that it was asked for."""
    forms: list[dict[str, str]] = field(default_factory=list)
    """What its token endpoint was sent."""
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def rotate(self) -> None:
        """Sign with another key from now on, and list it alone."""
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), f"key-{secrets.token_hex(4)}"

    def authorize(self, url: str, **more: str) -> str:
        """Sign its one person in on the page of that address; where the browser is sent, `more` in its query."""
        assert url.startswith(f"{self.issuer}/authorize?"), url
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code"
        assert asked["client_id"] == self.client_id
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"]} | ({"iss": self.issuer} if self.names_itself else {})
        return f"{asked['redirect_uri']}?{urlencode(answer | more)}"

    def handle(self, request: Received) -> tuple[int, dict[str, str], bytes]:
        path = urlsplit(request.target).path
        self.asked.append(path)
        routes: dict[str, Callable[[Received], tuple[int, Any]]] = {
            "/.well-known/openid-configuration": lambda _: (200, self._document() | self.metadata),
            "/jwks": lambda _: (200, {"keys": [self._jwk()]}),
            "/token": self._token,
            "/userinfo": self._userinfo,
        }
        status, body = routes[path](request)
        return status, {"Content-Type": "application/json"}, json.dumps(body).encode()

    def _document(self) -> Claims:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["plain", "S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "authorization_response_iss_parameter_supported": self.names_itself,
        }

    def _jwk(self) -> Claims:
        jwk: Claims = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return jwk | {"kid": self.kid, "use": "sig", "alg": "ES256"}

    def _token(self, request: Received) -> tuple[int, Any]:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.forms.append(form)
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        if _text(hashlib.sha256(form["code_verifier"].encode()).digest()) != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        if self._client(request, form) != (self.client_id, self.client_secret):
            return 401, {"error": "invalid_client"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "at_hash": hash_of("an access token"),
            **self.claims,
        }
        claims = self.tamper(claims)
        token = (
            self.sign(claims)
            if self.sign is not None
            else jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": self.kid})
        )
        return 200, {"id_token": token, "access_token": "an access token", "token_type": "Bearer", **self.answers}

    @staticmethod
    def _client(request: Received, form: dict[str, str]) -> tuple[str | None, str | None]:
        header = request.headers.get("authorization")
        if header is None:
            return form.get("client_id"), form.get("client_secret")
        name, _, secret = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return unquote_plus(name), unquote_plus(secret)

    def _userinfo(self, request: Received) -> tuple[int, Any]:
        if request.headers.get("authorization") != "Bearer an access token":
            return 401, {"error": "invalid_token"}
        return 200, {"sub": self.subject} if self.userinfo is None else self.userinfo


@asynccontextmanager
async def open_issuer() -> AsyncIterator[Issuer]:
    """An honest one, until it is told otherwise."""
    async with open_receiver() as receiver:
        issuer = Issuer(receiver.url.removesuffix("/hooks"))
        receiver.answer = issuer.handle
        yield issuer
