from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenantry.kernel.security import (
    AUDIENCE_OPERATOR_ACCESS,
    AUDIENCE_PLATFORM,
    AUDIENCE_TENANT,
    Claims,
    InvalidToken,
    Keyring,
    Tokens,
)
from tenantry.kernel.security.tokens import MAX_TOKEN_LENGTH
from tests.kernel.security_support import Clock

SUB, TID, SID = uuid4(), uuid4(), uuid4()
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
shared_fixtures = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(tmp_path: Path, clock: Clock) -> Keyring:
    return Keyring.open(tmp_path / "keyring.json", retain=960, clock=clock, monotonic=clock.monotonic)


@pytest.fixture
def tokens(ring: Keyring, clock: Clock) -> Tokens:
    return Tokens(ring, "tenantry", clock)


def tenant_token(tokens: Tokens, ttl: int = 900) -> str:
    return tokens.issue(audience=AUDIENCE_TENANT, sub=SUB, ttl=ttl, tid=TID, sid=SID)[0]


def refused(tokens: Tokens, token: str, audience: str = AUDIENCE_TENANT) -> str:
    with pytest.raises(InvalidToken) as caught:
        tokens.verify(token, audience)
    return caught.value.reason


def encode(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def decode(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def claims_of(clock: Clock, **changes: object) -> dict[str, Any]:
    claims = {
        "iss": "tenantry",
        "aud": AUDIENCE_TENANT,
        "sub": str(SUB),
        "jti": str(uuid4()),
        "iat": int(clock.now),
        "exp": int(clock.now) + 900,
        "tid": str(TID),
        "sid": str(SID),
    }
    return {name: value for name, value in (claims | changes).items() if value is not ...}


def signed(ring: Keyring, payload: object, header: dict[str, Any] | None = None) -> str:
    """A token with our own signature under whatever header and payload: what only the keys' holder can make."""
    key = ring.signing_key()
    header = {"alg": "EdDSA", "kid": key.kid, "typ": "JWT"} if header is None else header
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    head = encode(json.dumps(header).encode()) + "." + encode(raw)
    return head + "." + encode(key.private.sign(head.encode()))


def test_a_token_says_what_was_put_in(tokens: Tokens, clock: Clock) -> None:
    token, issued = tokens.issue(audience=AUDIENCE_TENANT, sub=SUB, ttl=900, tid=TID, sid=SID)
    claims = tokens.verify(token, AUDIENCE_TENANT)
    assert claims == issued
    assert (claims.iss, claims.sub, claims.tid, claims.sid) == ("tenantry", SUB, TID, SID)
    assert (claims.iat, claims.exp) == (int(clock.now), int(clock.now) + 900)
    assert isinstance(claims.jti, UUID)
    assert len(token) < 1000


def test_any_other_service_can_verify_a_token_with_the_published_keys(tokens: Tokens, ring: Keyring) -> None:
    token = tenant_token(tokens)
    keys = jwt.PyJWKSet.from_dict(ring.jwks())
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "EdDSA", "kid": ring.signing_key().kid, "typ": "JWT"}
    payload = jwt.decode(
        token,
        keys[header["kid"]],
        algorithms=["EdDSA"],
        audience=AUDIENCE_TENANT,
        issuer="tenantry",
        options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "sub", "jti", "tid", "sid"]},
    )
    assert payload["tid"] == str(TID)


def test_an_operators_token_never_passes_as_a_tenants_nor_the_reverse(tokens: Tokens) -> None:
    operator = tokens.issue(audience=AUDIENCE_PLATFORM, sub=SUB, ttl=900, sid=SID)[0]
    tenant = tenant_token(tokens)
    # Asked twice, so that the remembered token is tried as well.
    for _ in range(2):
        assert tokens.verify(operator, AUDIENCE_PLATFORM).tid is None
        assert tokens.verify(tenant, AUDIENCE_TENANT).tid == TID
        assert refused(tokens, operator, AUDIENCE_TENANT) == "audience"
        assert refused(tokens, tenant, AUDIENCE_PLATFORM) == "audience"


def test_a_token_of_an_operator_in_a_tenant_passes_as_neither_a_users_nor_an_operators(tokens: Tokens) -> None:
    visitor = tokens.issue(audience=AUDIENCE_OPERATOR_ACCESS, sub=SUB, ttl=900, sid=SID, tid=TID, opr="read")[0]
    for _ in range(2):
        assert tokens.verify(visitor, AUDIENCE_OPERATOR_ACCESS).opr == "read"
        assert refused(tokens, visitor, AUDIENCE_TENANT) == "audience"
        assert refused(tokens, visitor, AUDIENCE_PLATFORM) == "audience"
        assert refused(tokens, tenant_token(tokens), AUDIENCE_OPERATOR_ACCESS) == "audience"


@pytest.mark.parametrize("audience", [AUDIENCE_TENANT, AUDIENCE_PLATFORM])
def test_nobody_else_says_what_an_operator_may_do(tokens: Tokens, ring: Keyring, clock: Clock, audience: str) -> None:
    token = signed(ring, claims_of(clock, aud=audience, opr="write"))
    assert refused(tokens, token, audience) == "claims"


@pytest.mark.parametrize(
    "arguments",
    [
        {"audience": AUDIENCE_TENANT, "sid": SID, "tid": TID, "opr": "read"},
        {"audience": AUDIENCE_OPERATOR_ACCESS, "sid": SID, "tid": TID},
        {"audience": AUDIENCE_OPERATOR_ACCESS, "sid": SID, "opr": "read"},
        {"audience": AUDIENCE_OPERATOR_ACCESS, "tid": TID, "opr": "read"},
        {"audience": AUDIENCE_PLATFORM, "opr": "read"},
        {"audience": AUDIENCE_TENANT, "sid": SID},
        {"audience": AUDIENCE_TENANT, "tid": TID},
        {"audience": AUDIENCE_PLATFORM, "tid": TID},
        {"audience": "elsewhere", "tid": TID, "sid": SID},
        {"audience": AUDIENCE_PLATFORM, "ttl": 0},
        {"audience": AUDIENCE_PLATFORM, "ttl": 961},
    ],
)
def test_a_token_that_would_not_be_accepted_is_not_issued(tokens: Tokens, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="token"):
        tokens.issue(**{"sub": SUB, "ttl": 900, **arguments})


def test_an_audience_that_does_not_exist_is_a_mistake_of_the_caller(tokens: Tokens) -> None:
    with pytest.raises(KeyError):
        tokens.verify(tenant_token(tokens), "elsewhere")


def test_a_token_expires_to_the_second_also_when_it_is_remembered(tokens: Tokens, clock: Clock) -> None:
    token = tenant_token(tokens, ttl=10)
    clock.advance(9.9)
    tokens.verify(token, AUDIENCE_TENANT)
    clock.advance(0.1)
    assert refused(tokens, token) == "expired"
    assert refused(Tokens(tokens._keyring, "tenantry", clock), token) == "expired"


def test_a_token_from_the_future_is_refused_beyond_five_seconds(tokens: Tokens, ring: Keyring, clock: Clock) -> None:
    early = signed(ring, claims_of(clock, iat=int(clock.now) + 5))
    tokens.verify(early, AUDIENCE_TENANT)
    assert refused(tokens, signed(ring, claims_of(clock, iat=int(clock.now) + 6))) == "claims"


def test_tokens_stay_valid_through_a_rotation_until_they_expire(tokens: Tokens, ring: Keyring, clock: Clock) -> None:
    token = tenant_token(tokens)
    ring.rotate()
    newer = tenant_token(tokens)
    assert jwt.get_unverified_header(newer)["kid"] != jwt.get_unverified_header(token)["kid"]
    clock.advance(899)
    tokens.verify(token, AUDIENCE_TENANT)
    Tokens(ring, "tenantry", clock).verify(token, AUDIENCE_TENANT)


def test_a_key_that_left_the_ring_takes_its_remembered_tokens_with_it(
    tokens: Tokens, ring: Keyring, clock: Clock, tmp_path: Path
) -> None:
    token = tenant_token(tokens)
    tokens.verify(token, AUDIENCE_TENANT)
    # The key leaked: the operator puts a fresh ring in its place.
    fresh = tmp_path / "fresh.json"
    Keyring.open(fresh, retain=960)
    fresh.replace(ring.path)
    clock.advance(1)
    assert refused(tokens, token) == "unknown_key"
    tokens.verify(tenant_token(tokens), AUDIENCE_TENANT)


def test_a_remembered_token_costs_no_signature(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tenant_token(tokens)
    first = tokens.verify(token, AUDIENCE_TENANT)

    def never(*_: object) -> None:
        raise AssertionError("verified again")

    monkeypatch.setattr(tokens, "_verify", never)
    assert tokens.verify(token, AUDIENCE_TENANT) is first


def test_no_more_tokens_are_remembered_than_allowed_and_the_least_used_go_first(
    ring: Keyring, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(ring, "tenantry", clock, remember=2)
    first, second, third = (tenant_token(tokens) for _ in range(3))
    verified: list[str] = []
    verify = tokens._verify

    def counted(token: str, audience: str) -> tuple[Claims, str]:
        verified.append(token)
        return verify(token, audience)

    monkeypatch.setattr(tokens, "_verify", counted)
    for token in (first, second, first, third, first, second):
        tokens.verify(token, AUDIENCE_TENANT)
    assert verified == [first, second, third, second]


def test_a_refused_token_is_not_remembered_and_the_token_itself_is_not_kept(tokens: Tokens) -> None:
    token = tenant_token(tokens)
    for _ in range(3):
        assert refused(tokens, token, AUDIENCE_PLATFORM) == "audience"
    assert not tokens._remembered[AUDIENCE_PLATFORM]
    tokens.verify(token, AUDIENCE_TENANT)
    assert list(tokens._remembered[AUDIENCE_TENANT]) == [hashlib.sha256(token.encode()).digest()]


# Forgeries


@shared_fixtures
@given(data=st.data())
def test_a_token_with_any_character_changed_is_refused(tokens: Tokens, data: st.DataObject) -> None:
    token = tenant_token(tokens)
    tokens.verify(token, AUDIENCE_TENANT)
    place = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(ALPHABET) | st.characters())
    changed = token[:place] + character + token[place + 1 :]
    if changed != token:
        refused(tokens, changed)


@shared_fixtures
@given(cut=st.integers(0, 600), tail=st.text(st.sampled_from(ALPHABET + "=. \n\0é"), max_size=4))
def test_a_token_cut_short_or_with_something_behind_it_is_refused(tokens: Tokens, cut: int, tail: str) -> None:
    token = tenant_token(tokens)
    changed = token[:cut] + tail
    if changed != token:
        refused(tokens, changed)
    if tail:
        refused(tokens, token + tail)


def respellings(token: str) -> Iterator[str]:
    """Every other text whose segments decode to the same octets: other unused bits, and padding."""
    parts = token.split(".")
    for place, segment in enumerate(parts):
        for last in ALPHABET:
            other = segment[:-1] + last
            if other != segment and decode(other) == decode(segment):
                yield ".".join([*parts[:place], other, *parts[place + 1 :]])
        for padding in ("=", "=="):
            yield ".".join([*parts[:place], segment + padding, *parts[place + 1 :]])


def test_another_spelling_of_the_same_octets_is_refused(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    spellings = [spelling for _ in range(3) for spelling in respellings(tenant_token(tokens))]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("left to the library, which forgave it in earlier versions")

    monkeypatch.setattr(tokens._jws, "decode", never)
    # An Ed25519 signature is 64 octets, so its last character has four unused bits: 15 other spellings each.
    assert len(spellings) >= 3 * (15 + 6)
    assert {refused(tokens, spelling) for spelling in spellings} == {"malformed"}


@shared_fixtures
@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,20}(\.[A-Za-z0-9_-]{0,20}){0,4}", fullmatch=True))
def test_whatever_is_not_a_token_is_refused(tokens: Tokens, text: str) -> None:
    refused(tokens, text)


@shared_fixtures
@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=64))
def test_whatever_octets_make_no_token_are_refused(tokens: Tokens, header: bytes, payload: bytes, end: bytes) -> None:
    refused(tokens, f"{encode(header)}.{encode(payload)}.{encode(end)}")


def test_a_long_token_is_refused_unread(tokens: Tokens, ring: Keyring, clock: Clock) -> None:
    token = signed(ring, claims_of(clock, iss="x" * MAX_TOKEN_LENGTH))
    assert refused(tokens, token) == "malformed"
    assert refused(tokens, "a" * (MAX_TOKEN_LENGTH + 1)) == "malformed"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
def test_a_token_without_a_signature_is_refused(tokens: Tokens, ring: Keyring, clock: Clock, alg: str) -> None:
    head = encode(json.dumps({"alg": alg, "kid": ring.signing_key().kid, "typ": "JWT"}).encode())
    payload = encode(json.dumps(claims_of(clock)).encode())
    assert refused(tokens, f"{head}.{payload}.") == "malformed"
    assert refused(tokens, f"{head}.{payload}.AAAA") == "algorithm"


@pytest.mark.parametrize("form", ["raw", "x", "pem"])
def test_the_public_key_is_no_secret_to_sign_with(tokens: Tokens, ring: Keyring, clock: Clock, form: str) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = ring.signing_key().private.public_key()
    secret = {
        "raw": public.public_bytes_raw(),
        "x": ring.jwks()["keys"][0]["x"].encode(),
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }[form]
    head = encode(json.dumps({"alg": "HS256", "kid": ring.signing_key().kid, "typ": "JWT"}).encode())
    text = head + "." + encode(json.dumps(claims_of(clock)).encode())
    forged = text + "." + encode(hmac.new(secret, text.encode(), hashlib.sha256).digest())
    assert refused(tokens, forged) == "algorithm"


def test_another_services_key_signs_nothing_here(tokens: Tokens, ring: Keyring, clock: Clock, tmp_path: Path) -> None:
    other = Keyring.open(tmp_path / "other.json", retain=960)
    assert refused(tokens, signed(other, claims_of(clock))) == "unknown_key"
    ours = {"alg": "EdDSA", "kid": ring.signing_key().kid, "typ": "JWT"}
    assert refused(tokens, signed(other, claims_of(clock), ours)) == "signature"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "EdDSA", "typ": "JWT"}, "unknown_key"),
        ({"alg": "EdDSA", "typ": "JWT", "kid": None}, "unknown_key"),
        ({"alg": "EdDSA", "typ": "JWT", "kid": "../../etc/passwd"}, "unknown_key"),
        ({"alg": "EdDSA", "typ": "JWT", "kid": 1}, "malformed"),
        ({"kid": "KID", "typ": "JWT"}, "malformed"),
        ({"alg": ["EdDSA"], "kid": "KID", "typ": "JWT"}, "malformed"),
        ({"alg": "eddsa", "kid": "KID", "typ": "JWT"}, "algorithm"),
        ({"alg": "Ed25519", "kid": "KID", "typ": "JWT"}, "algorithm"),
        ({"alg": "EdDSA", "kid": "KID"}, "malformed"),
        ({"alg": "EdDSA", "kid": "KID", "typ": "dpop+jwt"}, "malformed"),
        ({"alg": "EdDSA", "kid": "KID", "typ": "JWT", "crit": ["b64"], "b64": False}, "malformed"),
        ({"alg": "EdDSA", "kid": "KID", "typ": "JWT", "jku": "https://evil.example"}, "malformed"),
        ([], "malformed"),
    ],
)
def test_a_header_of_another_form_is_refused_even_with_our_signature(
    tokens: Tokens, ring: Keyring, clock: Clock, header: Any, reason: str
) -> None:
    if isinstance(header, dict) and header.get("kid") == "KID":
        header = header | {"kid": ring.signing_key().kid}
    assert refused(tokens, signed(ring, claims_of(clock), header)) == reason


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "jti", "iat", "exp", "tid", "sid"])
def test_every_claim_is_required(tokens: Tokens, ring: Keyring, clock: Clock, name: str) -> None:
    assert refused(tokens, signed(ring, claims_of(clock, **{name: ...}))) == "claims"
    assert refused(tokens, signed(ring, claims_of(clock, **{name: None}))) == "claims"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "somebody else"}, "issuer"),
        ({"iss": 1}, "claims"),
        ({"aud": "tenantry:other"}, "audience"),
        ({"aud": [AUDIENCE_TENANT]}, "claims"),
        ({"sub": "not a uuid"}, "claims"),
        ({"sub": 1}, "claims"),
        ({"jti": ""}, "claims"),
        ({"tid": "acme"}, "claims"),
        ({"sid": True}, "claims"),
        ({"exp": "1900000000"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": 1_800_000_900.5}, "claims"),
        ({"exp": 1}, "claims"),
        ({"iat": "now"}, "claims"),
        ({"iat": 1_700_000_000, "exp": 1_799_999_999}, "expired"),
        ({"iat": 1_700_000_000, "exp": 1_800_000_000}, "expired"),
        ({"nbf": 1}, "claims"),
        ({"role": "admin"}, "claims"),
    ],
)
def test_a_claim_of_another_form_is_refused_even_with_our_signature(
    tokens: Tokens, ring: Keyring, clock: Clock, changes: dict[str, Any], reason: str
) -> None:
    assert refused(tokens, signed(ring, claims_of(clock, **changes))) == reason


def test_an_operators_token_that_names_a_tenant_is_refused(tokens: Tokens, ring: Keyring, clock: Clock) -> None:
    token = signed(ring, claims_of(clock, aud=AUDIENCE_PLATFORM))
    assert refused(tokens, token, AUDIENCE_PLATFORM) == "claims"


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"{", b'{"iss": "\xff"}', b"[" * 2000])
def test_a_payload_that_is_no_object_is_refused_even_with_our_signature(
    tokens: Tokens, ring: Keyring, payload: bytes
) -> None:
    assert refused(tokens, signed(ring, payload)) in {"claims", "malformed"}
